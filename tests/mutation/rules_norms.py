"""Correct rules of normalisation."""

import jax
import jax.numpy as jnp

from .rule import Rule
from .rules_shared import wide


def _mean(x):
    return jnp.mean(x, axis=-1, keepdims=True)


def _normalized(x, eps):
    """Return x with mean 0 and variance 1 along its last axis, and 1/σ."""
    centred = x - _mean(x)
    r = jax.lax.rsqrt(_mean(centred * centred) + eps)
    return centred * r, r


def _normalized_bwd(z, r, dz):
    return r * (dz - _mean(dz) - z * _mean(dz * z))


def layer_norm(x, gamma, beta, eps):
    z, _ = _normalized(x, eps)
    return z * jnp.broadcast_to(gamma, x.shape) + jnp.broadcast_to(beta, x.shape)


def layer_norm_fwd(x, gamma, beta, eps):
    return layer_norm(x, gamma, beta, eps), (x, gamma)


def layer_norm_bwd(eps, residuals, g):
    x, gamma = map(wide, residuals)
    g_ = wide(g)
    z, r = _normalized(x, eps)
    dx = _normalized_bwd(z, r, g_ * jnp.broadcast_to(gamma, x.shape))
    lead = tuple(range(x.ndim - 1))
    dgamma, dbeta = jnp.sum(g_ * z, axis=lead), jnp.sum(g_, axis=lead)
    return dx.astype(g.dtype), dgamma.astype(g.dtype), dbeta.astype(g.dtype)


def rms_norm(x, gamma, eps):
    r = jax.lax.rsqrt(_mean(x * x) + eps)
    return x * r * jnp.broadcast_to(gamma, x.shape)


def rms_norm_fwd(x, gamma, eps):
    return rms_norm(x, gamma, eps), (x, gamma)


def rms_norm_bwd(eps, residuals, g):
    x, gamma = map(wide, residuals)
    r = jax.lax.rsqrt(_mean(x * x) + eps)
    z = x * r
    dz = wide(g) * jnp.broadcast_to(gamma, x.shape)
    dx = r * (dz - z * _mean(dz * z))
    dgamma = jnp.sum(wide(g) * z, axis=tuple(range(x.ndim - 1)))
    return dx.astype(g.dtype), dgamma.astype(g.dtype)


def batch_norm(x, gamma, beta, eps):
    """Return the normalised batch, and its mean and variance."""
    mean = jnp.mean(x, axis=0)
    var = jnp.mean((x - mean[None]) ** 2, axis=0)
    z = (x - mean[None]) * jax.lax.rsqrt(var + eps)[None]
    return gamma[None] * z + beta[None], mean, var


def batch_norm_fwd(x, gamma, beta, eps):
    return batch_norm(x, gamma, beta, eps), (x, gamma)


def batch_norm_bwd(eps, residuals, cotangents):
    x, gamma = map(wide, residuals)
    dtype = cotangents[0].dtype
    dy, dmean, dvar = map(wide, cotangents)
    centred = x - jnp.mean(x, axis=0, keepdims=True)
    r = jax.lax.rsqrt(jnp.mean(centred * centred, axis=0, keepdims=True) + eps)
    z = centred * r
    dgamma, dbeta = jnp.sum(dy * z, axis=0), jnp.sum(dy, axis=0)
    dz = gamma[None] * dy
    dx = r * (dz - jnp.mean(dz, axis=0, keepdims=True) - z * jnp.mean(dz * z, axis=0)[None])
    dx = dx + (dmean[None] + 2 * dvar[None] * centred) / x.shape[0]
    return dx.astype(dtype), dgamma.astype(dtype), dbeta.astype(dtype)


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


def group_norm_fwd(x, gamma, beta, groups, eps):
    return group_norm(x, gamma, beta, groups, eps), (x, gamma)


def group_norm_bwd(groups, eps, residuals, g):
    x, gamma = map(wide, residuals)
    g_ = wide(g)
    z, r = _normalized(_grouped(x, groups), eps)
    dx = _normalized_bwd(z, r, _grouped(g_ * gamma[None, None], groups))
    dgamma = jnp.sum(g_ * _ungrouped(z, x.shape), axis=(0, 1))
    dbeta = jnp.sum(g_, axis=(0, 1))
    dx = _ungrouped(dx, x.shape)
    return dx.astype(g.dtype), dgamma.astype(g.dtype), dbeta.astype(g.dtype)


def standardize(x, eps):
    return _normalized(x, eps)[0]


def standardize_fwd(x, eps):
    z, r = _normalized(x, eps)
    return z, (z, r)


def standardize_bwd(eps, residuals, g):
    z, r = map(wide, residuals)
    return (_normalized_bwd(z, r, wide(g)).astype(g.dtype),)


def l2_normalize(x, eps):
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + eps)


def l2_normalize_fwd(x, eps):
    return l2_normalize(x, eps), x


def l2_normalize_bwd(eps, x, g):
    x_, g_ = wide(x), wide(g)
    r = jax.lax.rsqrt(jnp.sum(x_ * x_, axis=-1, keepdims=True) + eps)
    u = x_ * r
    return ((r * (g_ - u * jnp.sum(g_ * u, axis=-1, keepdims=True))).astype(x.dtype),)


def weight_norm(v, scale):
    """Give each column of v (i, o) the length that `scale` (o,) says."""
    return v * (scale / jnp.sqrt(jnp.sum(v * v, axis=0)))[None]


def weight_norm_fwd(v, scale):
    return weight_norm(v, scale), (v, scale)


def weight_norm_bwd(residuals, g):
    v, scale = map(wide, residuals)
    g_ = wide(g)
    r = jax.lax.rsqrt(jnp.sum(v * v, axis=0))[None]
    u = v * r
    dscale = jnp.sum(g_ * u, axis=0)
    dv = scale[None] * r * (g_ - u * dscale[None])
    return dv.astype(g.dtype), dscale.astype(g.dtype)


RULES = [
    Rule(
        "layer_norm",
        layer_norm,
        ("f32[4,6]", "f32[6]", "f32[6]", 1e-3),
        layer_norm_fwd,
        layer_norm_bwd,
        nondiff_argnums=(3,),
    ),
    Rule(
        "rms_norm",
        rms_norm,
        ("f32[4,6]", "f32[6]", 1e-3),
        rms_norm_fwd,
        rms_norm_bwd,
        nondiff_argnums=(2,),
    ),
    Rule(
        "batch_norm",
        batch_norm,
        ("f32[6,3]", "f32[3]", "f32[3]", 1e-3),
        batch_norm_fwd,
        batch_norm_bwd,
        nondiff_argnums=(3,),
    ),
    Rule(
        "group_norm",
        group_norm,
        ("f32[3,5,4]", "f32[4]", "f32[4]", 2, 1e-3),
        group_norm_fwd,
        group_norm_bwd,
        nondiff_argnums=(3, 4),
    ),
    Rule(
        "standardize",
        standardize,
        ("f32[4,6]", 1e-3),
        standardize_fwd,
        standardize_bwd,
        nondiff_argnums=(1,),
    ),
    Rule(
        "l2_normalize",
        l2_normalize,
        ("f32[4,3]", 1e-3),
        l2_normalize_fwd,
        l2_normalize_bwd,
        nondiff_argnums=(1,),
    ),
    Rule("weight_norm", weight_norm, ("f32[4,3]", "f32[3]"), weight_norm_fwd, weight_norm_bwd),
]
