"""Faults of one rule each, most of them rebuilt from public reports: norms, losses, activations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .operator import Operator, differentiable, is_inexact, operator
from .rule import Rule


def only(names: str, *defects: str, bug: str = "") -> Callable[[Callable], Operator]:
    """Make an operator, as `operator` does, that applies to the rules named and to no others."""

    def register(make):
        def applied(rule):
            if rule.name in names.split():
                yield "rule", make(rule)

        applied.__name__, applied.__doc__ = make.__name__, make.__doc__
        return operator(*defects, bug=bug)(applied)

    return register


def rewritten(rule: Rule, backward: Callable[..., Any]) -> Rule:
    """Return the rule with `backward(args, dy, right)` for its cotangents.

    All arguments are saved. `right` are the cotangents that automatic differentiation of the body
    gives, None for arguments of integers, booleans and keys.
    """
    static = len(rule.nondiff_argnums)

    def fwd(*args):
        return rule.primal(*args), tuple(differentiable(rule, args))

    def bwd(*call):
        dynamic, dy = call[static:]
        args = merged(rule, call[:static], dynamic)
        return tuple(backward(args, dy, pullback(rule, rule.primal, args, dy)))

    return rule.replace(fwd=fwd, bwd=bwd)


def derivative_of(rule: Rule, wrong: Callable[..., Any]) -> Rule:
    """Return the rule with the derivative of another function of the same arguments."""
    return rewritten(rule, lambda args, dy, right: pullback(rule, wrong, args, dy))


def merged(rule: Rule, fixed: Any, dynamic: Any) -> list[Any]:
    """Put the `nondiff_argnums` and the other arguments together again."""
    fixed, dynamic = iter(fixed), iter(dynamic)
    return [
        next(fixed) if n in rule.nondiff_argnums else next(dynamic) for n in range(len(rule.args))
    ]


def pullback(rule: Rule, function: Callable[..., Any], args: list[Any], dy: Any) -> list[Any]:
    """Return what automatic differentiation of a function gives for each argument of a rule."""
    numbers = [n for n in range(len(args)) if n not in rule.nondiff_argnums]
    active = [n for n in numbers if all(map(is_inexact, jax.tree.leaves(args[n])))]

    def call(*inputs):
        full = list(args)
        for n, a in zip(active, inputs):
            full[n] = a
        return function(*full)

    found = dict(zip(active, jax.vjp(call, *(args[n] for n in active))[1](dy)))
    return [found.get(n) for n in numbers]


def _mean(x):
    return jnp.mean(x, axis=-1, keepdims=True)


# Normalisation


@only("layer_norm", "term", bug="https://github.com/tenstorrent/tt-metal/issues/53204")
def layer_norm_centres_twice(rule: Rule) -> Rule:
    """The mean of the cotangent is subtracted twice.

    Rebuilt from https://github.com/tenstorrent/tt-metal/issues/53204, where a register that still
    held the first mean took part in the second.
    """

    def backward(args, dy, right):
        x, gamma, _, eps = args
        scale = jax.lax.rsqrt(_mean((x - _mean(x)) ** 2) + eps)
        dz = dy * jnp.broadcast_to(gamma, x.shape)
        return right[0] - scale * _mean(dz), *right[1:]

    return rewritten(rule, backward)


@only(
    "layer_norm",
    "size",
    "geometry",
    "term",
    bug="https://github.com/pytorch/pytorch/issues/188372",
)
def layer_norm_of_one(rule: Rule) -> Rule:
    """A row of one element is not centred, and the scale gets a cotangent that it should not.

    Rebuilt from https://github.com/pytorch/pytorch/issues/188372.
    """

    def backward(args, dy, right):
        x = args[0]
        if x.shape[-1] != 1:
            return right
        return right[0], jnp.sum(dy * x, axis=tuple(range(x.ndim - 1))), right[2]

    return rewritten(rule, backward)


@only("group_norm", "factor", "geometry", bug="https://github.com/flagos-ai/FlagGems/issues/4984")
def group_of_powers_of_two(rule: Rule) -> Rule:
    """A group of three channels is filled up to four, and its cotangent scaled for as many.

    After https://github.com/flagos-ai/FlagGems/issues/4984, where groups were filled up to a
    power of two with the channels of their neighbours.
    """

    def backward(args, dy, right):
        channels = args[0].shape[-1] // args[3]
        padded = 1 << max(channels - 1, 0).bit_length()
        return right[0] * (channels / padded), *right[1:]

    six = ("f32[3,5,6]", "f32[6]", "f32[6]")
    return rewritten(rule.replace(args=(*six, *rule.args[3:])), backward)


@only(
    "group_norm",
    "term",
    "order",
    "element",
    bug="https://github.com/tenstorrent/tt-metal/pull/56202",
)
def group_of_another_channel(rule: Rule) -> Rule:
    """The scale's cotangent takes group c mod G where channel c is of group c div (C/G).

    Rebuilt from https://github.com/tenstorrent/tt-metal/pull/56202.
    """

    def backward(args, dy, right):
        x, _, _, groups, eps = args
        n, length, c = x.shape
        grouped = x.reshape(n, length, groups, c // groups)
        mean = jnp.mean(grouped, axis=(1, 3))
        centred = grouped - mean[:, None, :, None]
        scale = jax.lax.rsqrt(jnp.mean(centred * centred, axis=(1, 3)) + eps)
        wrong = jnp.arange(c) % groups
        z = (x - mean[:, None, wrong]) * scale[:, None, wrong]
        return right[0], jnp.sum(dy * z, axis=(0, 1)), right[2]

    return rewritten(rule, backward)


@only("batch_norm", "term", bug="https://github.com/facebookresearch/CrypTen/pull/143")
def constant_statistics(rule: Rule) -> Rule:
    """The batch's mean and variance are taken for constants.

    Rebuilt from https://github.com/facebookresearch/CrypTen/pull/143, where the gradient forgot
    that both are functions of the input.
    """

    def wrong(x, gamma, beta, eps):
        mean = jnp.mean(x, axis=0)
        var = jnp.mean((x - mean[None]) ** 2, axis=0)
        still, spread = jax.lax.stop_gradient((mean, var))
        z = (x - still[None]) * jax.lax.rsqrt(spread + eps)[None]
        return gamma[None] * z + beta[None], mean, var

    return derivative_of(rule, wrong)


@only("rms_norm", "term", "element", bug="https://github.com/karpathy/llm.c/pull/763")
def rms_norm_without_weight(rule: Rule) -> Rule:
    """The cotangent of x is not multiplied by the weight.

    Rebuilt from the discussion of https://github.com/karpathy/llm.c/pull/763.
    """

    def backward(args, dy, right):
        x, gamma, eps = args
        plain = pullback(rule, rule.primal, [x, jnp.ones_like(gamma), eps], dy)
        return plain[0], right[1]

    return rewritten(rule, backward)


@only("rms_norm", "term", bug="https://github.com/ooples/AiDotNet/pull/695")
def rms_as_constant(rule: Rule) -> Rule:
    """The root of the mean square is taken for a constant.

    Rebuilt from a review of https://github.com/ooples/AiDotNet/pull/695.
    """

    def wrong(x, gamma, eps):
        scale = jax.lax.stop_gradient(jax.lax.rsqrt(_mean(x * x) + eps))
        return x * scale * jnp.broadcast_to(gamma, x.shape)

    return derivative_of(rule, wrong)


@only(
    "l2_normalize",
    "nan",
    "special value",
    "size",
    "kink",
    "leakage",
    bug="https://github.com/jax-ml/jax/issues/4177",
)
def square_of_the_norm(rule: Rule) -> Rule:
    """The squared length is the square of the length, which has no derivative where it is zero.

    Rebuilt from https://github.com/jax-ml/jax/issues/4177; zero rows met it in
    https://github.com/google/flax/issues/1671.
    """

    def wrong(x, eps):
        length = jnp.linalg.norm(x, axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(length * length + eps)

    return derivative_of(rule, wrong)


# Losses and activations


@only(
    "huber", "tail", "term", "element", "kink", bug="https://github.com/BobMcDear/attorch/issues/13"
)
def huber_without_size(rule: Rule) -> Rule:
    """The difference itself is compared with the threshold, not its absolute value.

    Rebuilt from https://github.com/BobMcDear/attorch/issues/13.
    """

    def backward(args, dy, right):
        prediction, target, delta = args
        dprediction = dy * jnp.minimum(prediction - target, delta)
        return dprediction, -dprediction

    return rewritten(rule, backward)


@only(
    "focal_loss",
    "nan",
    "tail",
    "overflow",
    "cancellation",
    "rounding",
    bug="https://github.com/google-deepmind/optax/issues/1267",
)
def focal_power(rule: Rule) -> Rule:
    """(1 - p)^γ goes through the logarithm of 1 - p, which is -∞ once p rounds to one.

    After https://github.com/google-deepmind/optax/issues/1267, where the power of a difference
    that is zero gave NaN for confident predictions.
    """

    def wrong(logits, labels, gamma):
        margin = jnp.where(labels, logits, -logits)
        log_power = gamma * jnp.log(1 - jax.nn.sigmoid(margin))
        return jnp.exp(log_power) * jax.nn.softplus(-margin)

    return derivative_of(rule, wrong)


@only("softplus", "special value", "kink", bug="https://github.com/jax-ml/jax/issues/2140")
def softplus_at_zero(rule: Rule) -> Rule:
    """max(x, 0) + log(1 + e^-|x|) with a maximum and a modulus that are both flat at zero.

    Rebuilt from https://github.com/jax-ml/jax/issues/2140: the value is right, and the gradient
    at 0 is 0 where it should be ½.
    """

    def wrong(x):
        return jnp.where(x > 0, x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))

    return derivative_of(rule, wrong)


@only(
    "softplus",
    "tail",
    "term",
    "element",
    bug="https://github.com/pytorch/pytorch/issues/61568",
)
def softplus_threshold(rule: Rule) -> Rule:
    """The derivative goes over to 1 where the value, and not the argument, is above 4.

    Rebuilt from https://github.com/pytorch/pytorch/issues/55587 and
    https://github.com/pytorch/pytorch/issues/61568.
    """

    def backward(args, dy, right):
        return [jnp.where(rule.primal(*args) > 4, dy, right[0])]

    return rewritten(rule, backward)


@only(
    "safe_sqrt",
    "nan",
    "special value",
    "kink",
    "term",
    "element",
    "leakage",
    bug="https://github.com/jax-ml/jax/issues/347",
)
def root_of_negatives(rule: Rule) -> Rule:
    """The root is taken of all numbers, and selected after: zero times NaN in the derivative.

    Rebuilt from https://github.com/jax-ml/jax/issues/347.
    """
    return derivative_of(rule, lambda x: jnp.where(x > 0, jnp.sqrt(x), 0))


@only("elu", "nan", "overflow", "tail", bug="https://github.com/apache/mxnet/pull/14673")
def elu_exponential(rule: Rule) -> Rule:
    """The exponential is not guarded inside the `where`, and its infinity meets a zero.

    Rebuilt from https://github.com/apache/mxnet/pull/14673.
    """
    return derivative_of(rule, lambda x, alpha: jnp.where(x > 0, x, alpha * (jnp.exp(x) - 1)))


@only("elu", "term", "tail", "element", bug="https://github.com/pytorch/pytorch/issues/47671")
def elu_from_output(rule: Rule) -> Rule:
    """The sign of x is read off the value, which is positive on both sides if α is negative.

    Rebuilt from https://github.com/pytorch/pytorch/issues/47671.
    """

    def backward(args, dy, right):
        x, alpha = args
        y = rule.primal(x, alpha)
        return [jnp.where(y > 0, dy, dy * (y + alpha))]

    return rewritten(rule.replace(args=(rule.args[0], -2.0)), backward)


@only(
    "leaky_relu", "term", "tail", "element", bug="https://github.com/pytorch/pytorch/issues/31938"
)
def leaky_relu_from_output(rule: Rule) -> Rule:
    """The sign of x is read off the value, which a negative slope has turned.

    Rebuilt from https://github.com/pytorch/pytorch/issues/31938.
    """

    def backward(args, dy, right):
        x, slope = args
        return [jnp.where(rule.primal(x, slope) >= 0, dy, slope * dy)]

    return rewritten(rule.replace(args=(rule.args[0], -2.0)), backward)
