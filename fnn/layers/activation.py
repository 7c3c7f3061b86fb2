"""Activations and Flatten: layers without parameters."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import ops
from ..custom_op import Op
from .layer import OpLayer, Reach

ACTIVATIONS = {
    function.name: function
    for function in (
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
}
"""The ops that keep the shape: each is a layer of its own name."""


@dataclass(frozen=True)
class Activation(OpLayer):
    """One op of `ACTIVATIONS`, applied to what comes: `Activation(fnn.ops.relu)`."""

    op: Op
    given: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        self.op._bind_statics(dict(self.given))

    @property
    def statics(self):
        """What is given to the op; it has defaults for the rest."""
        return self.given


@dataclass(frozen=True)
class Flatten(OpLayer):
    """Make one row of each example: (batch, ...) to (batch, numbers of an example)."""

    op = ops.flatten

    def reach(self, x_shape):
        """All there is: what comes after it tells no places apart."""
        return tuple(Reach(n) for n in x_shape[1:-1])


def activation(op: Op) -> Callable[..., Activation]:
    """Make the maker of `op`'s layers, whose signature is the op's statics."""

    def make(**statics: Any) -> Activation:
        return Activation(op, statics)

    make.__name__ = op.name
    make.__doc__ = op.__doc__
    kept = [op.signature.parameters[name] for name in op.statics]
    make.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    return make
