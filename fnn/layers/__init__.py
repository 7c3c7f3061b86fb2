"""Layers: hyperparameters, `init` and `apply`. `LAYERS` is the table a config names them by.

`register` enters a layer in the table; the import here makes it a name of `fnn.layers` as well.
"""

from .activation import ACTIVATIONS as ACTIVATIONS
from .activation import Activation as Activation
from .activation import Flatten as Flatten
from .affine import Dense as Dense
from .affine import MaskedDense as MaskedDense
from .convolution import Conv as Conv
from .convolution import ConvTranspose as ConvTranspose
from .dropout import AlphaDropout as AlphaDropout
from .dropout import ChannelDropout as ChannelDropout
from .dropout import Dropout as Dropout
from .dropout import DropPath as DropPath
from .layer import LAYERS as LAYERS
from .layer import Layer as Layer
from .layer import OpLayer as OpLayer
from .layer import Reach as Reach
from .layer import graph as graph
from .layer import own_key as own_key
from .layer import register as register
from .normalisation import BatchNorm as BatchNorm
from .normalisation import GroupNorm as GroupNorm
from .normalisation import LayerNorm as LayerNorm
from .normalisation import LocalResponseNorm as LocalResponseNorm
from .pooling import AvgPool as AvgPool
from .pooling import GlobalAvgPool as GlobalAvgPool
from .pooling import GlobalMaxPool as GlobalMaxPool
from .pooling import GlobalSoftmaxPool as GlobalSoftmaxPool
from .pooling import MaxPool as MaxPool
from .residual import Residual as Residual
from .scan_1d import scan_1d as scan_1d
from .serial import Serial as Serial
from .space import Unfold as Unfold
from .space import Upsample as Upsample
