"""Activations and Flatten: layers without parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import ops
from ..custom_op import Op
from .layer import OpLayer, Reach, register

ACTIVATIONS = (
    ops.identity,
    ops.sigmoid,
    ops.tanh,
    ops.relu,
    ops.leaky_relu,
    ops.softplus,
    ops.step,
    ops.softmax,
    ops.log_softmax,
)
"""The ops that keep the shape: each is a layer of its own name."""


@dataclass(frozen=True)
class Activation(OpLayer):
    """One op of `ACTIVATIONS`, with statics in place of its defaults: `Activation(fnn.ops.relu)`.

    Raises TypeError for a static that the op does not have.
    """

    op: Op
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        self.op.bind_statics(self.arguments)

    @property
    def statics(self):
        """The statics that differ from the op's defaults, by name."""
        return self.arguments


for _op in ACTIVATIONS:
    register(_op.name)(_op.factory(Activation))


@register("flatten")
@dataclass(frozen=True)
class Flatten(OpLayer):
    """Make one row of each example: (batch, ...) to (batch, numbers of an example)."""

    op = ops.flatten

    def reach(self, x_shape):
        """All of each axis: the layers after it tell no places apart."""
        return tuple(Reach(n) for n in x_shape[1:-1])
