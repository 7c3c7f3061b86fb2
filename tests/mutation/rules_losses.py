"""Correct rules of softmax, its logarithm, and losses of one number per row."""

import jax
import jax.numpy as jnp

from .rule import X, output, vjp_rule


def softmax(x):
    e = jnp.exp(x - jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True)))
    return e / jnp.sum(e, axis=-1, keepdims=True)


vjp_rule(softmax, X, saves=output, name="softmax")(
    lambda y, g: y * (g - jnp.sum(g * y, axis=-1, keepdims=True))
)


def log_softmax(x):
    shifted = x - jnp.max(x, axis=-1, keepdims=True)
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))


vjp_rule(log_softmax, X, saves=output, name="log_softmax")(
    lambda y, g: g - jnp.exp(y) * jnp.sum(g, axis=-1, keepdims=True)
)


@vjp_rule(lambda x: jax.nn.logsumexp(x, axis=-1), X)
def logsumexp(x, g):
    # exp(x - y) would save the softmax, but lose its digits where y is large.
    return g[..., None] * jax.nn.softmax(x, axis=-1)


def cross_entropy_labels(logits, labels):
    logit = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - logit


@vjp_rule(cross_entropy_labels, X, "i32[4] in 0..2")
def cross_entropy_labels_bwd(logits, labels, g):
    p = jax.nn.softmax(logits, axis=-1)
    return g[..., None] * (p - jax.nn.one_hot(labels, p.shape[-1], dtype=p.dtype)), None


@vjp_rule(
    lambda logits, targets: -jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1),
    *(X, "f32[4,3] in simplex"),
)
def cross_entropy_targets_bwd(logits, targets, g):
    g = g[..., None]
    log_p = jax.nn.log_softmax(logits, axis=-1)
    dlogits = g * (jnp.exp(log_p) * jnp.sum(targets, axis=-1, keepdims=True) - targets)
    return dlogits, -g * log_p


@vjp_rule(
    lambda logits, targets: jnp.logaddexp(logits, jnp.zeros_like(logits)) - logits * targets,
    *(X, "f32[4,3] in 0..1"),
)
def binary_cross_entropy_bwd(x, t, g):
    # The sigmoid less t, in a form that does not cancel where t is 0 or 1.
    dx = (1 - t) * jax.nn.sigmoid(x) - t * jax.nn.sigmoid(-x)
    return g * dx, -g * x


def huber(prediction, target, delta):
    distance = jnp.abs(prediction - target)
    inside = distance <= delta
    quadratic = 0.5 * jnp.where(inside, distance, 0) ** 2
    return jnp.where(inside, quadratic, delta * (distance - 0.5 * delta))


@vjp_rule(
    huber, *(X, X), static=(0.75,), saves=lambda y, prediction, target, delta: prediction - target
)
def huber_bwd(delta, difference, g):
    dprediction = g * jnp.clip(difference, -delta, delta)
    return dprediction, -dprediction


@vjp_rule(
    lambda p, q: jnp.sum(p * (jnp.log(p) - jnp.log(q)), axis=-1),
    *("f32[4,3] in simplex", "f32[4,3] in simplex"),
)
def kl_divergence(p, q, g):
    g = g[..., None]
    return g * (jnp.log(p) - jnp.log(q) + 1), -g * p / q


def focal_loss(logits, labels, gamma):
    """-(1 - p)^γ log p, where p is the probability of the right one of two classes."""
    margin = jnp.where(labels, logits, -logits)
    return jax.nn.sigmoid(-margin) ** gamma * jax.nn.softplus(-margin)


@vjp_rule(focal_loss, X, "bool[4,3]", static=(2.0,))
def focal_loss_bwd(gamma, logits, labels, g):
    margin = jnp.where(labels, logits, -logits)
    p, q = jax.nn.sigmoid(margin), jax.nn.sigmoid(-margin)
    dmargin = -(g * q**gamma) * (gamma * p * jax.nn.softplus(-margin) + q)
    return jnp.where(labels, dmargin, -dmargin), None


@vjp_rule(
    lambda prediction, target: jnp.mean((prediction - target) ** 2),
    *(X, X),
    saves=lambda y, prediction, target: prediction - target,
)
def mean_squared_error(difference, g):
    # The size of an empty array is zero, and so is its sum.
    dprediction = 2 / max(difference.size, 1) * g * difference
    return dprediction, -dprediction


def cosine_similarity(x, y, eps):
    norms = (jnp.sum(x * x, axis=-1) + eps) * (jnp.sum(y * y, axis=-1) + eps)
    return jnp.sum(x * y, axis=-1) * jax.lax.rsqrt(norms)


@vjp_rule(cosine_similarity, X, X, static=(0.05,))
def cosine_similarity_bwd(eps, x, y, g):
    rx = jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + eps)
    ry = jax.lax.rsqrt(jnp.sum(y * y, axis=-1, keepdims=True) + eps)
    u, v = x * rx, y * ry
    cosine = jnp.sum(u * v, axis=-1, keepdims=True)
    g = g[..., None]
    return g * rx * (v - cosine * u), g * ry * (u - cosine * v)
