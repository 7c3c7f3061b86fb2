"""What the normalisations share: widening, means, scale and bias, and the checks of both."""

import math

import jax
import jax.numpy as jnp

from ..errors import ShapeError


def at_least_float32(x):
    """Return x in its own dtype, float32 if that is narrower: what statistics are taken in."""
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def leading(x):
    """The axes of all but the channels."""
    return tuple(range(x.ndim - 1))


def per_channel(v, like):
    """One number per channel, in the dtype of `like` and with as many axes."""
    return jnp.expand_dims(v.astype(like.dtype), leading(like))


def add_bias(y, b):
    """y + b, one number per channel, where there is a b."""
    return y if b is None else y + jnp.expand_dims(b, leading(y))


def scaled(z, scale):
    """Each channel of z times its scale, if there is one."""
    return z if scale is None else z * per_channel(scale, z)


def affine(z, scale, bias):
    """Each channel scaled and shifted: γ z + β, where there is a γ, a β."""
    z = scaled(z, scale)
    return z if bias is None else z + per_channel(bias, z)


def count(x, axes):
    """How many numbers a mean over these axes is taken of; 1 for none, so that it is 0."""
    return max(math.prod(x.shape[axis] for axis in axes), 1)


def row_mean(x, weight=None):
    """The mean over the last axis, kept as 1; with weights, that of x times the weights.

    Written as a product of a matrix and a vector, whose operand XLA on a CPU computes once. Written
    as a sum, XLA would recompute x for every consumer.
    """
    n = x.shape[-1]
    weight = jnp.ones(n, x.dtype) if weight is None else weight.astype(x.dtype)
    return jnp.matmul(x, weight, precision=jax.lax.Precision.HIGHEST)[..., None] / max(n, 1)


def check(name, x, eps, **parameters):
    """Raise ShapeError or ValueError where x, `eps` or a parameter does not fit."""
    if x.ndim == 0:
        raise ShapeError(f"{name}: x is one number, of shape (); pass x of shape (..., channels)")
    if not eps >= 0:
        raise ValueError(f"{name}: eps must not be negative, got {eps!r}")
    channels = x.shape[-1:]
    for parameter, value in parameters.items():
        if value is not None and value.shape != channels:
            raise ShapeError(
                f"{name}: x {x.shape} has {channels[0]} channels, but {parameter} has the shape "
                f"{value.shape}; give {parameter} one number per channel, {channels}"
            )
