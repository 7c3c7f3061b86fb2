"""Correct rules of elementwise functions: activations, roots and logarithms."""

import math

import jax
import jax.numpy as jnp

from .rule import Rule
from .rules_shared import wide

SQRT_2 = math.sqrt(2.0)


def relu_maximum(x):
    return jnp.maximum(x, 0)


def relu_maximum_fwd(x):
    y = jnp.maximum(x, 0)
    return y, y


def relu_maximum_bwd(y, g):
    return (jnp.where(y > 0, g, 0),)


def relu_where(x):
    return jnp.where(x > 0, x, 0)


def relu_where_fwd(x):
    positive = x > 0
    return jnp.where(positive, x, 0), positive


def relu_where_bwd(positive, g):
    return (jnp.where(positive, g, 0),)


def leaky_relu(x, slope):
    return jnp.where(x >= 0, x, slope * x)


def leaky_relu_fwd(x, slope):
    return leaky_relu(x, slope), x >= 0


def leaky_relu_bwd(slope, positive, g):
    return (jnp.where(positive, g, slope * g),)


def sigmoid_fwd(x):
    y = jax.nn.sigmoid(x)
    return y, y


def sigmoid_bwd(y, g):
    y_, g_ = wide(y), wide(g)
    return ((g_ * y_ * (1 - y_)).astype(y.dtype),)


def tanh_fwd(x):
    y = jnp.tanh(x)
    return y, y


def tanh_bwd(y, g):
    y_, g_ = wide(y), wide(g)
    return ((g_ * (1 - y_) * (1 + y_)).astype(y.dtype),)


def softplus(x):
    return jnp.logaddexp(x, jnp.zeros_like(x))


def softplus_fwd(x):
    y = softplus(x)
    return y, y


def softplus_bwd(y, g):
    # y = log(1 + e^x), so that the sigmoid of x is 1 - e^-y.
    return ((wide(g) * -jnp.expm1(-wide(y))).astype(y.dtype),)


def silu(x):
    return x * jax.nn.sigmoid(x)


def silu_fwd(x):
    return silu(x), x


def silu_bwd(x, g):
    x_ = wide(x)
    s = jax.nn.sigmoid(x_)
    return ((wide(g) * s * (1 + x_ * (1 - s))).astype(x.dtype),)


GELU_A, GELU_B = math.sqrt(2 / math.pi), 0.044715


def gelu_tanh(x):
    return 0.5 * x * (1 + jnp.tanh(GELU_A * (x + GELU_B * x * x * x)))


def gelu_tanh_fwd(x):
    return gelu_tanh(x), x


def gelu_tanh_bwd(x, g):
    # Beyond ±10 the derivative is 0 or 1 to the last digit, and x² would overflow in the end.
    u = jnp.clip(wide(x), -10, 10)
    t = jnp.tanh(GELU_A * (u + GELU_B * u * u * u))
    slope = GELU_A * (1 + 3 * GELU_B * u * u)
    dx = 0.5 * (1 + t) + 0.5 * u * (1 - t) * (1 + t) * slope
    return ((wide(g) * dx).astype(x.dtype),)


def gelu_erf(x):
    return 0.5 * x * jax.lax.erfc(-x / SQRT_2)


def gelu_erf_fwd(x):
    return gelu_erf(x), x


def gelu_erf_bwd(x, g):
    x_ = wide(x)
    cdf = 0.5 * jax.lax.erfc(-x_ / SQRT_2)
    pdf = jnp.exp(-0.5 * x_ * x_) / math.sqrt(2 * math.pi)
    return ((wide(g) * (cdf + x_ * pdf)).astype(x.dtype),)


def elu(x, alpha):
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x)))


def elu_fwd(x, alpha):
    return elu(x, alpha), x


def elu_bwd(alpha, x, g):
    return (jnp.where(x > 0, g, alpha * g * jnp.exp(jnp.where(x > 0, 0, x))),)


def mish(x):
    return x * jnp.tanh(jax.nn.softplus(x))


def mish_fwd(x):
    return mish(x), x


def mish_bwd(x, g):
    x_ = wide(x)
    t = jnp.tanh(jax.nn.softplus(x_))
    return ((wide(g) * (t + x_ * jax.nn.sigmoid(x_) * (1 - t) * (1 + t))).astype(x.dtype),)


def softsign(x):
    return x / (1 + jnp.abs(x))


def softsign_fwd(x):
    return softsign(x), x


def softsign_bwd(x, g):
    d = 1 + jnp.abs(wide(x))
    return ((wide(g) / d / d).astype(x.dtype),)


