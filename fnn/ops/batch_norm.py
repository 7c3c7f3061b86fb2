"""Batch normalisation: each channel gets mean 0 and variance 1 over the batch and all places.

What one example becomes depends on the others, in training. Afterwards the layer's running
statistics take the place of the batch's, and the op is an affine map of each channel.
"""

import jax
import jax.numpy as jnp

from ..custom_op import op
from ..example import example, normal, uniform, values
from .norm_parts import affine, at_least_float32, check, count, leading, per_channel, scaled

_SHAPES = ((6, 3), (2, 3, 2, 5), (2, 1, 2, 2, 3), (1, 3, 2), (5, 1), (0, 3), (2, 0, 3))
"""No spatial axes and up to three, sizes 0 and 1."""


_EXTREME = values([1e4, 1e-6, 100.0], [1e4, -1e-6, 100.5], [-1e4, 0.0, 101.0], [0.0, 0.0, 101.5])


def _everywhere(mean, axis_name):
    """The mean over all devices along `axis_name` of the mean on each."""
    return mean if axis_name is None else jax.lax.pmean(mean, axis_name)


def _mean(x, axis_name):
    """The mean of each channel; that of an empty batch is 0."""
    return _everywhere(jnp.sum(x, leading(x)) / count(x, leading(x)), axis_name)


def _normalise(x, eps, axis_name):
    """Return x̂, and each channel's mean, variance and r = 1/√(variance + ε)."""
    mean = _mean(x, axis_name)
    centred = x - per_channel(mean, x)
    var = _mean(centred * centred, axis_name)
    r = jax.lax.rsqrt(var + eps)
    return centred * per_channel(r, x), mean, var, r


def _pull_back(centred, unit, r, scale, dz, axis_name):
    """From the cotangent of z = γ x̂ + β, return those of x, γ and β, where x̂ = `centred` `unit`.

    Per-channel factors are combined first, then applied per position.
    """
    axes = leading(dz)
    dscale, dbias = jnp.sum(dz * centred, axes) * unit, jnp.sum(dz, axes)
    along_one, along_x_hat = (
        _everywhere(total / count(dz, axes), axis_name) for total in (dbias, dscale)
    )
    # z̄, its projection on 1, its projection on x̂
    dx_hat = dz - per_channel(along_one, dz) - centred * per_channel(unit * along_x_hat, dz)
    return dx_hat * per_channel(scaled(r, scale), dz), dscale, dbias


def _reference(x, scale, bias, *, eps, axis_name):
    del axis_name
    mean, var = jnp.mean(x, leading(x)), jnp.var(x, leading(x))
    return affine(jax.nn.standardize(x, leading(x), epsilon=eps), scale, bias), mean, var


@op(
    reference=_reference,
    examples=(
        *(example(x=normal(*s), scale=normal(s[-1]), bias=normal(s[-1])) for s in _SHAPES),
        example(x=normal(1, 3), scale=normal(3), bias=normal(3)),
        example(x=normal(4, 3, 2)),
        example(x=normal(4, 3, 2), scale=normal(2)),
        example(x=normal(4, 3, 2), bias=normal(2), eps=1e-3),
        example(x=_EXTREME, scale=normal(3), bias=normal(3), tags={"extreme"}),
        example(x=normal(32, 32, 32, 64), scale=normal(64), bias=normal(64), tags={"bench"}),
        example(x=normal(32, 56, 56, 64), scale=normal(64), bias=normal(64), tags={"bench"}),
    ),
    source="Ioffe & Szegedy 2015, arXiv:1502.03167",
)
def batch_norm(x, scale=None, bias=None, *, eps: float = 1e-5, axis_name: str | None = None):
    """Give every channel mean 0 and variance 1 over the batch, then scale and shift it.

        μ = E[x],   σ² = E[(x - μ)²],   r = 1/√(σ² + ε),   x̂ = (x - μ) r,   y = γ x̂ + β

    Shapes: x (batch, ..., channels), scale γ and bias β (channels,) or None -> y as x, and mean μ
    and var σ² (channels,), in at least float32. Means are over all axes but the last. Backward,
    Σ over the same axes:

        x̄ = γ r (ȳ - E[ȳ] - x̂ E[ȳ x̂]),   γ̄ = Σ ȳ x̂,   β̄ = Σ ȳ

    μ and σ² are for the layer's running statistics. As outputs they are constants, and pass no
    gradient on. σ² divides by the count N, not N - 1: a running variance takes σ² N/(N - 1), the
    estimate without bias (with `axis_name`, N counts all devices). Both are 0 for an empty batch.

    `axis_name` is the axis of a `shard_map` or `vmap` over whose members the batch is split, in
    equal parts: the statistics are then those of the whole batch. Differentiate inside the vmap:
    outside it, JAX does not let a backward rule see the axis. A batch that is split by a sharding
    alone, under jit, is one batch anyway. Saves x, γ, and μ and r of each channel.
    """
    wide_x = at_least_float32(x)
    mean = _mean(wide_x, axis_name)
    centred = wide_x - per_channel(mean, wide_x)
    var = _mean(centred**2, axis_name)
    y = affine(centred / jnp.sqrt(per_channel(var, centred) + eps), scale, bias)
    return y.astype(x.dtype), *jax.lax.stop_gradient((mean, var))


