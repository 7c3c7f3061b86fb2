"""Every op, one family a file. The table of them is `fnn.OPS`."""

from .activations import identity as identity
from .activations import leaky_relu as leaky_relu
from .activations import relu as relu
from .activations import sigmoid as sigmoid
from .activations import softplus as softplus
from .activations import step as step
from .activations import tanh as tanh
from .affine import dense as dense
from .affine import masked_dense as masked_dense
from .convolution import conv as conv
from .convolution import conv_transpose as conv_transpose
from .cross_entropy import softmax_cross_entropy as softmax_cross_entropy
from .divergences import binary_cross_entropy as binary_cross_entropy
from .divergences import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
from .divergences import categorical_cross_entropy as categorical_cross_entropy
from .divergences import kl_divergence as kl_divergence
from .divergences import squared_error as squared_error
from .patches import fold as fold
from .patches import unfold as unfold
from .shape import flatten as flatten
from .softmax import log_softmax as log_softmax
from .softmax import softmax as softmax
