"""Layers: hyperparameters, `init` and `apply`. `LAYERS` is the table a config names them by."""

from collections.abc import Callable

from .activation import ACTIVATIONS as ACTIVATIONS
from .activation import Activation as Activation
from .activation import Flatten as Flatten
from .activation import activation as activation
from .affine import Dense as Dense
from .affine import MaskedDense as MaskedDense
from .convolution import Conv as Conv
from .convolution import ConvTranspose as ConvTranspose
from .layer import Layer as Layer
from .layer import OpLayer as OpLayer
from .normalisation import GroupNorm as GroupNorm
from .normalisation import LayerNorm as LayerNorm
from .pooling import AvgPool as AvgPool
from .pooling import GlobalAvgPool as GlobalAvgPool
from .pooling import MaxPool as MaxPool
from .serial import Serial as Serial

LAYERS: dict[str, Callable[..., Layer]] = {
    "flatten": Flatten,
    "dense": Dense,
    "masked_dense": MaskedDense,
    "conv": Conv,
    "conv_transpose": ConvTranspose,
    "max_pool": MaxPool,
    "avg_pool": AvgPool,
    "global_avg_pool": GlobalAvgPool,
    "layer_norm": LayerNorm,
    "group_norm": GroupNorm,
    **{name: activation(op) for name, op in ACTIVATIONS.items()},
}
