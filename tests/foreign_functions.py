"""Definitions for foreign rules, and small rules written with foreign decorators."""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def exponential_integral(x):
    """Return Ei(x) = γ + ln x + Σ xᵏ/(k·k!), for x > 0."""
    k = jnp.arange(1, 60, dtype=x.dtype).reshape((1,) * x.ndim + (-1,))
    total = jnp.sum(jnp.cumprod(x[..., None] / k, axis=-1) / k, axis=-1)
    return np.euler_gamma + jnp.log(x) + total


def hurwitz_zeta(s, q):
    """Return ζ(s, q): 32 terms of the sum, then the Euler-Maclaurin formula."""
    head = sum((q + n) ** -s for n in range(32))
    a = q + 32
    slope = s * a ** (-s - 1)  # −d/da a⁻ˢ, and its second and fourth derivatives below
    third = slope * (s + 1) * (s + 2) / a**2
    fifth = third * (s + 3) * (s + 4) / a**2
    tail = a ** (1 - s) / (s - 1) + a**-s / 2
    return head + tail + slope / 12 - third / 720 + fifth / 30240


def confluent(a, b, x):
    """Return ₁F₁(a; b; x) = Σ (a)ₖ xᵏ / ((b)ₖ k!)."""
    term = total = jnp.ones_like(x)
    for k in range(60):
        term = term * (a + k) / (b + k) * x / (k + 1)
        total = total + term
    return total


def mantissa_and_exponent(x):
    """Return x over a power of two, constant between powers of two, and the exponent."""
    _, exponent = jnp.frexp(jax.lax.stop_gradient(x))
    return x * jnp.exp2(-exponent.astype(x.dtype)), exponent


def step_up(x):
    """Return the next larger number; its derivative is 1."""
    below = jax.lax.stop_gradient(x)
    above = jnp.where(below == 0, jnp.finfo(x.dtype).tiny, jnp.nextafter(below, jnp.inf))
    return x + (above - below)


def rms_norm(x, weight, bias, eps=1e-5):
    """Divide by the root of the mean square, then scale and shift; all over the last axis."""
    y = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + eps)
    return y * weight[None, None] + bias[None, None]


def layer_norm(x, weight, bias, eps=1e-5):
    """Subtract the mean, then `rms_norm`."""
    return rms_norm(x - jnp.mean(x, axis=-1, keepdims=True), weight, bias, eps)


def attention(q, k, v):
    """Return softmax(q kᵀ) v, over [batch, position, head, feature]."""
    logits = jnp.einsum("bqhc,bkhc->bhqk", q, k)
    return jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(logits), v)


def heron(custom_root):
    """Return √a as the root of x² − a, by Heron's iteration and implicit differentiation."""

    def f(a):
        return custom_root(
            lambda x: x * x - a,
            jnp.ones_like(a),
            lambda _, x: jax.lax.fori_loop(0, 100, lambda _, x: (x + a / x) / 2, x),
            lambda linear, y: y / linear(jnp.ones_like(y)),
        )

    return f


# Custom rules through the libraries' decorators: f(x, w) = w sin x.


def dense_layer(custom_vjp):
    """Return a dense layer whose backward rule is `flax.linen.vjp` of the layer itself."""
    from flax import linen

    class Layer(linen.Module):
        @linen.compact
        def __call__(self, x):
            rule = custom_vjp(
                lambda layer, x: layer(x),
                forward_fn=lambda layer, x: linen.vjp(lambda m, x: m(x), layer, x),
                backward_fn=lambda pullback, dy: pullback(dy),
            )
            return rule(linen.Dense(3), x)

    return lambda params, x: Layer().apply({"params": {"Dense_0": params}}, x)


def scaled_sine_bwd(residuals, dy):
    x, w = residuals
    return dy * w * jnp.cos(x), dy * jnp.sin(x)


def scaled_sine_nnx(custom_vjp):
    """Use `flax.nnx.custom_vjp`, without states to update."""
    f = custom_vjp(lambda x, w: w * jnp.sin(x), graph_updates=False)
    f.defvjp(lambda x, w: (w * jnp.sin(x), (x, w)), scaled_sine_bwd)
    return f


def scaled_sine_vjp(filter_custom_vjp):
    """Use `equinox.filter_custom_vjp`, which differentiates its first argument alone."""
    f = filter_custom_vjp(lambda pair: pair[1] * jnp.sin(pair[0]))
    f.def_fwd(lambda perturbed, pair: (pair[1] * jnp.sin(pair[0]), None))
    f.def_bwd(lambda residuals, dy, perturbed, pair: scaled_sine_bwd(pair, dy))
    return lambda x, w: f((x, w))


def scaled_sine_jvp(filter_custom_jvp):
    """Use `equinox.filter_custom_jvp`; the tangent of a constant argument is None."""
    f = filter_custom_jvp(lambda x, w: w * jnp.sin(x))

    @f.def_jvp
    def _(primals, tangents):
        (x, w), (dx, dw) = primals, tangents
        dy = jnp.zeros_like(x)
        if dx is not None:
            dy = dy + w * jnp.cos(x) * dx
        if dw is not None:
            dy = dy + jnp.sin(x) * dw
        return w * jnp.sin(x), dy

    return f


def five_steps(while_loop):
    """Apply 3/2 sin five times, in equinox's loop with a reverse mode."""
    loop = (lambda carry: carry[0] < 5, lambda carry: (carry[0] + 1, 1.5 * jnp.sin(carry[1])))
    return lambda x: while_loop(*loop, (0, x), max_steps=5, kind="checkpointed")[1]


def five_steps_unrolled(x):
    """Apply 3/2 sin five times, without a loop."""
    for _ in range(5):
        x = 1.5 * jnp.sin(x)
    return x


def recurrence(scan):
    """Return all states of h ← tanh(w h + x)."""
    return lambda h, w, xs: scan(lambda h, x: (jnp.tanh(w * h + x), h), h, xs)


def new_softmax(softmax):
    """Switch on the rule of softmax by its flag."""

    def f(x):
        from jax._src.config import softmax_custom_jvp

        with softmax_custom_jvp(True):
            return softmax(x)

    return f


def fp8(f):
    """Pass two dtypes before the arrays, as Flax's quantizers need."""
    return lambda *arrays: f(jnp.float32, jnp.float8_e4m3fn, *arrays)


def tokamax_rule(module: str, op: str, **options: Any) -> Callable[[Any], Callable[..., Any]]:
    """Return an op of tokamax with the backward rule that its kernels fall back on."""

    def wrap(rule):
        base = importlib.import_module(f"tokamax._src.ops.{module}.base")
        rule = rule() if isinstance(rule, type) else rule
        return lambda *arrays: getattr(base, op)(vjp=rule)(*arrays, **options)

    return wrap
