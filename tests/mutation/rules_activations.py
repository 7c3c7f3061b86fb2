"""Correct rules of elementwise functions: activations, roots and logarithms."""

import math

import jax
import jax.numpy as jnp

from .rule import vjp_rule

SQRT_2 = math.sqrt(2.0)


@vjp_rule(lambda x: jnp.maximum(x, 0), "f32[4,3]", saves=lambda y, x: y)
def relu_maximum(y, g):
    return jnp.where(y > 0, g, 0)


@vjp_rule(lambda x: jnp.where(x > 0, x, 0), "f32[4,3]", saves=lambda y, x: x > 0)
def relu_where(positive, g):
    return jnp.where(positive, g, 0)


@vjp_rule(
    lambda x, slope: jnp.where(x >= 0, x, slope * x),
    "f32[4,3]",
    static=(0.1,),
    saves=lambda y, x, slope: x >= 0,
)
def leaky_relu(slope, positive, g):
    return jnp.where(positive, g, slope * g)


@vjp_rule(jax.nn.sigmoid, "f32[4,3]", saves=lambda y, x: y)
def sigmoid(y, g):
    return g * y * (1 - y)


@vjp_rule(jnp.tanh, "f32[4,3]", saves=lambda y, x: y)
def tanh(y, g):
    return g * (1 - y) * (1 + y)


@vjp_rule(lambda x: jnp.logaddexp(x, jnp.zeros_like(x)), "f32[4,3]", saves=lambda y, x: y)
def softplus(y, g):
    return g * -jnp.expm1(-y)  # y = log(1 + e^x), so that the sigmoid of x is 1 - e^-y


@vjp_rule(lambda x: x * jax.nn.sigmoid(x), "f32[4,3]")
def silu(x, g):
    s = jax.nn.sigmoid(x)
    return g * s * (1 + x * (1 - s))


GELU_A, GELU_B = math.sqrt(2 / math.pi), 0.044715


@vjp_rule(lambda x: 0.5 * x * (1 + jnp.tanh(GELU_A * (x + GELU_B * x * x * x))), "f32[4,3]")
def gelu_tanh(x, g):
    # Beyond ±10 the derivative is 0 or 1 to the last digit, and x² would overflow in the end.
    u = jnp.clip(x, -10, 10)
    t = jnp.tanh(GELU_A * (u + GELU_B * u * u * u))
    slope = GELU_A * (1 + 3 * GELU_B * u * u)
    return g * (0.5 * (1 + t) + 0.5 * u * (1 - t) * (1 + t) * slope)


@vjp_rule(lambda x: 0.5 * x * jax.lax.erfc(-x / SQRT_2), "f32[4,3]")
def gelu_erf(x, g):
    cdf = 0.5 * jax.lax.erfc(-x / SQRT_2)
    pdf = jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return g * (cdf + x * pdf)


def elu(x, alpha):
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x)))


@vjp_rule(elu, "f32[4,3]", static=(1.5,))
def elu_bwd(alpha, x, g):
    return jnp.where(x > 0, g, alpha * g * jnp.exp(jnp.where(x > 0, 0, x)))


@vjp_rule(lambda x: x * jnp.tanh(jax.nn.softplus(x)), "f32[4,3]")
def mish(x, g):
    t = jnp.tanh(jax.nn.softplus(x))
    return g * (t + x * jax.nn.sigmoid(x) * (1 - t) * (1 + t))


@vjp_rule(lambda x: x / (1 + jnp.abs(x)), "f32[4,3]")
def softsign(x, g):
    d = 1 + jnp.abs(x)
    return g / d / d


@vjp_rule(lambda x: jnp.clip(x, -1, 1), "f32[4,3]", saves=lambda y, x: jnp.abs(x) < 1)
def hard_tanh(inside, g):
    return jnp.where(inside, g, 0)


@vjp_rule(jnp.abs, "f32[4,3]", saves=lambda y, x: jnp.sign(x).astype(jnp.int8))
def absolute(sign, g):
    return g * sign.astype(g.dtype)


def safe_sqrt(x):
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


@vjp_rule(safe_sqrt, "f32[4,3]", saves=lambda y, x: y)
def safe_sqrt_bwd(y, g):
    return jnp.where(y > 0, 0.5 * g / jnp.where(y > 0, y, 1), 0)


def log1mexp(x):
    """log(1 - e^-x) for x > 0, in the form that keeps its digits on either side of log 2."""
    small = x < math.log(2)
    near = jnp.log(-jnp.expm1(-jnp.where(small, x, 1)))
    return jnp.where(small, near, jnp.log1p(-jnp.exp(-jnp.where(small, 1, x))))


@vjp_rule(log1mexp, "f32[4,3] in positive")
def log1mexp_bwd(x, g):
    return g * (jnp.exp(-x) / -jnp.expm1(-x))


@vjp_rule(
    lambda x, cap: cap * jnp.tanh(x / cap),
    "f32[4,3]",
    static=(2.5,),
    saves=lambda y, x, cap: jnp.tanh(x / cap),
)
def softcap(cap, t, g):
    return g * (1 - t) * (1 + t)


@vjp_rule(lambda gate, value: gate * jax.nn.sigmoid(gate) * value, "f32[4,3]", "f32[4,3]")
def swiglu(gate, value, g):
    s = jax.nn.sigmoid(gate)
    return g * value * s * (1 + gate * (1 - s)), g * gate * s
