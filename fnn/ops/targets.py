"""Targets: integer labels, or distributions over the classes."""

import jax
import jax.numpy as jnp


def is_labels(target):
    """Whether the target holds labels, which have no gradient, rather than probabilities."""
    return not jnp.issubdtype(target.dtype, jnp.inexact)


def distribution(target, like, axis):
    """Labels as one-hot distributions of `like`'s shape and dtype; distributions as they are."""
    if not is_labels(target):
        return target
    classes = jax.lax.broadcasted_iota(target.dtype, like.shape, axis % like.ndim)
    return (classes == jnp.expand_dims(target, axis)).astype(like.dtype)
