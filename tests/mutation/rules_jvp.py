"""Correct rules that are `jax.custom_jvp`, or that look at symbolic zeros."""

import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .rule import Rule
from .rules_shared import wide


def relu(x):
    return jnp.maximum(x, 0)


def relu_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return relu(x), jnp.where(x > 0, dx, 0)


def clamp(x, low, high):
    return jnp.clip(x, low, high)


def clamp_jvp(low, high, primals, tangents):
    (x,), (dx,) = primals, tangents
    return clamp(x, low, high), jnp.where((x > low) & (x < high), dx, 0)


def xlogy(x, y):
    """x log y for positive y, and 0 where x is."""
    return jnp.where(x == 0, 0, x * jnp.log(y))


def xlogy_smooth(x, y):
    return x * jnp.log(y)


def xlogy_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return xlogy(x, y), dx * jnp.log(y) + dy * x / y


def safe_log(x):
    """log x, and 0 where x is not positive."""
    positive = x > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, x, 1)), 0)


def safe_log_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    positive = x > 0
    return safe_log(x), jnp.where(positive, dx / jnp.where(positive, x, 1), 0)


def logaddexp(a, b):
    return jnp.logaddexp(a, b)


def logaddexp_jvp(primals, tangents):
    (a, b), (da, db) = primals, tangents
    share = jax.nn.sigmoid(wide(a) - wide(b))
    dy = wide(da) * share + wide(db) * jax.nn.sigmoid(wide(b) - wide(a))
    return logaddexp(a, b), dy.astype(a.dtype)


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


def softmax_columns_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    y = softmax_columns(x)
    y_, dx_ = wide(y), wide(dx)
    return y, (y_ * (dx_ - jnp.sum(y_ * dx_, axis=0, keepdims=True))).astype(y.dtype)


def hypotenuse(a, b):
    """√(a² + b²), scaled against overflow; the derivative at the origin is 0."""
    size = jax.lax.stop_gradient(jnp.maximum(jnp.abs(a), jnp.abs(b)))
    size = jnp.where(size == 0, 1, size)
    s = (a / size) ** 2 + (b / size) ** 2
    return size * jnp.where(s == 0, 0, jnp.sqrt(jnp.where(s == 0, 1, s)))


def hypotenuse_jvp(primals, tangents):
    (a, b), (da, db) = primals, tangents
    y = hypotenuse(a, b)
    y_ = jnp.where(y == 0, 1, wide(y))
    dy = wide(da) * (wide(a) / y_) + wide(db) * (wide(b) / y_)
    return y, dy.astype(y.dtype)


def lean_dense(x, w):
    return x @ w


def lean_dense_fwd(x, w):
    # Either factor is kept only for the sake of the other's cotangent.
    kept_w = w.value if x.perturbed else None
    kept_x = x.value if w.perturbed else None
    return x.value @ w.value, (kept_x, kept_w)


def lean_dense_bwd(residuals, g):
    x, w = residuals
    if isinstance(g, SymbolicZero):
        return None, None
    dx = None if w is None else (wide(g) @ wide(w).T).astype(g.dtype)
    dw = None if x is None else (wide(x).T @ wide(g)).astype(g.dtype)
    return dx, dw


def sin_cos(x):
    return jnp.sin(x), jnp.cos(x)


def sin_cos_fwd(x):
    return sin_cos(x.value), sin_cos(x.value)


def sin_cos_bwd(residuals, cotangents):
    sin, cos = residuals
    dsin, dcos = cotangents
    dx = jnp.zeros_like(sin) if isinstance(dsin, SymbolicZero) else dsin * cos
    return (dx if isinstance(dcos, SymbolicZero) else dx - dcos * sin,)


RULES = [
    Rule("relu_jvp", relu, ("f32[4,3]",), jvp=relu_jvp),
    Rule("clamp_jvp", clamp, ("f32[4,3]", -0.5, 1.5), jvp=clamp_jvp, nondiff_argnums=(1, 2)),
    Rule(
        "xlogy_jvp",
        xlogy,
        ("f32[4,3]", "f32[4,3] in positive"),
        jvp=xlogy_jvp,
        definition=xlogy_smooth,
    ),
    Rule("safe_log_jvp", safe_log, ("f32[4,3]",), jvp=safe_log_jvp),
    Rule("logaddexp_jvp", logaddexp, ("f32[4,3]", "f32[4,3]"), jvp=logaddexp_jvp),
    Rule("sinc_jvp", sinc, ("f32[4,3]",), jvp=sinc_jvp, definition=sinc_series),
    Rule("softmax_columns_jvp", softmax_columns, ("f32[4,3]",), jvp=softmax_columns_jvp),
    Rule("hypotenuse_jvp", hypotenuse, ("f32[4,3]", "f32[4,3]"), jvp=hypotenuse_jvp),
    Rule(
        "lean_dense",
        lean_dense,
        ("f32[4,3]", "f32[3,5]"),
        lean_dense_fwd,
        lean_dense_bwd,
        symbolic_zeros=True,
    ),
    Rule("sin_cos", sin_cos, ("f32[4,3]",), sin_cos_fwd, sin_cos_bwd, symbolic_zeros=True),
]
