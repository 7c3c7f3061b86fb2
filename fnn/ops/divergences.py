"""Divergences: how far the network's output y is from the target d, one number per example.

The backward pass starts here. Squared error compares numbers; the others compare distributions,
and all of them are the Kullback-Leibler divergence KL(d ‖ y) up to the entropy of the target,
which no weight can change. On logits, KL and the squashing before it have one short derivative:
output minus target.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from ..custom_op import op
from ..example import example, integers, normal, simplex, uniform, values
from .targets import distribution, is_labels, without_ignored


def _log(p, eps):
    """ℓ(p): log p, continued below `eps` by its tangent there, so that ℓ(0) is finite."""
    below = p < eps
    return jnp.where(below, jnp.log(eps) + (p - eps) / eps, jnp.log(jnp.where(below, 1, p)))


def _log_slope(p, eps):
    """ℓ'(p)."""
    return 1 / jnp.maximum(p, eps)


@op(
    reference=lambda y, target, *, form: (
        jnp.linalg.norm(y - target, axis=-1) ** 2 / (2 if form == "half_sum" else y.shape[-1])
    ),
    examples=(
        example(y=normal(4, 3), target=normal(4, 3)),
        example(y=normal(4, 3), target=normal(4, 3), form="mean"),
        example(y=normal(2, 3, 5), target=normal(1, 3, 1), form="mean"),
        example(y=normal(2, 1), target=normal(2, 1)),
        example(y=normal(1), target=normal(1)),
        example(y=normal(0, 3), target=normal(0, 3)),
        example(y=values([1e4, -1e4, 0.0]), target=values([-1e4, -1e4, 0.0]), tags={"extreme"}),
        example(y=normal(2048, 1000), target=normal(2048, 1000), tags={"bench"}),
    ),
    source="Gauss 1809; in backpropagation: Rumelhart, Hinton & Williams 1986",
)
def squared_error(y, target, *, form: Literal["half_sum", "mean"] = "half_sum"):
    """Square the distance to the target, over the last axis.

        D = ½ Σᵢ (yᵢ - dᵢ)²,           ȳ = (y - d) D̄            ("half_sum")
        D = (1/n) Σᵢ (yᵢ - dᵢ)²,       ȳ = (2/n) (y - d) D̄      ("mean")

    and d̄ = -ȳ. Shapes: y (..., n), target the same or broadcast to it -> D (...).
    Saves y - d.
    """
    squared = (y - target) ** 2
    return jnp.sum(squared, -1) / 2 if form == "half_sum" else jnp.mean(squared, -1)


@squared_error.def_fwd
def squared_error_fwd(y, target, *, form):
    if form not in ("half_sum", "mean"):
        raise ValueError(f"squared_error: form must be 'half_sum' or 'mean', got {form!r}")
    error = y - target
    scale = 0.5 if form == "half_sum" else 1 / error.shape[-1]
    return scale * jnp.sum(error * error, -1), error


@squared_error.def_bwd
def squared_error_bwd(error, dD, *, form):
    scale = 1 if form == "half_sum" else 2 / error.shape[-1]
    dy = scale * error * jnp.expand_dims(dD, -1)
    return dy, -dy


def _binary_cross_entropy(p, target, eps):
    t = target.astype(p.dtype)
    return -(t * _log(p, eps) + (1 - t) * _log(1 - p, eps))


@op(
    reference=lambda p, target, *, eps: (
        -(
            jax.scipy.special.xlogy(target, jnp.maximum(p, 1e-300))
            + jax.scipy.special.xlog1py(1 - target, -p)
        )
    ),
    examples=(
        example(p=uniform(4, 3, low=0.01, high=0.99), target=uniform(4, 3)),
        example(p=uniform(4, 3, low=0.01, high=0.99), target=integers(4, 3, high=2)),
        example(p=uniform(2, 3, low=0.01, high=0.99), target=uniform(2, 1)),
        example(p=uniform(1, low=0.01, high=0.99), target=uniform(1)),
        example(p=uniform(0, 3), target=uniform(0, 3)),
        example(
            p=values(0.0, 1.0, 0.0, 1.0, 1e-9, 0.5),
            target=values(0.0, 1.0, 1.0, 0.0, 1.0, 0.3),
            tags={"extreme", "no reference"},
        ),
        example(
            p=uniform(1024, 1024, low=0.01, high=0.99), target=uniform(1024, 1024), tags={"bench"}
        ),
    ),
    source="Kullback & Leibler 1951; Cox 1958",
)
def binary_cross_entropy(p, target, *, eps: float = 1e-7):
    """Compare probabilities of "yes" with binary targets, hard or soft; one number each.

        D = -d ℓ(p) - (1 - d) ℓ(1 - p)
        p̄ = ((1 - d) / max(1 - p, ε) - d / max(p, ε)) D̄,   d̄ = (ℓ(1 - p) - ℓ(p)) D̄

    ℓ is the logarithm, continued below ε = `eps` by its tangent: finite and still steep at
    p = 0 and 1, where a clipped logarithm would stop all learning.
    Shapes: p (...), target the same or broadcast to it, floats, booleans or integers 0 and 1
    -> D (...). Saves p and d.
    """
    return _binary_cross_entropy(p, target, eps)


