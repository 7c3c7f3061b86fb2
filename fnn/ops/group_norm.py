"""Group and instance normalisation: statistics of each example alone, over its places.

Sums over places are taken for each channel first, (batch, channels) numbers, and those of a
group's channels are then put together. So x is read along its rows, and never cut into groups.
"""

import math

import jax
import jax.numpy as jnp

from ..custom_op import op
from ..errors import ShapeError
from ..example import example, normal, values
from .norm_parts import affine, at_least_float32, check, count, scaled

_EXTREME = values([[[1e4, 1e-6], [1e4, -1e-6], [-1e4, 0.0]], [[100.0, 0.0]] * 2 + [[101.0, 0.0]]])


def _places(x):
    """The axes between batch and channels."""
    return tuple(range(1, x.ndim - 1))


def _at_places(v, like):
    """One number for each example's channel, (batch, channels), with as many axes as `like`."""
    return jnp.expand_dims(v, _places(like))


def _group_mean(totals, like, groups):
    """From sums over the places, (batch, channels), each channel's mean over its group."""
    channels = totals.shape[-1]
    size = channels // max(groups, 1)
    total = jnp.sum(totals.reshape(totals.shape[0], groups, size), -1)
    return jnp.repeat(total / (count(like, _places(like)) * max(size, 1)), size, axis=1)


def _check(name, x, scale, bias, eps, groups):
    check(name, x, eps, scale=scale, bias=bias)
    if x.ndim < 2:
        raise ShapeError(f"{name}: expects (batch, ..., channels), got {x.shape}")
    if groups < 1 or x.shape[-1] % groups:
        raise ShapeError(
            f"{name}: {x.shape[-1]} channels do not make {groups} groups of one size; "
            "choose `groups` among the divisors of the channels"
        )


def _forward(x, scale, bias, groups, eps):
    wide_x = at_least_float32(x)
    mean = _group_mean(jnp.sum(wide_x, _places(x)), x, groups)
    centred = wide_x - _at_places(mean, x)
    var = _group_mean(jnp.sum(centred * centred, _places(x)), x, groups)
    r = jax.lax.rsqrt(var + eps)
    y = affine(centred * _at_places(r, x), scale, bias)
    return y.astype(x.dtype), (x, scale, mean, r)


def _backward(residuals, dy, groups):
    x, scale, mean, r = residuals
    dy, z = at_least_float32(dy), (at_least_float32(x) - _at_places(mean, x)) * _at_places(r, x)
    dscale, dbias = jnp.sum(dy * z, _places(x)), jnp.sum(dy, _places(x))
    along_one, along_z = (
        _at_places(_group_mean(scaled(totals, scale), x, groups), x) for totals in (dbias, dscale)
    )
    # γȳ, its projection on 1, its projection on x̂
    dx = (scaled(dy, scale) - along_one - z * along_z) * _at_places(r, x)
    return dx, jnp.sum(dscale, 0), jnp.sum(dbias, 0)


def _examples(**statics):
    """One to three spatial axes, with and without parameters, sizes 0 and 1, tails."""
    return (
        example(x=normal(3, 5, 4), scale=normal(4), bias=normal(4), **statics),
        example(x=normal(2, 3, 2, 6), scale=normal(6), bias=normal(6), **statics),
        example(x=normal(2, 1, 3, 2, 4), **statics),
        example(x=normal(2, 3, 4), scale=normal(4), **statics),
        example(x=normal(2, 3, 4), bias=normal(4), eps=1e-3, **statics),
        example(x=normal(1, 1, 2), scale=normal(2), bias=normal(2), **statics),
        example(x=normal(0, 3, 4), scale=normal(4), bias=normal(4), **statics),
        example(x=normal(2, 0, 4), scale=normal(4), bias=normal(4), **statics),
        example(x=_EXTREME, scale=normal(2), bias=normal(2), tags={"extreme"}, **statics),
    )


def _reference(x, scale, bias, *, groups, eps):
    if 0 in x.shape:
        return x
    parts = jnp.split(x, groups, axis=-1)
    every = tuple(range(1, x.ndim))
    z = [jax.nn.standardize(part, every, epsilon=eps) for part in parts]
    return affine(jnp.concatenate(z, -1), scale, bias)