def hard_tanh(x):
    return jnp.clip(x, -1, 1)


def hard_tanh_fwd(x):
    return hard_tanh(x), jnp.abs(x) < 1


def hard_tanh_bwd(inside, g):
    return (jnp.where(inside, g, 0),)


def absolute_fwd(x):
    return jnp.abs(x), jnp.sign(x).astype(jnp.int8)


def absolute_bwd(sign, g):
    return (g * sign.astype(g.dtype),)


def safe_sqrt(x):
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def safe_sqrt_fwd(x):
    y = safe_sqrt(x)
    return y, y


def safe_sqrt_bwd(y, g):
    return (jnp.where(y > 0, 0.5 * g / jnp.where(y > 0, y, 1), 0),)


def log1mexp(x):
    """log(1 - e^-x) for x > 0, in the form that keeps its digits on either side of log 2."""
    small = x < math.log(2)
    near = jnp.log(-jnp.expm1(-jnp.where(small, x, 1)))
    return jnp.where(small, near, jnp.log1p(-jnp.exp(-jnp.where(small, 1, x))))


def log1mexp_fwd(x):
    return log1mexp(x), x


def log1mexp_bwd(x, g):
    x_ = wide(x)
    return ((wide(g) * (jnp.exp(-x_) / -jnp.expm1(-x_))).astype(x.dtype),)


def softcap(x, cap):
    return cap * jnp.tanh(x / cap)


def softcap_fwd(x, cap):
    t = jnp.tanh(x / cap)
    return cap * t, t


def softcap_bwd(cap, t, g):
    t_ = wide(t)
    return ((wide(g) * (1 - t_) * (1 + t_)).astype(t.dtype),)


def swiglu(gate, value):
    return gate * jax.nn.sigmoid(gate) * value


def swiglu_fwd(gate, value):
    return swiglu(gate, value), (gate, value)


def swiglu_bwd(residuals, g):
    gate, value = map(wide, residuals)
    s = jax.nn.sigmoid(gate)
    dgate = wide(g) * value * s * (1 + gate * (1 - s))
    dvalue = wide(g) * gate * s
    return dgate.astype(g.dtype), dvalue.astype(g.dtype)


RULES = [
    Rule("relu_maximum", relu_maximum, ("f32[4,3]",), relu_maximum_fwd, relu_maximum_bwd),
    Rule("relu_where", relu_where, ("f32[4,3]",), relu_where_fwd, relu_where_bwd),
    Rule("leaky_relu", leaky_relu, ("f32[4,3]", 0.1), leaky_relu_fwd, leaky_relu_bwd, None, (1,)),
    Rule("sigmoid", jax.nn.sigmoid, ("f32[4,3]",), sigmoid_fwd, sigmoid_bwd),
    Rule("tanh", jnp.tanh, ("f32[4,3]",), tanh_fwd, tanh_bwd),
    Rule("softplus", softplus, ("f32[4,3]",), softplus_fwd, softplus_bwd),
    Rule("silu", silu, ("f32[4,3]",), silu_fwd, silu_bwd),
    Rule("gelu_tanh", gelu_tanh, ("f32[4,3]",), gelu_tanh_fwd, gelu_tanh_bwd),
    Rule("gelu_erf", gelu_erf, ("f32[4,3]",), gelu_erf_fwd, gelu_erf_bwd),
    Rule("elu", elu, ("f32[4,3]", 1.5), elu_fwd, elu_bwd, None, (1,)),
    Rule("mish", mish, ("f32[4,3]",), mish_fwd, mish_bwd),
    Rule("softsign", softsign, ("f32[4,3]",), softsign_fwd, softsign_bwd),
    Rule("hard_tanh", hard_tanh, ("f32[4,3]",), hard_tanh_fwd, hard_tanh_bwd),
    Rule("absolute", jnp.abs, ("f32[4,3]",), absolute_fwd, absolute_bwd),
    Rule("safe_sqrt", safe_sqrt, ("f32[4,3]",), safe_sqrt_fwd, safe_sqrt_bwd),
    Rule("log1mexp", log1mexp, ("f32[4,3] in positive",), log1mexp_fwd, log1mexp_bwd),
    Rule("softcap", softcap, ("f32[4,3]", 2.5), softcap_fwd, softcap_bwd, None, (1,)),
    Rule("swiglu", swiglu, ("f32[4,3]", "f32[4,3]"), swiglu_fwd, swiglu_bwd),
]
