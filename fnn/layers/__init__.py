"""Layers: hyperparameters, `init` and `apply`. `LAYERS` is the table a config names them by."""

from collections.abc import Callable

from .activation import ACTIVATIONS as ACTIVATIONS
from .activation import Activation as Activation
from .activation import Flatten as Flatten
from .activation import activation as activation
from .affine import Dense as Dense
from .affine import MaskedDense as MaskedDense
from .layer import Layer as Layer
from .layer import OpLayer as OpLayer
from .serial import Serial as Serial

LAYERS: dict[str, Callable[..., Layer]] = {
    "flatten": Flatten,
    "dense": Dense,
    "masked_dense": MaskedDense,
    **{name: activation(op) for name, op in ACTIVATIONS.items()},
}
