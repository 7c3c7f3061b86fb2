"""Faults of one rule each: linear algebra, complex numbers, tangents, symbolic zeros."""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .operator import with_bwd
from .operators_bugs import only, rewritten
from .rule import Rule


@only(
    "cholesky",
    "term",
    "order",
    "element",
    bug="https://github.com/pytorch/pytorch/issues/18825",
)
def lower_half_only(rule: Rule) -> Rule:
    """The cotangent of a symmetric matrix is a triangle that holds both halves.

    Rebuilt from https://github.com/pytorch/pytorch/issues/18825.
    """

    def backward(args, dy, right):
        (da,) = right
        return [jnp.tril(da) + jnp.tril(da, -1)]

    return rewritten(rule, backward)


@only(
    "triangular_solve",
    "term",
    "element",
    bug="https://github.com/jax-ml/jax/issues/40421",
)
def ghost_gradient(rule: Rule) -> Rule:
    """The half of the matrix that is never read gets a cotangent all the same.

    After https://github.com/jax-ml/jax/issues/40421, where a Cholesky factorisation gave one to
    the half that it ignores.
    """

    def backward(args, dy, right):
        factor, b = args
        x = rule.primal(factor, b)
        return -right[1] @ jnp.swapaxes(x, -1, -2), right[1]

    return rewritten(rule, backward)


@only(
    "solve triangular_solve",
    "term",
    "factor",
    bug="https://github.com/tensor4all/tenferro-rs/issues/772",
)
def constant_matrix(rule: Rule) -> Rule:
    """The matrix of a linear system is taken for a constant.

    Rebuilt from https://github.com/tensor4all/tenferro-rs/issues/772.
    """
    return rewritten(rule, lambda args, dy, right: (jnp.zeros_like(args[0]), right[1]))


@only(
    "quadratic_form",
    "term",
    "factor",
    "element",
    bug="https://github.com/graphdeco-inria/gaussian-splatting/issues/551",
)
def half_of_the_cross_terms(rule: Rule) -> Rule:
    """The products of two different coordinates count half.

    Rebuilt from https://github.com/graphdeco-inria/gaussian-splatting/issues/551: the exponent of
    a Gaussian, whose mixed coefficient was differentiated as if it stood on the diagonal.
    """

    def backward(args, dy, right):
        x, a = args
        own = 2 * jnp.diagonal(a) * x * dy
        return own + 0.5 * (right[0] - own), right[1]

    return rewritten(rule, backward)


@only(
    "power_spectrum",
    "term",
    "order",
    "element",
    bug="https://github.com/tensorflow/tensorflow/issues/4859",
)
def spectrum_not_conjugated(rule: Rule) -> Rule:
    """A complex factor of the derivative is not conjugated.

    After https://github.com/tensorflow/tensorflow/issues/4859, a product of complex matrices.
    """

    def backward(args, dy, right):
        (x,) = args
        spectrum = jnp.fft.fft(x, axis=-1)
        dx = 2 * jnp.fft.fft(dy.astype(spectrum.dtype) * spectrum, axis=-1).real
        return [dx.astype(x.dtype)]

    return rewritten(rule, backward)


@only("equilibrium kepler", "term", "factor", "element")
def one_step_gradient(rule: Rule) -> Rule:
    """Only the last step of an iteration is differentiated, and not the equation it solves."""

    def backward(args, dy, right):
        if rule.name == "equilibrium":
            z = rule.primal(*args)
            dx = (1 - z * z) * dy
            return dx[:, None] * z[None, :], dx
        return dy, jnp.sin(rule.primal(*args)) * dy

    return rewritten(rule, backward)


# Tangents


def _tangent(rule, change):
    """Return a jvp rule with `change(primals, tangents, right)` for its tangent."""
    static = len(rule.nondiff_argnums)

    def jvp(*call):
        y, dy = rule.jvp(*call)
        return y, change(*call[static:], dy)

    return rule.replace(jvp=jvp)


