"""Pools over all of space: the mean, the maximum, and the mean weighted by softmax between them."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ..custom_op import Static, op
from ..errors import ShapeError
from ..example import example, normal, values
from .geometry import spatial
from .norm_parts import at_least_float32


def _space(name, x):
    """The axes of space, of which none may be empty."""
    if 0 in spatial(name, x):
        raise ShapeError(f"{name}: there is nothing in an empty space, x is {tuple(x.shape)}")
    return tuple(range(1, x.ndim - 1))


_GLOBAL = (
    example(x=normal(2, 4, 3, 2)),
    example(x=normal(3, 5, 1)),
    example(x=normal(1, 2, 3, 2, 2)),
    example(x=normal(1, 1, 1)),
    example(x=normal(0, 3, 3, 2)),
    example(x=normal(2, 3, 2, scale=1e4), tags={"extreme"}),
    example(x=normal(64, 28, 28, 64), tags={"bench"}),
)


@op(
    reference=lambda x: (
        np.stack([row.reshape(-1, x.shape[-1]).mean(0) for row in x])
        if len(x)
        else np.zeros((0, x.shape[-1]))
    ),
    examples=_GLOBAL,
    source="Lin, Chen & Yan 2014, arXiv:1312.4400",
)
def global_avg_pool(x):
    """Take the mean over all of space.

        y = (1/n) Σⱼ xⱼ,   x̄ⱼ = ȳ/n

    Shapes: x (batch, *space, channels) -> y (batch, channels). Saves the shape alone.
    """
    return jnp.mean(x, _space("global_avg_pool", x))


@global_avg_pool.def_fwd
def global_avg_pool_fwd(x):
    return jnp.mean(at_least_float32(x), _space("global_avg_pool", x)).astype(x.dtype), Static(
        x.shape
    )


@global_avg_pool.def_bwd
def global_avg_pool_bwd(shape, dy):
    space = shape.value[1:-1]
    each = jnp.expand_dims(dy / math.prod(space), tuple(range(1, len(space) + 1)))
    return jnp.broadcast_to(each, (dy.shape[0], *space, dy.shape[-1]))


@op(
    reference=lambda x: x.max(tuple(range(1, x.ndim - 1))),
    examples=(*_GLOBAL, example(x=values(*np.ones((2, 3, 2, 2))), tags={"kink"})),
    source="Oquab, Bottou, Laptev & Sivic 2015, CVPR, doi:10.1109/CVPR.2015.7298668",
)
def global_max_pool(x):
    """Keep the largest number of all of space.

        y = maxⱼ xⱼ,   x̄ⱼ = ȳ where j is the first that is largest, 0 elsewhere

    The first is so in row-major order; NaN is larger than every number.
    Shapes: x (batch, *space, channels) -> y (batch, channels). Saves where y was, and not x.
    """
    flat = x.reshape(x.shape[0], math.prod(_sizes("global_max_pool", x)), x.shape[-1])
    return jnp.take_along_axis(flat, jnp.argmax(flat, 1, keepdims=True), 1)[:, 0]


@global_max_pool.def_fwd
def global_max_pool_fwd(x):
    axes, space = _space("global_max_pool", x), x.shape[1:-1]
    y = jnp.max(x, axes, keepdims=True)
    # Two passes over x: a reduction that carries the index along is slower than both.
    index = jnp.where((x == y) | (x != x), _indices(space), math.prod(space))
    return jnp.squeeze(y, axes), (jnp.min(index, axes, keepdims=True), Static(space))


@global_max_pool.def_bwd
def global_max_pool_bwd(residuals, dy):
    index, space = residuals
    dy = dy.reshape(index.shape)
    return jnp.where(index == _indices(space.value), dy, 0)


def _sizes(name, x):
    return tuple(x.shape[axis] for axis in _space(name, x))


def _indices(space):
    """The index of each number in the flattened space, (1, *space, 1)."""
    shape = (1, *space, 1)
    each = [jax.lax.broadcasted_iota(jnp.int32, shape, axis + 1) for axis in range(len(space))]
    return sum(i * math.prod(space[axis + 1 :]) for axis, i in enumerate(each))


def _softly(x, axes):
    """Return the largest of x, eˣ⁻ᵐ and its sum: what a softmax is made of."""
    largest = jnp.max(x, axes, keepdims=True)
    exponentials = jnp.exp(x - largest)
    return largest, exponentials, jnp.sum(exponentials, axes, keepdims=True)


@op(
    reference=lambda x: jnp.einsum(
        "bsc,bsc->bc",
        jax.nn.softmax(x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]), 1),
        x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]),
    ),
    examples=(*_GLOBAL, example(x=values(*np.ones((2, 3, 2, 2))))),
    source="the Boltzmann operator: Asadi & Littman 2017, arXiv:1612.05628",
)
def global_softmax_pool(x):
    """Take the mean over all of space, weighted by softmax: a maximum without kinks.

        pⱼ = exp(xⱼ) / Σᵢ exp(xᵢ),   y = Σⱼ pⱼ xⱼ,   x̄ⱼ = ȳ pⱼ (1 + xⱼ - y)

    Every place gets a gradient, where global_max_pool gives all of it to one.
    Shapes: x (batch, *space, channels) -> y (batch, channels). Saves x, and of each channel the
    largest number, Σ exp and y.
    """
    axes = _space("global_softmax_pool", x)
    return jnp.sum(jax.nn.softmax(x, axes) * x, axes)


@global_softmax_pool.def_fwd
def global_softmax_pool_fwd(x):
    axes, wide_x = _space("global_softmax_pool", x), at_least_float32(x)
    largest, exponentials, total = _softly(wide_x, axes)
    # Around the largest: sums of large numbers would lose what tells them apart.
    y = largest + jnp.sum(exponentials * (wide_x - largest), axes, keepdims=True) / total
    return jnp.squeeze(y, axes).astype(x.dtype), (x, largest, total, y)


@global_softmax_pool.def_bwd
def global_softmax_pool_bwd(residuals, dy):
    x, largest, total, y = residuals
    p = jnp.exp(at_least_float32(x) - largest) / total
    return at_least_float32(dy).reshape(y.shape) * p * (1 + (at_least_float32(x) - y))
