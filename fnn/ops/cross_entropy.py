"""Softmax cross-entropy on logits: the loss that classifiers are trained with."""

import jax
import jax.numpy as jnp

from ..custom_op import op
from ..example import example, integers, normal, simplex, values
from .targets import distribution, is_labels, pick, without_ignored


def _target(logits, target, axis, label_smoothing):
    """The target distribution q: one-hot labels, or probabilities, mixed with the uniform one."""
    q = distribution(target, logits, axis)
    if not label_smoothing:
        return q
    return (1 - label_smoothing) * q + label_smoothing / max(logits.shape[axis], 1)


def _reference(logits, target, *, axis, label_smoothing, ignore_index):
    import optax

    if not is_labels(target):
        smoothed = optax.smooth_labels(target, label_smoothing) if label_smoothing else target
        return optax.softmax_cross_entropy(logits, smoothed, axis=axis)
    logits = jnp.moveaxis(logits, axis, -1)
    one_hot = jax.nn.one_hot(target, logits.shape[-1], dtype=logits.dtype)
    smoothed = optax.smooth_labels(one_hot, label_smoothing)
    return jnp.where(target == ignore_index, 0, optax.softmax_cross_entropy(logits, smoothed))


@op(
    reference=_reference,
    examples=(
        example(logits=normal(4, 5), target=integers(4, high=5)),
        example(logits=normal(4, 5), target=simplex(4, 5)),
        example(logits=normal(4, 5), target=integers(4, high=5), label_smoothing=0.1),
        example(logits=normal(4, 5), target=simplex(4, 5), label_smoothing=0.3),
        example(logits=normal(5, 3), target=values(0, -1, 2, -1, 1), ignore_index=-1),
        example(logits=normal(2, 5, 3), target=integers(2, 3, high=5), axis=1, ignore_index=2),
        example(logits=normal(2, 5), target=simplex(1, 5)),
        example(logits=normal(3, 5), target=normal(3, 5)),
        example(logits=normal(5), target=simplex(5)),
        example(logits=normal(3, 1), target=integers(3, high=1)),
        example(logits=normal(0, 3), target=integers(0, high=3)),
        example(
            logits=values([1e4, -1e4, 0.0], [1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]),
            target=values(0, 1, 2),
            tags={"extreme"},
        ),
        example(logits=normal(2048, 1000), target=integers(2048, high=1000), tags={"bench"}),
        example(logits=normal(2048, 1000), target=simplex(2048, 1000), tags={"bench"}),
    ),
    source="Bridle 1990; label smoothing: Szegedy et al. 2016, arXiv:1512.00567",
)
def softmax_cross_entropy(
    logits, target, *, axis: int = -1, label_smoothing: float = 0.0, ignore_index: int | None = None
):
    """Compare logits with a label or a distribution: the softmax and KL(q ‖ p) in one.

        p = softmax(z),   q = (1 - α) d + α / n,   D = -Σᵢ qᵢ log pᵢ
        z̄ᵢ = (pᵢ Σⱼ qⱼ - qᵢ) D̄,   d̄ᵢ = -(1 - α) log pᵢ D̄

    With a label, q sums to 1 and z̄ is output minus target. α is `label_smoothing`; an example
    whose label is `ignore_index` has D = 0 and gives no gradient.
    Shapes: logits z (..., n, ...), target a distribution of that shape (or broadcast to it) or
    integer labels without `axis` -> D without `axis`. Labels other than `ignore_index` must lie
    in [0, n); that is not checked, since under jit it cannot be.
    Saves z, d, and max and Σ exp(z - max) of each example; softmax is computed again.
    """
    largest = jnp.max(logits, axis, keepdims=True, initial=-jnp.inf)
    shifted = logits - jax.lax.stop_gradient(largest)
    log_p = shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis, keepdims=True))
    loss = -jnp.sum(_target(logits, target, axis, label_smoothing) * log_p, axis)
    return without_ignored(loss, target, ignore_index)


@softmax_cross_entropy.def_fwd
def softmax_cross_entropy_fwd(logits, target, *, axis, label_smoothing, ignore_index):
    largest = jnp.max(logits, axis, keepdims=True, initial=-jnp.inf)
    shifted = logits - largest
    total = jnp.sum(jnp.exp(shifted), axis, keepdims=True)
    if is_labels(target) and logits.shape[axis]:  # no classes: nothing to pick
        # A sum over q, as below, would write q log p out for all the classes first.
        score = pick(logits, target, axis) - largest
        if label_smoothing:
            mean = jnp.mean(shifted, axis, keepdims=True)
            score = (1 - label_smoothing) * score + label_smoothing * mean
        loss = jnp.squeeze(jnp.log(total) - score, axis)
    else:
        q = _target(logits, target, axis, label_smoothing)
        loss = jnp.sum(q * (jnp.log(total) - shifted), axis)
    loss = without_ignored(loss, target, ignore_index)
    return loss, (logits, target, largest, total)


@softmax_cross_entropy.def_bwd
def softmax_cross_entropy_bwd(residuals, dD, *, axis, label_smoothing, ignore_index):
    logits, target, largest, total = residuals
    dD = jnp.expand_dims(without_ignored(dD, target, ignore_index), axis)
    shifted = logits - largest
    q = _target(logits, target, axis, label_smoothing)
    # exp(shifted) once more, as the forward pass has it: where the two meet, XLA shares it.
    if is_labels(target):
        return jnp.exp(shifted) * (dD / total) - q * dD, None
    dz = jnp.exp(shifted) * (jnp.sum(q, axis, keepdims=True) * dD / total) - q * dD
    return dz, (1 - label_smoothing) * (jnp.log(total) - shifted) * dD
