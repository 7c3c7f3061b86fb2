"""Faults of one rule each: windows, attention, lookups, recurrences; algebra, tangents, zeros."""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .bugs import only, pullback, wrong_backward, wrong_function, wrong_tangent
from .operator import with_bwd
from .rules_windows import window_sums

# Convolution and pooling


@wrong_backward(
    "conv2d",
    "geometry, size, order, term",
    "flagos-ai/FlagGems/pull/1576 torch/DEPRECEATED-torch7-distro/issues/20",
)
def convolution_remainder(rule, args, dy, right):
    """Where the stride leaves a remainder, the cotangent is shifted by it."""
    x, w, strides, padding = args
    dx = right[0]
    spatial = x.shape[1:-1]
    pads = jax.lax.padtype_to_pads(spatial, w.shape[:-2], strides, padding)
    for axis, (size, taps, stride, pad) in enumerate(zip(spatial, w.shape, strides, pads)):
        dx = jnp.roll(dx, (size + sum(pad) - taps) % stride, axis=axis + 1)
    return dx, right[1]


@wrong_backward("max_pool", "geometry, order, term", "FluxML/NNlib.jl/issues/133")
def pool_remainder(rule, args, dy, right):
    """The elements that no window covers are skipped at the start instead of the end."""
    x, size = args
    return [jnp.roll(right[0], (x.shape[1] % size, x.shape[2] % size), axis=(1, 2))]


@wrong_backward("max_pool", "kink", "tensorflow/tensorflow/issues/4886")
def pool_every_tie(rule, args, dy, right):
    """Each of several equal maxima of a window gets the whole cotangent."""
    x, size = args
    y = rule.primal(x, size)
    reach = (y.shape[1] * size, y.shape[2] * size)
    spread = lambda a: jnp.repeat(jnp.repeat(a, size, axis=1), size, axis=2)  # noqa: E731
    inside = x[:, : reach[0], : reach[1]]
    dx = jnp.where(inside == spread(y), spread(dy), 0)
    return [jnp.zeros_like(x).at[:, : reach[0], : reach[1]].set(dx)]


@wrong_function("avg_pool", "term, element, geometry", "tracel-ai/burn/issues/5450")
def pool_counts_padding(x, size, stride):
    """The cotangent is divided by the size of the window, padding included."""
    return window_sums(x, size, stride)[0] / (size * size)


# Attention


