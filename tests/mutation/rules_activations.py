"""Correct rules of elementwise functions: activations, roots and logarithms."""

import math

import jax
import jax.numpy as jnp

from .rule import X, output, vjp_rule

SQRT_2 = math.sqrt(2.0)


vjp_rule(lambda x: jnp.maximum(x, 0), X, saves=output, name="relu_maximum")(
    lambda y, g: jnp.where(y > 0, g, 0)
)
vjp_rule(lambda x: jnp.where(x > 0, x, 0), X, saves=lambda y, x: x > 0, name="relu_where")(
    lambda positive, g: jnp.where(positive, g, 0)
)
vjp_rule(jax.nn.sigmoid, X, saves=output, name="sigmoid")(lambda y, g: g * y * (1 - y))
vjp_rule(jnp.tanh, X, saves=output, name="tanh")(lambda y, g: g * (1 - y) * (1 + y))
# y = log(1 + e^x), so that the sigmoid of x is 1 - e^-y
vjp_rule(lambda x: jnp.logaddexp(x, jnp.zeros_like(x)), X, saves=output, name="softplus")(
    lambda y, g: g * -jnp.expm1(-y)
)
vjp_rule(lambda x: jnp.clip(x, -1, 1), X, saves=lambda y, x: jnp.abs(x) < 1, name="hard_tanh")(
    lambda inside, g: jnp.where(inside, g, 0)
)
vjp_rule(jnp.abs, X, saves=lambda y, x: jnp.sign(x).astype(jnp.int8), name="absolute")(
    lambda sign, g: g * sign.astype(g.dtype)
)
vjp_rule(
    lambda x, slope: jnp.where(x >= 0, x, slope * x),
    X,
    static=(0.1,),
    saves=lambda y, x, slope: x >= 0,
    name="leaky_relu",
)(lambda slope, positive, g: jnp.where(positive, g, slope * g))


@vjp_rule(lambda x: x * jax.nn.sigmoid(x), X)
def silu(x, g):
    s = jax.nn.sigmoid(x)
    return g * s * (1 + x * (1 - s))


GELU_A, GELU_B = math.sqrt(2 / math.pi), 0.044715


@vjp_rule(lambda x: 0.5 * x * (1 + jnp.tanh(GELU_A * (x + GELU_B * x * x * x))), X)
def gelu_tanh(x, g):
    # Beyond ±10 the derivative is 0 or 1 to the last digit, and x² would overflow in the end.
    u = jnp.clip(x, -10, 10)
    t = jnp.tanh(GELU_A * (u + GELU_B * u * u * u))
    slope = GELU_A * (1 + 3 * GELU_B * u * u)
    return g * (0.5 * (1 + t) + 0.5 * u * (1 - t) * (1 + t) * slope)


@vjp_rule(lambda x: 0.5 * x * jax.lax.erfc(-x / SQRT_2), X)
def gelu_erf(x, g):
    cdf = 0.5 * jax.lax.erfc(-x / SQRT_2)
    pdf = jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return g * (cdf + x * pdf)


vjp_rule(
    lambda x, alpha: jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x))),
    X,
    static=(1.5,),
    name="elu",
)(lambda alpha, x, g: jnp.where(x > 0, g, alpha * g * jnp.exp(jnp.where(x > 0, 0, x))))


@vjp_rule(lambda x: x * jnp.tanh(jax.nn.softplus(x)), X)
def mish(x, g):
    t = jnp.tanh(jax.nn.softplus(x))
    return g * (t + x * jax.nn.sigmoid(x) * (1 - t) * (1 + t))


@vjp_rule(lambda x: x / (1 + jnp.abs(x)), X)
def softsign(x, g):
    d = 1 + jnp.abs(x)
    return g / d / d


def safe_sqrt(x):
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


vjp_rule(safe_sqrt, X, saves=output, name="safe_sqrt")(
    lambda y, g: jnp.where(y > 0, 0.5 * g / jnp.where(y > 0, y, 1), 0)
)


def log1mexp(x):
    """log(1 - e^-x) for x > 0, in the form that keeps its digits on either side of log 2."""
    small = x < math.log(2)
    near = jnp.log(-jnp.expm1(-jnp.where(small, x, 1)))
    return jnp.where(small, near, jnp.log1p(-jnp.exp(-jnp.where(small, 1, x))))


vjp_rule(log1mexp, "f32[4,3] in positive", name="log1mexp")(
    lambda x, g: g * (jnp.exp(-x) / -jnp.expm1(-x))
)
vjp_rule(
    lambda x, cap: cap * jnp.tanh(x / cap),
    X,
    static=(2.5,),
    saves=lambda y, x, cap: jnp.tanh(x / cap),
    name="softcap",
)(lambda cap, t, g: g * (1 - t) * (1 + t))


@vjp_rule(lambda gate, value: gate * jax.nn.sigmoid(gate) * value, X, X)
def swiglu(gate, value, g):
    s = jax.nn.sigmoid(gate)
    return g * value * s * (1 + gate * (1 - s)), g * gate * s
