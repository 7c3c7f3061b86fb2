"""Correct rules of softmax, its logarithm, and losses of one number a row."""

import jax
import jax.numpy as jnp

from .rule import Rule
from .rules_shared import wide


def softmax(x):
    e = jnp.exp(x - jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True)))
    return e / jnp.sum(e, axis=-1, keepdims=True)


def softmax_fwd(x):
    y = softmax(x)
    return y, y


def softmax_bwd(y, g):
    y_, g_ = wide(y), wide(g)
    return ((y_ * (g_ - jnp.sum(g_ * y_, axis=-1, keepdims=True))).astype(y.dtype),)


def log_softmax(x):
    shifted = x - jnp.max(x, axis=-1, keepdims=True)
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))


def log_softmax_fwd(x):
    y = log_softmax(x)
    return y, y


def log_softmax_bwd(y, g):
    y_, g_ = wide(y), wide(g)
    return ((g_ - jnp.exp(y_) * jnp.sum(g_, axis=-1, keepdims=True)).astype(y.dtype),)


def logsumexp(x):
    return jax.nn.logsumexp(x, axis=-1)


def logsumexp_fwd(x):
    return logsumexp(x), x


def logsumexp_bwd(x, g):
    # exp(x - y) would save the softmax, but lose its digits where y is large.
    return ((wide(g)[..., None] * jax.nn.softmax(wide(x), axis=-1)).astype(x.dtype),)


def cross_entropy_labels(logits, labels):
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def cross_entropy_labels_fwd(logits, labels):
    return cross_entropy_labels(logits, labels), (logits, labels)


def cross_entropy_labels_bwd(residuals, g):
    logits, labels = residuals
    p = jax.nn.softmax(wide(logits), axis=-1)
    dlogits = p - jax.nn.one_hot(labels, logits.shape[-1], dtype=p.dtype)
    return (wide(g)[..., None] * dlogits).astype(logits.dtype), None


def cross_entropy_targets(logits, targets):
    return -jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def cross_entropy_targets_fwd(logits, targets):
    return cross_entropy_targets(logits, targets), (logits, targets)


def cross_entropy_targets_bwd(residuals, g):
    logits, targets = map(wide, residuals)
    g_ = wide(g)[..., None]
    log_p = jax.nn.log_softmax(logits, axis=-1)
    dlogits = g_ * (jnp.exp(log_p) * jnp.sum(targets, axis=-1, keepdims=True) - targets)
    return dlogits.astype(g.dtype), (-g_ * log_p).astype(g.dtype)


def binary_cross_entropy(logits, targets):
    return jnp.logaddexp(logits, jnp.zeros_like(logits)) - logits * targets


def binary_cross_entropy_fwd(logits, targets):
    return binary_cross_entropy(logits, targets), (logits, targets)


def binary_cross_entropy_bwd(residuals, g):
    x, t = map(wide, residuals)
    # The sigmoid less t, in a form that does not cancel where t is 0 or 1.
    dx = (1 - t) * jax.nn.sigmoid(x) - t * jax.nn.sigmoid(-x)
    return (wide(g) * dx).astype(g.dtype), (-wide(g) * x).astype(g.dtype)


def huber(prediction, target, delta):
    distance = jnp.abs(prediction - target)
    inside = distance <= delta
    quadratic = 0.5 * jnp.where(inside, distance, 0) ** 2
    return jnp.where(inside, quadratic, delta * (distance - 0.5 * delta))


def huber_fwd(prediction, target, delta):
    return huber(prediction, target, delta), prediction - target


def huber_bwd(delta, difference, g):
    dprediction = g * jnp.clip(difference, -delta, delta)
    return dprediction, -dprediction


def kl_divergence(p, q):
    return jnp.sum(p * (jnp.log(p) - jnp.log(q)), axis=-1)


def kl_divergence_fwd(p, q):
    return kl_divergence(p, q), (p, q)


def kl_divergence_bwd(residuals, g):
    p, q = map(wide, residuals)
    g_ = wide(g)[..., None]
    dp = g_ * (jnp.log(p) - jnp.log(q) + 1)
    return dp.astype(g.dtype), (-g_ * p / q).astype(g.dtype)


