"""Targets: integer labels, or distributions over the classes."""

import jax
import jax.numpy as jnp

from ..cotangent import on_explicit_mesh


def is_labels(target):
    """Whether the target holds labels, which have no gradient, rather than probabilities."""
    return not jnp.issubdtype(target.dtype, jnp.inexact)


def distribution(target, like, axis):
    """Labels as one-hot distributions of `like`'s shape and dtype; distributions as they are."""
    if not is_labels(target):
        return target
    classes = jax.lax.broadcasted_iota(target.dtype, like.shape, axis % like.ndim)
    return (classes == jnp.expand_dims(target, axis)).astype(like.dtype)


def without_ignored(loss, target, ignore_index):
    """Return the losses, or their cotangents, with 0 where the label is `ignore_index`."""
    if ignore_index is None or not is_labels(target):
        return loss
    return jnp.where(target == ignore_index, 0, loss)


def pick(scores, labels, axis):
    """Each example's score of its label, with `axis` kept as 1.

    It reads one number per example. On an explicit mesh the classes may lie on several devices,
    and the sum over them goes where the scores are.
    """
    if on_explicit_mesh(jax.typeof(scores)):
        return jnp.sum(distribution(labels, scores, axis) * scores, axis, keepdims=True)
    return jnp.take_along_axis(scores, jnp.expand_dims(labels, axis), axis, mode="clip")