@op(
    reference=_reference,
    examples=(
        *_examples(groups=2),
        example(x=normal(3, 6), scale=normal(6), bias=normal(6), groups=3),
        example(x=normal(2, 3, 3), scale=normal(3), bias=normal(3), groups=1),
        example(x=normal(2, 3, 3), scale=normal(3), bias=normal(3), groups=3),
        example(
            x=normal(32, 32, 32, 64), scale=normal(64), bias=normal(64), groups=8, tags={"bench"}
        ),
    ),
    source="Wu & He 2018, arXiv:1803.08494",
)
def group_norm(x, scale=None, bias=None, *, groups: int, eps: float = 1e-5):
    """Give every group of an example's channels mean 0 and variance 1, then scale and shift.

        μ = E[x],   r = 1/√(E[(x - μ)²] + ε),   x̂ = (x - μ) r,   y = γ x̂ + β

    Shapes: x (batch, ..., channels), scale γ and bias β (channels,) or None -> y as x. Means are
    over the places and channels of one example's group, in at least float32; a group is
    channels/`groups` neighbours. Backward, Σ over the batch and the places:

        x̄ = r (γȳ - E[γȳ] - x̂ E[γȳ x̂]),   γ̄ = Σ ȳ x̂,   β̄ = Σ ȳ

    Saves x, γ, and μ and r, (batch, channels) each. Raises ShapeError unless `groups` divides the
    channels.
    """
    _check("group_norm", x, scale, bias, eps, groups)
    rows = at_least_float32(x).reshape(
        x.shape[0], math.prod(x.shape[1:-1]), groups, x.shape[-1] // groups
    )
    mean = jnp.mean(rows, (1, 3), keepdims=True)
    var = jnp.mean((rows - mean) ** 2, (1, 3), keepdims=True)
    z = (rows - mean) / jnp.sqrt(var + eps)
    return affine(z.reshape(x.shape), scale, bias).astype(x.dtype)


@group_norm.def_fwd
def group_norm_fwd(x, scale, bias, *, groups, eps):
    _check("group_norm", x, scale, bias, eps, groups)
    return _forward(x, scale, bias, groups, eps)


@group_norm.def_bwd
def group_norm_bwd(residuals, dy, *, groups, eps):
    del eps
    return _backward(residuals, dy, groups)


@op(
    reference=lambda x, scale, bias, *, eps: _reference(
        x, scale, bias, groups=x.shape[-1], eps=eps
    ),
    examples=(
        *_examples(),
        example(x=normal(32, 32, 32, 64), scale=normal(64), bias=normal(64), tags={"bench"}),
    ),
    source="Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022",
)
def instance_norm(x, scale=None, bias=None, *, eps: float = 1e-5):
    """Give every channel of every example mean 0 and variance 1, then scale and shift.

        μ = E[x],   r = 1/√(E[(x - μ)²] + ε),   x̂ = (x - μ) r,   y = γ x̂ + β

    Shapes: x (batch, ..., channels), scale γ and bias β (channels,) or None -> y as x. Means are
    over the places of one example's channel, in at least float32. Backward as group_norm with as
    many groups as channels. Saves x, γ, and μ and r, (batch, channels) each.
    """
    wide_x = at_least_float32(x)
    mean = jnp.mean(wide_x, _places(x), keepdims=True)
    var = jnp.mean((wide_x - mean) ** 2, _places(x), keepdims=True)
    return affine((wide_x - mean) / jnp.sqrt(var + eps), scale, bias).astype(x.dtype)


@instance_norm.def_fwd
def instance_norm_fwd(x, scale, bias, *, eps):
    check("instance_norm", x, eps, scale=scale, bias=bias)
    if x.ndim < 3:
        raise ShapeError(
            f"instance_norm: expects (batch, ..., channels) with places between, got {x.shape}; "
            "for vectors there is layer_norm"
        )
    return _forward(x, scale, bias, x.shape[-1], eps)


@instance_norm.def_bwd
def instance_norm_bwd(residuals, dy, *, eps):
    del eps
    return _backward(residuals, dy, residuals[0].shape[-1])
