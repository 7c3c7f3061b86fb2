"""Faults of one rule each: linear algebra, complex numbers, tangents, symbolic zeros."""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .bugs import only, wrong_backward, wrong_tangent
from .operator import with_bwd


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
    """The matrix of a linear system is taken for a constant."""
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
    """A symbolic zero for one output is taken to mean that there is nothing to do."""

    def around(bwd, residuals, cotangents):
        if any(isinstance(a, SymbolicZero) for a in cotangents):
            return (None,)
        return bwd(residuals, cotangents)

    return with_bwd(rule, around)


@only("lean_dense", "unperturbed, term, factor")
def wrong_flag(rule):
    """Each factor is kept if it is perturbed itself, and not if the other is."""

    def fwd(x, w):
        kept_x = x.value if x.perturbed else None
        kept_w = w.value if w.perturbed else None
        return x.value @ w.value, (kept_x, kept_w)

    return rule.replace(fwd=fwd)