@batch_norm.def_fwd
def batch_norm_fwd(x, scale, bias, *, eps, axis_name):
    check("batch_norm", x, eps, scale=scale, bias=bias)
    z, mean, var, r = _normalise(at_least_float32(x), eps, axis_name)
    outputs = affine(z, scale, bias).astype(x.dtype), *jax.lax.stop_gradient((mean, var))
    return outputs, (x, scale, mean, r)


@batch_norm.def_bwd
def batch_norm_bwd(residuals, cotangents, *, eps, axis_name):
    del eps
    x, scale, mean, r = residuals
    centred = at_least_float32(x) - per_channel(mean, at_least_float32(x))
    return _pull_back(centred, r, r, scale, at_least_float32(cotangents[0]), axis_name)


def _inference_examples():
    def statistics(n):
        return {"mean": normal(n), "var": uniform(n, low=0.1, high=2.0)}

    def everything(n):
        return {**statistics(n), "scale": normal(n), "bias": normal(n)}

    mean, var = values(0.0, 0.0, 100.0), values(1e4, 0.0, 1e-4)
    return (
        example(x=normal(6, 3), **everything(3)),
        example(x=normal(2, 3, 2, 5), **everything(5), eps=1e-3),
        example(x=normal(2, 2, 1, 2, 3), **statistics(3)),
        example(x=normal(4, 2), **statistics(2), scale=normal(2)),
        example(x=normal(4, 2), **statistics(2), bias=normal(2)),
        example(x=normal(1, 1), **everything(1)),
        example(x=normal(0, 3), **everything(3)),
        example(x=_EXTREME, **(everything(3) | {"mean": mean, "var": var}), tags={"extreme"}),
        example(x=normal(32, 32, 32, 64), **everything(64), tags={"bench"}),
    )


@op(
    reference=lambda x, mean, var, scale, bias, *, eps: affine(
        jax.nn.standardize(x, mean=mean, variance=var, epsilon=eps), scale, bias
    ),
    examples=_inference_examples(),
    source="Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2",
)
def batch_norm_inference(x, mean, var, scale=None, bias=None, *, eps: float = 1e-5):
    """Normalise every channel by fixed statistics, such as the running ones after training.

        r = 1/√(σ² + ε),   x̂ = (x - μ) r,   y = γ x̂ + β

    Shapes: x (batch, ..., channels), mean μ and var σ² (channels,), scale γ and bias β (channels,)
    or None -> y as x, computed in at least float32. Backward, Σ over all axes but the last:

        x̄ = γ r ȳ,   μ̄ = -γ r Σ ȳ,   σ̄² = -½ γ r² Σ ȳ x̂,   γ̄ = Σ ȳ x̂,   β̄ = Σ ȳ

    Saves x, μ, γ, and r of each channel.
    """
    wide_x = at_least_float32(x)
    centred = wide_x - per_channel(mean, wide_x)
    y = affine(centred / jnp.sqrt(per_channel(var, centred) + eps), scale, bias)
    return y.astype(x.dtype)


@batch_norm_inference.def_fwd
def batch_norm_inference_fwd(x, mean, var, scale, bias, *, eps):
    check("batch_norm_inference", x, eps, mean=mean, var=var, scale=scale, bias=bias)
    wide_x = at_least_float32(x)
    r = jax.lax.rsqrt(var.astype(wide_x.dtype) + eps)
    z = (wide_x - per_channel(mean, wide_x)) * per_channel(r, wide_x)
    return affine(z, scale, bias).astype(x.dtype), (x, mean, scale, r)


@batch_norm_inference.def_bwd
def batch_norm_inference_bwd(residuals, dy, *, eps):
    del eps
    x, mean, scale, r = residuals
    x, dy = at_least_float32(x), at_least_float32(dy)
    z = (x - per_channel(mean, x)) * per_channel(r, x)
    dscale, dbias = jnp.sum(dy * z, leading(x)), jnp.sum(dy, leading(x))
    slope = scaled(r, scale)  # γ r
    dx, dmean, dvar = dy * per_channel(slope, dy), -slope * dbias, -slope * r * dscale / 2
    return dx, dmean, dvar, dscale, dbias


def _away_from_zero(scale, least):
    """The scale, with ±`least` in place of smaller values; its derivative is 1 everywhere."""
    away = jnp.where(jnp.abs(scale) >= least, scale, jnp.where(scale < 0, -least, least))
    return scale + jax.lax.stop_gradient(away - scale)


def _leaky_reference(x, scale, bias, *, eps, negative_slope, least_scale, axis_name):
    away = jnp.copysign(jnp.maximum(jnp.abs(scale), least_scale), scale + 0.0)
    y, mean, var = _reference(x, away, bias, eps=eps, axis_name=axis_name)
    return jax.nn.leaky_relu(y, negative_slope), mean, var