@binary_cross_entropy.def_fwd
def binary_cross_entropy_fwd(p, target, *, eps):
    return _binary_cross_entropy(p, target, eps), (p, target)


@binary_cross_entropy.def_bwd
def binary_cross_entropy_bwd(residuals, dD, *, eps):
    p, target = residuals
    t = target.astype(p.dtype)
    # (1 - d) / max(1 - p, ε), d / max(p, ε)
    dp = ((1 - t) * _log_slope(1 - p, eps) - t * _log_slope(p, eps)) * dD
    if is_labels(target):
        return dp, None
    return dp, (_log(1 - p, eps) - _log(p, eps)) * dD


@op(
    reference=lambda logits, target, *, pos_weight: (
        -pos_weight * target * jax.nn.log_sigmoid(logits)
        - (1 - target) * jax.nn.log_sigmoid(-logits)
    ),
    examples=(
        example(logits=normal(4, 3), target=uniform(4, 3)),
        example(logits=normal(4, 3), target=integers(4, 3, high=2)),
        example(logits=normal(4, 3), target=uniform(4, 3), pos_weight=2.5),
        example(logits=normal(2, 3), target=uniform(2, 1)),
        example(logits=normal(1), target=uniform(1)),
        example(logits=normal(0, 3), target=uniform(0, 3)),
        example(
            logits=values(1e4, -1e4, 1e4, -1e4, 0.0),
            target=values(1.0, 1.0, 0.0, 0.0, 0.5),
            tags={"extreme"},
        ),
        example(logits=normal(1024, 1024), target=uniform(1024, 1024), tags={"bench"}),
    ),
    source="Cox 1958; Bishop 2006, Pattern Recognition and Machine Learning, 4.3.2",
)
def binary_cross_entropy_with_logits(logits, target, *, pos_weight: float = 1.0):
    """Compare logits with binary targets, hard or soft: the sigmoid is inside.

        D = -w d log σ(z) - (1 - d) log(1 - σ(z))
          = (1 - d) max(z, 0) + w d max(-z, 0) + (1 - d + w d) log(1 + e^-|z|)
        z̄ = ((1 - d + w d) σ(z) - w d) D̄,   d̄ = ((w - 1) log(1 + e^z) - w z) D̄

    w = `pos_weight` is the weight of the positive examples. At its default 1, z̄ = (σ(z) - d) D̄.
    The second form of D has no difference of large numbers. Raises ValueError unless w > 0.
    Shapes: logits z (...), target the same or broadcast to it, floats, booleans or integers
    0 and 1 -> D (...). Saves z and d.
    """
    t = target.astype(logits.dtype)
    positive = pos_weight * t * jnp.logaddexp(0.0, -logits)
    return positive + (1 - t) * jnp.logaddexp(0.0, logits)


@binary_cross_entropy_with_logits.def_fwd
def binary_cross_entropy_with_logits_fwd(logits, target, *, pos_weight):
    if not pos_weight > 0:
        raise ValueError(
            f"binary_cross_entropy_with_logits: pos_weight must be above 0, got {pos_weight!r}"
        )
    t = target.astype(logits.dtype)
    negative, positive = 1 - t, pos_weight * t
    loss = negative * jnp.maximum(logits, 0) + positive * jnp.maximum(-logits, 0)
    loss = loss + (negative + positive) * jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return loss, (logits, target)


@binary_cross_entropy_with_logits.def_bwd
def binary_cross_entropy_with_logits_bwd(residuals, dD, *, pos_weight):
    logits, target = residuals
    t = target.astype(logits.dtype)
    negative, positive = 1 - t, pos_weight * t
    dz = ((negative + positive) * jax.lax.logistic(logits) - positive) * dD
    if is_labels(target):
        return dz, None
    return dz, ((pos_weight - 1) * jax.nn.softplus(logits) - pos_weight * logits) * dD


