"""Correct rules that are `jax.custom_jvp`, or that look at symbolic zeros."""

import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .rule import X, jvp_rule, vjp_rule, wide


def relu(x):
    return jnp.maximum(x, 0)


@jvp_rule(relu, X)
def relu_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return relu(x), jnp.where(x > 0, dx, 0)


@jvp_rule(lambda x, low, high: jnp.clip(x, low, high), X, static=(-0.5, 1.5))
def clamp_jvp(low, high, primals, tangents):
    (x,), (dx,) = primals, tangents
    return jnp.clip(x, low, high), jnp.where((x > low) & (x < high), dx, 0)


def xlogy(x, y):
    """x log y for positive y, and 0 where x is."""
    return jnp.where(x == 0, 0, x * jnp.log(y))


@jvp_rule(xlogy, X, "f32[4,3] in positive", definition=lambda x, y: x * jnp.log(y))
def xlogy_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return xlogy(x, y), dx * jnp.log(y) + dy * x / y


def safe_log(x):
    """log x, and 0 where x is not positive."""
    positive = x > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, x, 1)), 0)


@jvp_rule(safe_log, X)
def safe_log_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    positive = x > 0
    return safe_log(x), jnp.where(positive, dx / jnp.where(positive, x, 1), 0)


@jvp_rule(lambda a, b: jnp.logaddexp(a, b), X, X)
def logaddexp_jvp(primals, tangents):
    a, b, da, db = wide((*primals, *tangents))
    dy = da * jax.nn.sigmoid(a - b) + db * jax.nn.sigmoid(b - a)
    return jnp.logaddexp(*primals), dy.astype(primals[0].dtype)


def sinc_series(x):
    """sin x / x; near 0, where that has no derivative that can be evaluated, its series."""
    near = jnp.abs(x) < 0.5
    s = jnp.where(near, x, 0) ** 2
    terms = [(-1) ** n / math.factorial(2 * n + 1) for n in range(8)]
    far = jnp.where(near, 1, x)
    return jnp.where(near, _polynomial(terms, s), jnp.sin(far) / far)


def _polynomial(coefficients, s):
    y = jnp.zeros_like(s)
    for c in reversed(coefficients):
        y = y * s + c
    return y


def sinc(x):
    far = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, 1, jnp.sin(far) / far)


@jvp_rule(sinc, X, definition=sinc_series)
def sinc_jvp(primals, tangents):
    """(cos x - sinc x) / x; the difference cancels near 0, where the series has its digits."""
    (x,), (dx,) = primals, tangents
    x_ = wide(x)
    near = jnp.abs(x_) < 0.5
    s = jnp.where(near, x_, 0) ** 2
    series = _polynomial([(-1) ** n * 2 * n / math.factorial(2 * n + 1) for n in range(1, 9)], s)
    far = jnp.where(near, 1, x_)
    slope = jnp.where(near, x_ * series, (jnp.cos(far) - jnp.sin(far) / far) / far)
    return sinc(x), (wide(dx) * slope).astype(x.dtype)


def softmax_columns(x):
    return jax.nn.softmax(x, axis=0)


@jvp_rule(softmax_columns, X)
def softmax_columns_jvp(primals, tangents):
    y = softmax_columns(*primals)
    y_, dx = wide((y, *tangents))
    return y, (y_ * (dx - jnp.sum(y_ * dx, axis=0, keepdims=True))).astype(y.dtype)


def hypotenuse(a, b):
    """√(a² + b²), scaled against overflow; the derivative at the origin is 0."""
    size = jax.lax.stop_gradient(jnp.maximum(jnp.abs(a), jnp.abs(b)))
    size = jnp.where(size == 0, 1, size)
    s = (a / size) ** 2 + (b / size) ** 2
    return size * jnp.where(s == 0, 0, jnp.sqrt(jnp.where(s == 0, 1, s)))


@jvp_rule(hypotenuse, X, X)
def hypotenuse_jvp(primals, tangents):
    y = hypotenuse(*primals)
    a, b, da, db = wide((*primals, *tangents))
    y_ = jnp.where(y == 0, 1, wide(y))
    return y, (da * (a / y_) + db * (b / y_)).astype(y.dtype)


def lean_dense_fwd(x, w):
    # Each factor is a residual only for the cotangent of the other.
    return x.value @ w.value, (
        x.value if w.perturbed else None,
        w.value if x.perturbed else None,
    )


@vjp_rule(lambda x, w: x @ w, X, "f32[3,5]", fwd=lean_dense_fwd, symbolic_zeros=True)
def lean_dense(x, w, g):
    if isinstance(g, SymbolicZero):
        return None, None
    return None if w is None else g @ w.T, None if x is None else x.T @ g


def sin_cos(x):
    return jnp.sin(x), jnp.cos(x)


@vjp_rule(sin_cos, X, fwd=lambda x: (sin_cos(x.value), sin_cos(x.value)), symbolic_zeros=True)
def sin_cos_bwd(sin, cos, cotangents):
    dsin, dcos = cotangents
    dx = jnp.zeros_like(sin) if isinstance(dsin, SymbolicZero) else dsin * cos
    return dx if isinstance(dcos, SymbolicZero) else dx - dcos * sin