def _leaky(x, n, **statics):
    """An example of positive scales, biases up to 1: x̂ has the rounding of z times |z/γ'|."""
    return example(x=x, scale=uniform(n, low=0.5, high=2.0), bias=uniform(n), **statics)


@op(
    reference=_leaky_reference,
    examples=(
        *(_leaky(normal(*shape), shape[-1]) for shape in _SHAPES),
        _leaky(_EXTREME, 3, tags={"extreme"}),
        *(_leaky(normal(*s), s[-1], negative_slope=0.2, least_scale=0.25) for s in _SHAPES[1:3]),
        example(
            x=normal(6, 5),
            scale=values(0.0, 1e-4, -1e-4, -1.0, 1.0),
            bias=normal(5),
            tags={"extreme"},
        ),
        example(x=normal(32, 32, 32, 64), scale=normal(64), bias=normal(64), tags={"bench"}),
    ),
    source="Rota Bulò, Porzi & Kontschieder 2018, arXiv:1712.02616",
)
def batch_norm_leaky_relu(
    x,
    scale,
    bias,
    *,
    eps: float = 1e-5,
    negative_slope: float = 0.01,
    least_scale: float = 1e-2,
    axis_name: str | None = None,
):
    """Normalise the batch and pass it through leaky relu, keeping the output alone.

        x̂, μ, σ² as in batch_norm,   z = γ' x̂ + β,   y = z where z > 0, a z elsewhere

    Shapes: x (batch, ..., channels), scale γ and bias β (channels,) -> y as x, and mean μ and var
    σ² (channels,), as batch_norm gives them. Backward, all from y, as leaky relu and the affine
    map can be undone; Σ over all axes but the last:

        z = y where y > 0, y/a elsewhere,   x̂ = (z - β)/γ',   z̄ = ȳ where y > 0, a ȳ elsewhere
        x̄ = γ' r (z̄ - E[z̄] - x̂ E[z̄ x̂]),   γ̄ = Σ z̄ x̂,   β̄ = Σ z̄

    A scale of 0 cannot be undone: y then says nothing about x̂, and γ would stay at 0. The paper
    scales by |γ| + ε instead. Here γ' is γ itself, unless that is nearer to 0 than `least_scale`:
    then γ' is ±`least_scale`, with the sign of γ (0 counts as positive), and γ gets the gradient
    of γ'. x̂ is recovered to some |z/γ'| roundings of y: a bias that is large beside its scale
    costs digits, of γ̄ above all.

    a = `negative_slope` must be positive. At z = 0 the derivative is the negative side's.
    `axis_name` as in batch_norm. Saves y, and γ', β and r of each channel, so that x can be freed.
    In a dtype whose roundings are no finer than `least_scale`/16 (bfloat16, float16 unless that is
    0.13 or 0.016), y cannot tell x̂: x and μ are saved in its place.
    """
    wide_x = at_least_float32(x)
    away = _away_from_zero(scale, least_scale)
    z, mean, var = batch_norm.definition(wide_x, away, bias, eps=eps, axis_name=axis_name)
    return jnp.where(z > 0, z, negative_slope * z).astype(x.dtype), mean, var


def _tells_x_hat(dtype, least_scale):
    """Whether y has the digits from which x̂ can be recovered at the smallest scale."""
    return jnp.finfo(dtype).eps <= least_scale / 16


@batch_norm_leaky_relu.def_fwd
def batch_norm_leaky_relu_fwd(x, scale, bias, *, eps, negative_slope, least_scale, axis_name):
    check("batch_norm_leaky_relu", x, eps, scale=scale, bias=bias)
    for name, value in (("negative_slope", negative_slope), ("least_scale", least_scale)):
        if not value > 0:
            raise ValueError(f"batch_norm_leaky_relu: {name} must be positive, got {value!r}")
    scale = _away_from_zero(scale, least_scale)
    x_hat, mean, var, r = _normalise(at_least_float32(x), eps, axis_name)
    z = affine(x_hat, scale, bias)
    y = jnp.where(z > 0, z, negative_slope * z).astype(x.dtype)
    source = (y, None) if _tells_x_hat(x.dtype, least_scale) else (x, mean)
    return (y, *jax.lax.stop_gradient((mean, var))), (*source, scale, bias, r)


@batch_norm_leaky_relu.def_bwd
def batch_norm_leaky_relu_bwd(
    residuals, cotangents, *, eps, negative_slope, least_scale, axis_name
):
    del eps, least_scale
    x_or_y, mean, scale, bias, r = residuals
    x_or_y, dy = at_least_float32(x_or_y), at_least_float32(cotangents[0])
    if mean is None:
        z = jnp.where(x_or_y > 0, x_or_y, x_or_y / negative_slope)
        centred, unit = (z - per_channel(bias, z)) / per_channel(scale, z), jnp.ones_like(r)
    else:
        centred, unit = x_or_y - per_channel(mean, x_or_y), r
        z = affine(centred * per_channel(r, centred), scale, bias)
    dz = jnp.where(z > 0, dy, negative_slope * dy)
    return _pull_back(centred, unit, r, scale, dz, axis_name)