def focal_loss(logits, labels, gamma):
    """-(1 - p)^γ log p, where p is the probability of the right one of two classes."""
    margin = jnp.where(labels, logits, -logits)
    return jax.nn.sigmoid(-margin) ** gamma * jax.nn.softplus(-margin)


def focal_loss_fwd(logits, labels, gamma):
    return focal_loss(logits, labels, gamma), (logits, labels)


def focal_loss_bwd(gamma, residuals, g):
    logits, labels = residuals
    x = wide(logits)
    margin = jnp.where(labels, x, -x)
    p, q = jax.nn.sigmoid(margin), jax.nn.sigmoid(-margin)
    dmargin = -(wide(g) * q**gamma) * (gamma * p * jax.nn.softplus(-margin) + q)
    return jnp.where(labels, dmargin, -dmargin).astype(logits.dtype), None


def mean_squared_error(prediction, target):
    return jnp.mean((prediction - target) ** 2)


def mean_squared_error_fwd(prediction, target):
    difference = prediction - target
    return jnp.mean(difference**2), difference


def mean_squared_error_bwd(difference, g):
    # The size of an empty array is zero, and so is its sum.
    dprediction = 2 / max(difference.size, 1) * wide(g) * wide(difference)
    dprediction = dprediction.astype(difference.dtype)
    return dprediction, -dprediction


def cosine_similarity(x, y, eps):
    norms = (jnp.sum(x * x, axis=-1) + eps) * (jnp.sum(y * y, axis=-1) + eps)
    return jnp.sum(x * y, axis=-1) * jax.lax.rsqrt(norms)


def cosine_similarity_fwd(x, y, eps):
    return cosine_similarity(x, y, eps), (x, y)


def cosine_similarity_bwd(eps, residuals, g):
    x, y = map(wide, residuals)
    rx = jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + eps)
    ry = jax.lax.rsqrt(jnp.sum(y * y, axis=-1, keepdims=True) + eps)
    u, v = x * rx, y * ry
    cosine = jnp.sum(u * v, axis=-1, keepdims=True)
    g_ = wide(g)[..., None]
    return (g_ * rx * (v - cosine * u)).astype(g.dtype), (g_ * ry * (u - cosine * v)).astype(
        g.dtype
    )


RULES = [
    Rule("softmax", softmax, ("f32[4,3]",), softmax_fwd, softmax_bwd),
    Rule("log_softmax", log_softmax, ("f32[4,3]",), log_softmax_fwd, log_softmax_bwd),
    Rule("logsumexp", logsumexp, ("f32[4,3]",), logsumexp_fwd, logsumexp_bwd),
    Rule(
        "cross_entropy_labels",
        cross_entropy_labels,
        ("f32[4,3]", "i32[4] in 0..2"),
        cross_entropy_labels_fwd,
        cross_entropy_labels_bwd,
    ),
    Rule(
        "cross_entropy_targets",
        cross_entropy_targets,
        ("f32[4,3]", "f32[4,3] in simplex"),
        cross_entropy_targets_fwd,
        cross_entropy_targets_bwd,
    ),
    Rule(
        "binary_cross_entropy",
        binary_cross_entropy,
        ("f32[4,3]", "f32[4,3] in 0..1"),
        binary_cross_entropy_fwd,
        binary_cross_entropy_bwd,
    ),
    Rule("huber", huber, ("f32[4,3]", "f32[4,3]", 0.75), huber_fwd, huber_bwd, None, (2,)),
    Rule(
        "kl_divergence",
        kl_divergence,
        ("f32[4,3] in simplex", "f32[4,3] in simplex"),
        kl_divergence_fwd,
        kl_divergence_bwd,
    ),
    Rule(
        "focal_loss",
        focal_loss,
        ("f32[4,3]", "bool[4,3]", 2.0),
        focal_loss_fwd,
        focal_loss_bwd,
        nondiff_argnums=(2,),
    ),
    Rule(
        "mean_squared_error",
        mean_squared_error,
        ("f32[4,3]", "f32[4,3]"),
        mean_squared_error_fwd,
        mean_squared_error_bwd,
    ),
    Rule(
        "cosine_similarity",
        cosine_similarity,
        ("f32[4,3]", "f32[4,3]", 0.05),
        cosine_similarity_fwd,
        cosine_similarity_bwd,
        nondiff_argnums=(2,),
    ),
]
