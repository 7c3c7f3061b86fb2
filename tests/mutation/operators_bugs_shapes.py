"""Faults of one rule each: windows, attention, lookups, recurrences, random numbers."""

import jax
import jax.numpy as jnp

from .operator import with_bwd
from .operators_bugs import derivative_of, only, pullback, rewritten
from .rule import Rule

# Convolution and pooling


@only(
    "conv2d",
    "geometry",
    "size",
    "order",
    "term",
    bug="https://github.com/flagos-ai/FlagGems/pull/1576",
)
def convolution_remainder(rule: Rule) -> Rule:
    """Where the stride leaves a remainder, the cotangent is shifted by it.

    Rebuilt from https://github.com/flagos-ai/FlagGems/pull/1576; the remainder was forgotten by
    https://github.com/torch/DEPRECEATED-torch7-distro/issues/20 and
    https://github.com/f-dangel/backpack/issues/30 too.
    """

    def backward(args, dy, right):
        x, w, strides, padding = args
        dx = right[0]
        spatial = x.shape[1:-1]
        pads = jax.lax.padtype_to_pads(spatial, w.shape[:-2], strides, padding)
        for axis, (size, taps, stride, pad) in enumerate(zip(spatial, w.shape, strides, pads)):
            dx = jnp.roll(dx, (size + sum(pad) - taps) % stride, axis=axis + 1)
        return dx, right[1]

    return rewritten(rule, backward)


@only("max_pool", "geometry", "order", "term", bug="https://github.com/FluxML/NNlib.jl/issues/133")
def pool_remainder(rule: Rule) -> Rule:
    """The elements that no window covers are taken to stand first, and not last.

    After https://github.com/FluxML/NNlib.jl/issues/133, where the gradient of a pool did not
    allow for what stands beyond the windows.
    """

    def backward(args, dy, right):
        x, size = args
        shift = (x.shape[1] % size, x.shape[2] % size)
        return [jnp.roll(right[0], shift, axis=(1, 2))]

    return rewritten(rule, backward)


@only("max_pool", "kink", bug="https://github.com/tensorflow/tensorflow/issues/4886")
def pool_every_tie(rule: Rule) -> Rule:
    """Each of several equal maxima of a window gets the whole cotangent.

    After https://github.com/tensorflow/tensorflow/issues/4886, which compares what frameworks
    give to ties; the last of those is no subgradient.
    """

    def backward(args, dy, right):
        x, size = args
        y = rule.primal(x, size)
        reach = (y.shape[1] * size, y.shape[2] * size)
        spread = lambda a: jnp.repeat(jnp.repeat(a, size, axis=1), size, axis=2)  # noqa: E731
        inside = x[:, : reach[0], : reach[1]]
        dx = jnp.where(inside == spread(y), spread(dy), 0)
        return [jnp.zeros_like(x).at[:, : reach[0], : reach[1]].set(dx)]

    return rewritten(rule, backward)


@only(
    "avg_pool",
    "term",
    "element",
    "geometry",
    bug="https://github.com/tracel-ai/burn/issues/5450",
)
def pool_counts_padding(rule: Rule) -> Rule:
    """The cotangent is divided by the size of the window, padding included.

    After https://github.com/tracel-ai/burn/issues/5450.
    """

    def wrong(x, size, stride):
        pads = jax.lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")
        padding = ((0, 0), *pads, (0, 0))
        window, strides = (1, size, size, 1), (1, stride, stride, 1)
        total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, padding)
        return total / (size * size)

    return derivative_of(rule, wrong)


# Attention


