"""Faults of one rule each, most of them rebuilt from public reports: norms, losses, activations."""

import jax
import jax.numpy as jnp

from .bugs import pullback, wrong_backward, wrong_function
from .rules_norms import row_mean

# Normalisation


@wrong_backward("layer_norm", "term", "tenstorrent/tt-metal/issues/53204")
def layer_norm_centres_twice(rule, args, dy, right):
    """The mean of the cotangent is subtracted twice."""
    x, gamma, _, eps = args
    scale = jax.lax.rsqrt(row_mean((x - row_mean(x)) ** 2) + eps)
    dz = dy * jnp.broadcast_to(gamma, x.shape)
    return right[0] - scale * row_mean(dz), *right[1:]


@wrong_backward("layer_norm", "size, geometry, term", "pytorch/pytorch/issues/188372")
def layer_norm_of_one(rule, args, dy, right):
    """A row of one element is not centred, and the scale gets a cotangent that it should not."""
    x = args[0]
    if x.shape[-1] != 1:
        return right
    return right[0], jnp.sum(dy * x, axis=tuple(range(x.ndim - 1))), right[2]


@wrong_backward(
    "group_norm",
    "factor, geometry",
    "flagos-ai/FlagGems/issues/4984",
    args=("f32[3,5,6]", "f32[6]", "f32[6]", 2, 0.001),
)
def group_of_powers_of_two(rule, args, dy, right):
    """A group of three channels is padded to four, and its cotangent is scaled for four."""
    channels = args[0].shape[-1] // args[3]
    padded = 1 << max(channels - 1, 0).bit_length()
    return right[0] * (channels / padded), *right[1:]


@wrong_backward("group_norm", "term, order, element", "tenstorrent/tt-metal/pull/56202")
def group_of_another_channel(rule, args, dy, right):
    """The scale's cotangent takes group c mod G where channel c is of group c div (C/G)."""
    x, _, _, groups, eps = args
    n, length, c = x.shape
    grouped = x.reshape(n, length, groups, c // groups)
    mean = jnp.mean(grouped, axis=(1, 3))
    centred = grouped - mean[:, None, :, None]
    scale = jax.lax.rsqrt(jnp.mean(centred * centred, axis=(1, 3)) + eps)
    wrong = jnp.arange(c) % groups
    z = (x - mean[:, None, wrong]) * scale[:, None, wrong]
    return right[0], jnp.sum(dy * z, axis=(0, 1)), right[2]


@wrong_function("batch_norm", "term", "facebookresearch/CrypTen/pull/143")
def constant_statistics(x, gamma, beta, eps):
    """The batch's mean and variance count as constants."""
    mean = jnp.mean(x, axis=0)
    var = jnp.mean((x - mean[None]) ** 2, axis=0)
    still, spread = jax.lax.stop_gradient((mean, var))
    z = (x - still[None]) * jax.lax.rsqrt(spread + eps)[None]
    return gamma[None] * z + beta[None], mean, var


@wrong_backward("rms_norm", "term, element", "karpathy/llm.c/pull/763")
def rms_norm_without_weight(rule, args, dy, right):
    """The cotangent of x is not multiplied by the weight."""
    x, gamma, eps = args
    plain = pullback(rule, rule.primal, [x, jnp.ones_like(gamma), eps], dy)
    return plain[0], right[1]


@wrong_function("rms_norm", "term", "ooples/AiDotNet/pull/695")
def rms_as_constant(x, gamma, eps):
    """The root of the mean square counts as a constant."""
    scale = jax.lax.stop_gradient(jax.lax.rsqrt(row_mean(x * x) + eps))
    return x * scale * jnp.broadcast_to(gamma, x.shape)


@wrong_function(
    "l2_normalize",
    "nan, special value, size, kink, leakage",
    "jax-ml/jax/issues/4177 google/flax/issues/1671",
)
def square_of_the_norm(x, eps):
    """The squared length is the square of the length, which has no derivative where it is zero."""
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(length * length + eps)


# Losses and activations


@wrong_backward("huber", "tail, term, element, kink", "BobMcDear/attorch/issues/13")
def huber_without_size(rule, args, dy, right):
    """The difference itself is compared with the threshold, not its absolute value."""
    prediction, target, delta = args
    dprediction = dy * jnp.minimum(prediction - target, delta)
    return dprediction, -dprediction


@wrong_function(
    "focal_loss", "nan, tail, overflow, cancellation, rounding", "google-deepmind/optax/issues/1267"
)
def focal_power(logits, labels, gamma):
    """(1 - p)^γ goes through the logarithm of 1 - p, which is -∞ once p rounds to one."""
    margin = jnp.where(labels, logits, -logits)
    log_power = gamma * jnp.log(1 - jax.nn.sigmoid(margin))
    return jnp.exp(log_power) * jax.nn.softplus(-margin)


@wrong_function("softplus", "special value, kink", "jax-ml/jax/issues/2140")
def softplus_at_zero(x):
    """max(x, 0) + log(1 + e^-|x|) with a maximum and a modulus that are both flat at zero."""
    return jnp.where(x > 0, x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@wrong_backward(
    "softplus", "tail, term, element", "pytorch/pytorch/issues/61568 pytorch/pytorch/issues/55587"
)
def softplus_threshold(rule, args, dy, right):
    """The derivative goes over to 1 where the value, and not the argument, is above 4."""
    return [jnp.where(rule.primal(*args) > 4, dy, right[0])]


@wrong_function(
    "safe_sqrt", "nan, special value, kink, term, element, leakage", "jax-ml/jax/issues/347"
)
def root_of_negatives(x):
    """The root of all numbers, with a `where` after it: zero times NaN in the derivative."""
    return jnp.where(x > 0, jnp.sqrt(x), 0)


@wrong_function("elu", "nan, overflow, tail", "apache/mxnet/pull/14673")
def elu_exponential(x, alpha):
    """The exponential is not guarded inside the `where`, and its infinity meets a zero."""
    return jnp.where(x > 0, x, alpha * (jnp.exp(x) - 1))


@wrong_backward(
    "elu", "term, tail, element", "pytorch/pytorch/issues/47671", args=("f32[4,3]", -2.0)
)
def elu_from_output(rule, args, dy, right):
    """The sign of x is read off the value, which is positive on both sides if α is negative."""
    x, alpha = args
    y = rule.primal(x, alpha)
    return [jnp.where(y > 0, dy, dy * (y + alpha))]


@wrong_backward(
    "leaky_relu", "term, tail, element", "pytorch/pytorch/issues/31938", args=("f32[4,3]", -2.0)
)
def leaky_relu_from_output(rule, args, dy, right):
    """The sign of x is read off the value, which a negative slope has turned."""
    x, slope = args
    return [jnp.where(rule.primal(x, slope) >= 0, dy, slope * dy)]
