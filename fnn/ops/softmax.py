"""Softmax and its logarithm: every output depends on every input, so the Jacobian is full.

With p = softmax(x): ∂pᵢ/∂xⱼ = pᵢ (δᵢⱼ - pⱼ). The rules multiply by it without ever forming it.
"""

import jax
import jax.numpy as jnp

from ..custom_op import op
from ..example import example, normal, values

_EXAMPLES = (
    example(x=normal(4, 5)),
    example(x=normal(2, 3, 4, scale=3.0), axis=1),
    example(x=normal(3, 4), axis=0),
    example(x=normal(7)),
    example(x=normal(3, 1)),
    example(x=normal(0, 3)),
    example(x=values([1e4, -1e4, 0.0], [1e4, 1e4, 1e4], [-1e4, -1e4, 3.0]), tags={"extreme"}),
    example(x=normal(2048, 1000), tags={"bench"}),
)
_SOURCE = "Bridle 1990, Neurocomputing, doi:10.1007/978-3-642-76153-9_28"


def _shift(x, axis):
    """Move the largest entry to 0, which changes no softmax; its own gradient cancels."""
    return x - jax.lax.stop_gradient(jnp.max(x, axis, keepdims=True, initial=-jnp.inf))


@op(reference=lambda x, *, axis: jax.nn.softmax(x, axis), examples=_EXAMPLES, source=_SOURCE)
def softmax(x, *, axis: int = -1):
    """Turn scores into probabilities along one axis.

        yᵢ = exp(xᵢ) / Σⱼ exp(xⱼ),   x̄ᵢ = yᵢ (ȳᵢ - Σⱼ ȳⱼ yⱼ)

    Shapes: x (..., n, ...) -> y of the same shape, summing to 1 along `axis`. Saves y.
    """
    unnormalised = jnp.exp(_shift(x, axis))
    return unnormalised / jnp.sum(unnormalised, axis, keepdims=True)


@softmax.def_fwd
def softmax_fwd(x, *, axis):
    y = jax.nn.softmax(x, axis)
    return y, y


@softmax.def_bwd
def softmax_bwd(y, dy, *, axis):
    return y * (dy - jnp.sum(dy * y, axis, keepdims=True))


@op(reference=lambda x, *, axis: jax.nn.log_softmax(x, axis), examples=_EXAMPLES, source=_SOURCE)
def log_softmax(x, *, axis: int = -1):
    """Take the logarithm of softmax, without ever taking the logarithm of a rounded 0.

        yᵢ = xᵢ - log Σⱼ exp(xⱼ),   x̄ᵢ = ȳᵢ - exp(yᵢ) Σⱼ ȳⱼ

    Shapes: x (..., n, ...) -> y of the same shape. Saves exp(x - max) and its sum, so that no
    exponential is taken twice.
    """
    shifted = _shift(x, axis)
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis, keepdims=True))


@log_softmax.def_fwd
def log_softmax_fwd(x, *, axis):
    shifted = x - jnp.max(x, axis, keepdims=True, initial=-jnp.inf)
    unnormalised = jnp.exp(shifted)
    total = jnp.sum(unnormalised, axis, keepdims=True)
    return shifted - jnp.log(total), (unnormalised, total)


@log_softmax.def_bwd
def log_softmax_bwd(residuals, dy, *, axis):
    unnormalised, total = residuals
    return dy - unnormalised * (jnp.sum(dy, axis, keepdims=True) / total)