_PROBABILITIES = (
    example(p=simplex(4, 3), target=simplex(4, 3)),
    example(p=simplex(4, 3), target=integers(4, high=3)),
    example(p=uniform(2, 3, 4, low=0.1), target=uniform(2, 3, 4, low=0.1), axis=1),
    example(p=simplex(2, 3), target=simplex(1, 3)),
    example(p=simplex(5), target=simplex(5)),
    example(p=simplex(2, 1), target=simplex(2, 1)),
    example(p=simplex(0, 3), target=simplex(0, 3)),
    example(
        p=values([0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1e-9, 0.5, 0.5]),
        target=values([0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]),
        tags={"extreme", "no reference"},
    ),
    example(p=uniform(2048, 1000, low=0.1), target=integers(2048, high=1000), tags={"bench"}),
    example(p=uniform(2048, 1000, low=0.1), target=simplex(2048, 1000), tags={"bench"}),
)


@op(
    reference=lambda p, target, *, axis, eps, ignore_index: jnp.where(
        False if ignore_index is None else target == ignore_index,
        0,
        -jnp.sum(jax.scipy.special.xlogy(distribution(target, p, axis), p), axis),
    ),
    examples=(
        *_PROBABILITIES,
        example(p=simplex(5, 3), target=values(0, -1, 2, -1, 1), ignore_index=-1),
    ),
    source="Kullback & Leibler 1951; Shannon 1948",
)
def categorical_cross_entropy(
    p, target, *, axis: int = -1, eps: float = 1e-7, ignore_index: int | None = None
):
    """Compare class probabilities with a label or a distribution: KL(d ‖ p) + H(d).

        D = -Σᵢ dᵢ ℓ(pᵢ),   p̄ᵢ = -dᵢ / max(pᵢ, ε) D̄,   d̄ᵢ = -ℓ(pᵢ) D̄

    For a label, H(d) = 0 and D is the Kullback-Leibler divergence itself, -log p of the label.
    ℓ is the logarithm, continued below ε = `eps` by its tangent. An example whose label is
    `ignore_index` has D = 0 and gives no gradient.
    Shapes: p (..., n, ...), target a distribution of that shape (or broadcast to it) or integer
    labels in [0, n) without `axis` -> D without `axis`. Saves p and d.
    """
    loss = -jnp.sum(distribution(target, p, axis) * _log(p, eps), axis)
    return without_ignored(loss, target, ignore_index)


@categorical_cross_entropy.def_fwd
def categorical_cross_entropy_fwd(p, target, *, axis, eps, ignore_index):
    loss = -jnp.sum(distribution(target, p, axis) * _log(p, eps), axis)
    return without_ignored(loss, target, ignore_index), (p, target)


@categorical_cross_entropy.def_bwd
def categorical_cross_entropy_bwd(residuals, dD, *, axis, eps, ignore_index):
    p, target = residuals
    dD = jnp.expand_dims(without_ignored(dD, target, ignore_index), axis)
    dp = -distribution(target, p, axis) * _log_slope(p, eps) * dD
    if is_labels(target):
        return dp, None
    return dp, jnp.broadcast_to(-_log(p, eps) * dD, dp.shape)


@op(
    reference=lambda p, target, *, axis, eps: jnp.sum(
        jax.scipy.special.rel_entr(distribution(target, p, axis), p), axis
    ),
    examples=_PROBABILITIES,
    source="Kullback & Leibler 1951, doi:10.1214/aoms/1177729694",
)
def kl_divergence(p, target, *, axis: int = -1, eps: float = 1e-7):
    """Measure the information lost when p stands for the target distribution d: KL(d ‖ p).

        D = Σᵢ dᵢ (ℓ(dᵢ) - ℓ(pᵢ))
        p̄ᵢ = -dᵢ / max(pᵢ, ε) D̄,   d̄ᵢ = (ℓ(dᵢ) - ℓ(pᵢ) + dᵢ / max(dᵢ, ε)) D̄

    ℓ is the logarithm, continued below ε = `eps` by its tangent.
    Shapes: p (..., n, ...), target a distribution of that shape (or broadcast to it) or integer
    labels in [0, n) without `axis` -> D without `axis`. Saves p and d.
    """
    d = distribution(target, p, axis)
    return jnp.sum(d * (_log(d, eps) - _log(p, eps)), axis)


@kl_divergence.def_fwd
def kl_divergence_fwd(p, target, *, axis, eps):
    d = distribution(target, p, axis)
    return jnp.sum(d * (_log(d, eps) - _log(p, eps)), axis), (p, target)


@kl_divergence.def_bwd
def kl_divergence_bwd(residuals, dD, *, axis, eps):
    p, target = residuals
    dD = jnp.expand_dims(dD, axis)
    d = distribution(target, p, axis)
    dp = -d * _log_slope(p, eps) * dD
    if is_labels(target):
        return dp, None
    return dp, (_log(d, eps) - _log(p, eps) + d * _log_slope(d, eps)) * dD