@only(
    "attention",
    "nan",
    "size",
    "special value",
    "leakage",
    "geometry",
    bug="https://github.com/pytorch/pytorch/issues/41508",
)
def softmax_of_nothing(rule: Rule) -> Rule:
    """A row that is masked entirely is a softmax of minus infinities: no number, for all.

    Rebuilt from https://github.com/pytorch/pytorch/issues/41508.
    """

    def wrong(q, k, v, mask):
        scores = jnp.einsum("htd,hsd->hts", q, k) * q.shape[-1] ** -0.5
        p = jax.nn.softmax(jnp.where(mask[None], scores, -jnp.inf), axis=-1)
        return jnp.einsum("hts,hsd->htd", p, v)

    return derivative_of(rule, wrong)


@only("attention causal_attention flash_attention", "factor")
def scale_forgotten(rule: Rule) -> Rule:
    """The cotangents of queries and keys are not divided by the root of the width."""

    def around(bwd, residuals, dy):
        dq, dk, *others = bwd(residuals, dy)
        root = dq.shape[-1] ** 0.5
        return (root * dq, root * dk, *others)

    return with_bwd(rule, around)


@only("rotary", "term", "order", "sign", "element")
def turned_again(rule: Rule) -> Rule:
    """The cotangent is turned by the angle once more and not back."""

    def backward(args, dy, right):
        _, positions, base = args
        return rule.primal(dy, positions, base), None

    return rewritten(rule, backward)


# Lookups and ties


@only("minimum_columns", "kink", bug="https://github.com/Theano/Theano/issues/4568")
def every_tie_wins(rule: Rule) -> Rule:
    """Each of several equal minima gets the whole cotangent.

    Rebuilt from https://github.com/Theano/Theano/issues/4568 (and, for the infinity norm,
    https://github.com/pytorch/pytorch/issues/41779): the gradient of a maximum summed to the
    number of its ties.
    """

    def backward(args, dy, right):
        (x,) = args
        y = rule.primal(x)
        return [jnp.where(x == y[None], dy[None], 0)]

    return rewritten(rule, backward)


@only("masked_mean", "nan", "size", "special value", "leakage")
def mean_of_nothing(rule: Rule) -> Rule:
    """A row without any element is zero times NaN: the mask multiplies, and divides by none."""

    def wrong(x, mask):
        weight = mask.astype(x.dtype)
        return jnp.sum(x * weight, axis=-1) / jnp.sum(weight, axis=-1)

    return derivative_of(rule, wrong)


# Recurrences


@only(
    "linear_recurrence",
    "nan",
    "special value",
    "cancellation",
    "rounding",
    "overflow",
    "tail",
    bug="https://github.com/tracel-ai/burn/issues/3864",
)
def state_by_division(rule: Rule) -> Rule:
    """The state before a step is recovered from the one after it, by a division by the decay.

    After https://github.com/tracel-ai/burn/issues/3864, where the gradient of a cumulative
    product divided by its factors: zero by zero where one of them is zero.
    """

    def backward(args, dy, right):
        a, b, h0 = args
        before = (rule.primal(a, b, h0) - b) / a
        return right[1] * before, *right[1:]

    return rewritten(rule, backward)


# Random numbers


@only(
    "dropout",
    "term",
    "element",
    "order",
    bug="https://github.com/pytorch/pytorch/issues/190758",
)
def another_mask(rule: Rule) -> Rule:
    """The backward pass derives another key, and with it another mask.

    Rebuilt from https://github.com/pytorch/pytorch/issues/190758: a mask drawn anew where it
    should have been kept.
    """

    def backward(args, dy, right):
        key, x, rate = args
        return pullback(rule, rule.primal, [jax.random.fold_in(key, 1), x, rate], dy)

    return rewritten(rule, backward)


@only(
    "reparameterize",
    "term",
    "factor",
    bug="https://github.com/google-deepmind/optax/issues/1308",
)
def scaled_by_deviation(rule: Rule) -> Rule:
    """The cotangent of the mean is multiplied by the standard deviation.

    Rebuilt from https://github.com/google-deepmind/optax/issues/1308.
    """

    def backward(args, dy, right):
        return None, right[1] * jnp.exp(args[2]), right[2]

    return rewritten(rule, backward)
