"""Losses: a divergence of `fnn.ops`, averaged over a batch of labelled examples.

A `Loss` knows what its op wants for a target (labels, one-hot rows, or one column of 0 and 1)
and how an output is read as a decision. `LOSSES` is the table a config names them by.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from . import ops
from .custom_op import Op, Static
from .errors import ShapeError

_TAKES_LABELS = (ops.softmax_cross_entropy, ops.categorical_cross_entropy, ops.kl_divergence)
_LOGITS = (ops.binary_cross_entropy_with_logits,)


@dataclass(frozen=True)
class Loss:
    """The mean over a batch of an op's divergence, summed over the outputs of an example.

    Outputs are (batch, classes), or (batch, 1) for two classes: then the one number stands for
    class 1, and the decision falls at ½, or at 0 if it is a logit.
    """

    op: Op
    statics: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __call__(self, y: jax.Array, labels: jax.Array) -> jax.Array:
        """Return D, a scalar, for outputs y (batch, outputs) and integer labels (batch,)."""
        return jnp.sum(self.op(y, self.target(y, labels), **self.statics)) / y.shape[0]

    def per_example(self, y: jax.Array, labels: jax.Array) -> jax.Array:
        """Return the divergence of each example, (batch,)."""
        each = self.op(y, self.target(y, labels), **self.statics)
        return each.reshape(y.shape[0], -1).sum(-1)

    def fwd(self, y: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        """Return D, and what `bwd` needs."""
        each, saved = self.op.fwd(y, self.target(y, labels), **self.statics)
        return jnp.sum(each) / y.shape[0], (saved, Static(each.shape))

    def bwd(self, saved: Any, dD: jax.Array | float = 1.0) -> jax.Array:
        """Return ∂D/∂y: a batch's mean gives each of its examples the same share."""
        saved, shape = saved
        batch = saved.types[0].shape[0]
        d_each = jnp.full(shape.value, dD / batch, saved.types[0].dtype)
        return self.op.bwd(saved, d_each, **self.statics)[0]

    def target(self, y: jax.Array, labels: jax.Array) -> jax.Array:
        """Write labels (batch,) as the op wants them for outputs y."""
        if y.shape[-1] == 1:
            return labels[:, None].astype(y.dtype)
        if self.op in _TAKES_LABELS:
            return labels
        return jax.nn.one_hot(labels, y.shape[-1], dtype=y.dtype)

    def decide(self, y: jax.Array) -> jax.Array:
        """Read outputs as labels, (batch,) of int32."""
        if y.shape[-1] == 1:
            return (y[:, 0] > (0.0 if self.op in _LOGITS else 0.5)).astype(jnp.int32)
        return jnp.argmax(y, -1).astype(jnp.int32)

    def check(self, y_shape: tuple[int, ...], classes: int) -> None:
        """Raise ShapeError if a model that ends with `y_shape` cannot learn `classes` classes."""
        shapes = [(y_shape[0], classes)]
        if classes == 2 and self.op not in _TAKES_LABELS:
            shapes.append((y_shape[0], 1))
        if y_shape in shapes:
            return
        fix = f"end it with dense: {{features: {classes}}}"
        if len(y_shape) > 2:
            fix = f"put flatten first, and {fix}"
        raise ShapeError(
            f"the model ends with shape {y_shape}, but {self.op.name} over {classes} classes "
            f"needs {' or '.join(map(str, shapes))}; {fix}"
        )


LOSSES: dict[str, Callable[..., Loss]] = {
    op.name: op.factory(Loss, without=["axis"])
    for op in (
        ops.squared_error,
        ops.binary_cross_entropy,
        ops.binary_cross_entropy_with_logits,
        ops.categorical_cross_entropy,
        ops.kl_divergence,
        ops.softmax_cross_entropy,
    )
}
