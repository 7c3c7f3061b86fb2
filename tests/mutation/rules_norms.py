"""Correct rules of normalisation."""

import jax
import jax.numpy as jnp

from .rule import X, vjp_rule


def row_mean(x):
    """Return the mean along the last axis."""
    return jnp.mean(x, axis=-1, keepdims=True)


def _normalized(x, eps):
    """Return x with mean 0 and variance 1 along its last axis, and 1/σ."""
    centred = x - row_mean(x)
    r = jax.lax.rsqrt(row_mean(centred * centred) + eps)
    return centred * r, r


def _normalized_bwd(z, r, dz):
    return r * (dz - row_mean(dz) - z * row_mean(dz * z))


def _saves_x_gamma(y, x, gamma, *others):
    return x, gamma


def layer_norm(x, gamma, beta, eps):
    z, _ = _normalized(x, eps)
    return z * jnp.broadcast_to(gamma, x.shape) + jnp.broadcast_to(beta, x.shape)


@vjp_rule(layer_norm, "f32[4,6]", "f32[6]", "f32[6]", static=(1e-3,), saves=_saves_x_gamma)
def layer_norm_bwd(eps, x, gamma, g):
    z, r = _normalized(x, eps)
    dx = _normalized_bwd(z, r, g * jnp.broadcast_to(gamma, x.shape))
    lead = tuple(range(x.ndim - 1))
    return dx, jnp.sum(g * z, axis=lead), jnp.sum(g, axis=lead)


def rms_norm(x, gamma, eps):
    r = jax.lax.rsqrt(row_mean(x * x) + eps)
    return x * r * jnp.broadcast_to(gamma, x.shape)


@vjp_rule(rms_norm, "f32[4,6]", "f32[6]", static=(1e-3,))
def rms_norm_bwd(eps, x, gamma, g):
    r = jax.lax.rsqrt(row_mean(x * x) + eps)
    z = x * r
    dz = g * jnp.broadcast_to(gamma, x.shape)
    dx = r * (dz - z * row_mean(dz * z))
    return dx, jnp.sum(g * z, axis=tuple(range(x.ndim - 1)))


def batch_norm(x, gamma, beta, eps):
    """Return the normalised batch, and its mean and variance."""
    mean = jnp.mean(x, axis=0)
    var = jnp.mean((x - mean[None]) ** 2, axis=0)
    z = (x - mean[None]) * jax.lax.rsqrt(var + eps)[None]
    return gamma[None] * z + beta[None], mean, var


@vjp_rule(batch_norm, "f32[6,3]", "f32[3]", "f32[3]", static=(1e-3,), saves=_saves_x_gamma)
def batch_norm_bwd(eps, x, gamma, cotangents):
    dy, dmean, dvar = cotangents
    centred = x - jnp.mean(x, axis=0, keepdims=True)
    r = jax.lax.rsqrt(jnp.mean(centred * centred, axis=0, keepdims=True) + eps)
    z = centred * r
    dgamma, dbeta = jnp.sum(dy * z, axis=0), jnp.sum(dy, axis=0)
    dz = gamma[None] * dy
    dx = r * (dz - jnp.mean(dz, axis=0, keepdims=True) - z * jnp.mean(dz * z, axis=0)[None])
    return dx + (dmean[None] + 2 * dvar[None] * centred) / x.shape[0], dgamma, dbeta


def group_norm(x, gamma, beta, groups, eps):
    """Normalise x (n, l, c) over positions and the channels of a group."""
    z, _ = _normalized(_grouped(x, groups), eps)
    return _ungrouped(z, x.shape) * gamma[None, None] + beta[None, None]


def _grouped(x, groups):
    n, length, c = x.shape
    x = x.reshape(n, length, groups, c // groups)
    return jnp.swapaxes(x, 1, 2).reshape(n, groups, length * (c // groups))


def _ungrouped(z, shape):
    n, length, c = shape
    z = z.reshape(n, z.shape[1], length, c // z.shape[1])
    return jnp.swapaxes(z, 1, 2).reshape(shape)


@vjp_rule(group_norm, "f32[3,5,4]", "f32[4]", "f32[4]", static=(2, 1e-3), saves=_saves_x_gamma)
def group_norm_bwd(groups, eps, x, gamma, g):
    z, r = _normalized(_grouped(x, groups), eps)
    dx = _normalized_bwd(z, r, _grouped(g * gamma[None, None], groups))
    dgamma = jnp.sum(g * _ungrouped(z, x.shape), axis=(0, 1))
    return _ungrouped(dx, x.shape), dgamma, jnp.sum(g, axis=(0, 1))


def standardize_fwd(x, eps):
    z, r = _normalized(x, eps)
    return z, (z, r)


vjp_rule(
    lambda x, eps: _normalized(x, eps)[0],
    "f32[4,6]",
    static=(1e-3,),
    fwd=standardize_fwd,
    name="standardize",
)(lambda eps, z, r, g: _normalized_bwd(z, r, g))


@vjp_rule(
    lambda x, eps: x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + eps),
    X,
    static=(1e-3,),
)
def l2_normalize_bwd(eps, x, g):
    r = jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + eps)
    u = x * r
    return r * (g - u * jnp.sum(g * u, axis=-1, keepdims=True))


def weight_norm(v, scale):
    """Give each column of v (i, o) the length that `scale` (o,) says."""
    return v * (scale / jnp.sqrt(jnp.sum(v * v, axis=0)))[None]


@vjp_rule(weight_norm, X, "f32[3]")
def weight_norm_bwd(v, scale, g):
    r = jax.lax.rsqrt(jnp.sum(v * v, axis=0))[None]
    u = v * r
    dscale = jnp.sum(g * u, axis=0)
    return scale[None] * r * (g - u * dscale[None]), dscale