@wrong_function(
    "attention", "nan, size, special value, leakage, geometry", "pytorch/pytorch/issues/41508"
)
def softmax_of_nothing(q, k, v, mask):
    """A row that is masked entirely is a softmax of minus infinities: no number, for all."""
    scores = jnp.einsum("htd,hsd->hts", q, k) * q.shape[-1] ** -0.5
    p = jax.nn.softmax(jnp.where(mask[None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("hts,hsd->htd", p, v)


@only("attention causal_attention flash_attention", "factor")
def scale_forgotten(rule):
    """The cotangents of queries and keys are not divided by the root of the width."""

    def around(bwd, residuals, dy):
        dq, dk, *others = bwd(residuals, dy)
        root = dq.shape[-1] ** 0.5
        return (root * dq, root * dk, *others)

    return with_bwd(rule, around)


@wrong_backward("rotary", "term, order, sign, element")
def turned_again(rule, args, dy, right):
    """The cotangent is turned by the angle once more and not back."""
    _, positions, base = args
    return rule.primal(dy, positions, base), None


# Lookups and ties


@wrong_backward("minimum_columns", "kink", "Theano/Theano/issues/4568 pytorch/pytorch/issues/41779")
def every_tie_wins(rule, args, dy, right):
    """Each of several equal minima gets the whole cotangent."""
    (x,) = args
    return [jnp.where(x == rule.primal(x)[None], dy[None], 0)]


@wrong_function("masked_mean", "nan, size, special value, leakage")
def mean_of_nothing(x, mask):
    """A row without any element is zero times NaN: the mask multiplies, and divides by none."""
    weight = mask.astype(x.dtype)
    return jnp.sum(x * weight, axis=-1) / jnp.sum(weight, axis=-1)


# Recurrences


@wrong_backward(
    "linear_recurrence",
    "nan, special value, cancellation, rounding, overflow, tail",
    "tracel-ai/burn/issues/3864",
)
def state_by_division(rule, args, dy, right):
    """The state before a step is recovered from the one after it, by a division by the decay."""
    a, b, h0 = args
    before = (rule.primal(a, b, h0) - b) / a
    return right[1] * before, *right[1:]


# Random numbers


@wrong_backward("dropout", "term, element, order", "pytorch/pytorch/issues/190758")
def another_mask(rule, args, dy, right):
    """The backward pass derives another key, and with it another mask."""
    key, x, rate = args
    return pullback(rule, rule.primal, [jax.random.fold_in(key, 1), x, rate], dy)


@wrong_backward("reparameterize", "term, factor", "google-deepmind/optax/issues/1308")
def scaled_by_deviation(rule, args, dy, right):
    """The cotangent of the mean is multiplied by the standard deviation."""
    return None, right[1] * jnp.exp(args[2]), right[2]


# Linear algebra and complex numbers


@wrong_backward("cholesky", "term, order, element", "pytorch/pytorch/issues/18825")
def lower_half_only(rule, args, dy, right):
    """The cotangent of a symmetric matrix is a triangle that holds both halves."""
    (da,) = right
    return [jnp.tril(da) + jnp.tril(da, -1)]


@wrong_backward("triangular_solve", "term, element", "jax-ml/jax/issues/40421")
def ghost_gradient(rule, args, dy, right):
    """The half of the matrix that is never read gets a cotangent all the same."""
    x = rule.primal(*args)
    return -right[1] @ jnp.swapaxes(x, -1, -2), right[1]


@wrong_backward("solve triangular_solve", "term, factor", "tensor4all/tenferro-rs/issues/772")
def constant_matrix(rule, args, dy, right):
    """The matrix of a linear system counts as a constant."""
    return jnp.zeros_like(args[0]), right[1]


@wrong_backward(
    "quadratic_form", "term, factor, element", "graphdeco-inria/gaussian-splatting/issues/551"
)
def half_of_the_cross_terms(rule, args, dy, right):
    """The products of two different coordinates count half."""
    x, a = args
    own = 2 * jnp.diagonal(a) * x * dy
    return own + 0.5 * (right[0] - own), right[1]


@wrong_backward("power_spectrum", "term, order, element", "tensorflow/tensorflow/issues/4859")
def spectrum_not_conjugated(rule, args, dy, right):
    """A complex factor of the derivative is not conjugated."""
    (x,) = args
    spectrum = jnp.fft.fft(x, axis=-1)
    dx = 2 * jnp.fft.fft(dy.astype(spectrum.dtype) * spectrum, axis=-1).real
    return [dx.astype(x.dtype)]


@wrong_backward("equilibrium kepler", "term, factor, element")
def one_step_gradient(rule, args, dy, right):
    """Only the last step of an iteration is differentiated, and not the equation it solves."""
    solution = rule.primal(*args)
    if rule.name == "kepler":
        return dy, jnp.sin(solution) * dy
    dx = (1 - solution * solution) * dy
    return dx[:, None] * solution[None, :], dx


# Tangents


@wrong_tangent("sinc_jvp", "second order, special value", "jax-ml/jax/issues/5054")
def flat_at_zero(rule, primals, tangents, dy):
    """The first derivative at zero is the constant 0: right, and not to be differentiated."""
    return jnp.where(primals[0] == 0, 0, dy)


@wrong_tangent(
    "sinc_jvp",
    "cancellation, rounding, second order, special value, tail, term",
    "jax-ml/jax/issues/34139",
)
def sinc_cancels(rule, primals, tangents, dy):
    """(cos x - sinc x)/x is used down to zero, where the difference keeps no digit."""
    (x,) = primals
    far = jnp.where(x == 0, 1, x)
    slope = (jnp.cos(far) - jnp.sin(far) / far) / far
    return tangents[0] * jnp.where(x == 0, 0, slope)


@wrong_tangent(
    "hypotenuse_jvp", "overflow, nan, tail, special value, kink", "apache/mxnet/issues/11403"
)
def squares_overflow(rule, primals, tangents, dy):
    """The length is the root of a sum of squares, which overflows before the length does."""
    (a, b), (da, db) = primals, tangents
    length = jnp.sqrt(a * a + b * b)
    return da * (a / length) + db * (b / length)


@wrong_tangent("logaddexp_jvp", "overflow, nan, tail")
def exponentials_overflow(rule, primals, tangents, dy):
    """The weights are quotients of exponentials that are not shifted by the larger argument."""
    (a, b), (da, db) = primals, tangents
    total = jnp.exp(a) + jnp.exp(b)
    return da * (jnp.exp(a) / total) + db * (jnp.exp(b) / total)


@wrong_tangent("safe_log_jvp", "nan, special value, kink", "jax-ml/jax/issues/5798")
def masked_quotient(rule, primals, tangents, dy):
    """The tangent is zeroed after the division: zero by zero at zero."""
    (x,), (dx,) = primals, tangents
    return jnp.where(x > 0, dx, 0) / x


@wrong_tangent("relu_jvp clamp_jvp", "kink, special value")
def open_on_both_sides(rule, primals, tangents, dy):
    """The derivative at the kink is that of both sides together."""
    low = 0.0 if rule.name == "relu_jvp" else rule.args[1]
    kink = jax.lax.stop_gradient(primals[0]) == low
    return jnp.where(kink, 2 * tangents[0], dy)


# Symbolic zeros


@only("sin_cos", "unperturbed, ignored output, term")
def one_zero_is_all(rule):
    """A symbolic zero for one output makes the whole cotangent zero."""

    def around(bwd, residuals, cotangents):
        if any(isinstance(a, SymbolicZero) for a in cotangents):
            return (None,)
        return bwd(residuals, cotangents)

    return with_bwd(rule, around)


@only("lean_dense", "unperturbed, term, factor")
def wrong_flag(rule):
    """Each factor is saved if it is perturbed itself, and not if the other is."""

    def fwd(x, w):
        return x.value @ w.value, (
            x.value if x.perturbed else None,
            w.value if w.perturbed else None,
        )

    return rule.replace(fwd=fwd)