@only(
    "sinc_jvp",
    "second order",
    "special value",
    bug="https://github.com/jax-ml/jax/issues/5054",
)
def flat_at_zero(rule: Rule) -> Rule:
    """The first derivative at zero is the constant 0: right, and not to be differentiated.

    Rebuilt from https://github.com/jax-ml/jax/issues/5054.
    """
    return _tangent(rule, lambda primals, tangents, dy: jnp.where(primals[0] == 0, 0, dy))


@only(
    "sinc_jvp",
    "cancellation",
    "rounding",
    "second order",
    "special value",
    "tail",
    "term",
    bug="https://github.com/jax-ml/jax/issues/34139",
)
def sinc_cancels(rule: Rule) -> Rule:
    """(cos x - sinc x)/x is used down to zero, where the difference keeps no digit.

    Rebuilt from https://github.com/jax-ml/jax/issues/34139.
    """

    def change(primals, tangents, dy):
        (x,) = primals
        far = jnp.where(x == 0, 1, x)
        slope = (jnp.cos(far) - jnp.sin(far) / far) / far
        return tangents[0] * jnp.where(x == 0, 0, slope)

    return _tangent(rule, change)


@only(
    "hypotenuse_jvp",
    "overflow",
    "nan",
    "tail",
    "special value",
    "kink",
    bug="https://github.com/apache/mxnet/issues/11403",
)
def squares_overflow(rule: Rule) -> Rule:
    """The length is the root of a sum of squares, which overflows before the length does.

    After https://github.com/apache/mxnet/issues/11403.
    """

    def change(primals, tangents, dy):
        (a, b), (da, db) = primals, tangents
        length = jnp.sqrt(a * a + b * b)
        return da * (a / length) + db * (b / length)

    return _tangent(rule, change)


@only("logaddexp_jvp", "overflow", "nan", "tail")
def exponentials_overflow(rule: Rule) -> Rule:
    """The weights are quotients of exponentials that are not shifted by the larger argument."""

    def change(primals, tangents, dy):
        (a, b), (da, db) = primals, tangents
        total = jnp.exp(a) + jnp.exp(b)
        return da * (jnp.exp(a) / total) + db * (jnp.exp(b) / total)

    return _tangent(rule, change)


@only(
    "safe_log_jvp",
    "nan",
    "special value",
    "kink",
    bug="https://github.com/jax-ml/jax/issues/5798",
)
def masked_quotient(rule: Rule) -> Rule:
    """The tangent is zeroed after the division: zero by zero at zero.

    After https://github.com/jax-ml/jax/issues/5798.
    """

    def change(primals, tangents, dy):
        (x,), (dx,) = primals, tangents
        return jnp.where(x > 0, dx, 0) / x

    return _tangent(rule, change)


# Symbolic zeros


@only("sin_cos", "unperturbed", "ignored output", "term")
def one_zero_is_all(rule: Rule) -> Rule:
    """A symbolic zero for one output is taken to mean that there is nothing to do."""

    def around(bwd, residuals, cotangents):
        if any(isinstance(a, SymbolicZero) for a in cotangents):
            return (None,)
        return bwd(residuals, cotangents)

    return with_bwd(rule, around)


@only("lean_dense", "unperturbed", "term", "factor")
def wrong_flag(rule: Rule) -> Rule:
    """Each factor is kept if it is perturbed itself, and not if the other is."""

    def fwd(x, w):
        kept_x = x.value if x.perturbed else None
        kept_w = w.value if w.perturbed else None
        return x.value @ w.value, (kept_x, kept_w)

    return rule.replace(fwd=fwd)


@only("relu_jvp clamp_jvp", "kink", "special value")
def open_on_both_sides(rule: Rule) -> Rule:
    """The derivative at the kink is that of both sides together."""

    def change(primals, tangents, dy):
        low = 0.0 if rule.name == "relu_jvp" else rule.args[1]
        at = jax.lax.stop_gradient(primals[0]) == low
        return jnp.where(at, 2 * tangents[0], dy)

    return _tangent(rule, change)
