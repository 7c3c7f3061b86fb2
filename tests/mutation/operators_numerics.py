"""Faults in numerics: precision, cancellation, overflow, masks that multiply, chance."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from . import operator as o
from .surgery import bind, faulty_equation, primitives, real_primitives, stand_ins


def through(dtype):
    """Return a function that rounds real arrays to `dtype` and returns them in their own."""

    def change(a):
        if not jnp.issubdtype(a.dtype, jnp.floating) or a.dtype == dtype:
            return a
        return a.astype(dtype).astype(a.dtype)

    return change


# Precision

o.faulty_vjp("rounding, term, dtype", name="half_cotangent")(
    lambda ct, at: through(jnp.bfloat16)(ct)
)


@o.operator("rounding, term, dtype", tangents=False)
def half_upstream(rule):
    """The upstream cotangent is rounded to bfloat16 before it is used."""
    yield "dy", o.with_dy(rule, through(jnp.bfloat16))


def _rounded_residuals(rule, dtype):
    residuals = [] if rule.symbolic_zeros else jax.tree.leaves(o.abstract(rule.fwd, rule)[1])
    if any(jnp.issubdtype(jnp.result_type(a), jnp.floating) for a in residuals):
        yield dtype, o.with_residuals(rule, through(jnp.dtype(dtype)))


@o.operator("rounding, term, kink, element", "flagos-ai/FlagGems/pull/221", tangents=False)
def bfloat16_residuals(rule):
    """Residuals are saved in bfloat16, as if for memory."""
    return _rounded_residuals(rule, "bfloat16")


@o.operator("rounding, term, kink, element, overflow, nan", tangents=False)
def float16_residuals(rule):
    """Residuals are saved in float16, where large ones become infinite and small ones vanish."""
    return _rounded_residuals(rule, "float16")


def _in_bfloat16(equation, inputs):
    low = [a.astype(jnp.bfloat16) if o.is_inexact(a) else a for a in inputs]
    params = dict(equation.params)
    if params.get("preferred_element_type") is not None:
        params["preferred_element_type"] = np.dtype(jnp.bfloat16)
    outs = bind(equation.replace(params=params), low)
    return [out.astype(v.aval.dtype) for out, v in zip(outs, equation.outvars)]


HALF = {
    "half_sum": ("rounding, term, broadcast, overflow, cancellation", "reduce_sum cumsum"),
    "half_product": ("rounding, term, overflow, nan", "dot_general conv_general_dilated"),
    "half_function": (
        "rounding, term, overflow, nan, cancellation, tail",
        "exp log rsqrt sqrt tanh logistic div expm1 log1p",
    ),
}
"""Faults that run an equation in bfloat16: their defects, and the primitives."""

for name, (defects, words) in HALF.items():
    faulty_equation(defects, of=real_primitives(*words.split()), name=name)(_in_bfloat16)


# Cancellation, overflow


@o.faulty_cotangent("cancellation, rounding")
def large_detour(ct, at):
    """A large multiple of the upstream sum is added to a cotangent, and taken off again."""
    large = 4096 * o.total(at.dy).astype(ct.dtype)
    return jax.lax.optimization_barrier(ct + large) - large


stand_ins(
    *("naive_function", "cancellation, rounding, tail, nan"),
    of=primitives,
    log1p=lambda x: jnp.log(1 + x),
    expm1=lambda x: jnp.exp(x) - 1,
    erfc=lambda x: 1 - jax.lax.erf(x),
)
# The quotient of two exponentials is infinity by infinity in the tail.
stand_ins(
    *("overflowing_sigmoid", "overflow, nan, tail, cancellation, rounding"),
    "jeshraghian/snntorch/pull/433",
    of=primitives,
    logistic=lambda x: jnp.exp(x) / (1 + jnp.exp(x)),
    tanh=lambda x: (jnp.exp(2 * x) - 1) / (jnp.exp(2 * x) + 1),
)
# The divisor overflows before the quotient does.
stand_ins(
    *("square_the_divisor", "overflow, nan, rounding, tail"),
    of=primitives,
    div=lambda a, b: a * b / (b * b),
)
# Zero times infinity where x is far below zero.
stand_ins(
    *("exponential_detour", "overflow, nan, tail, rounding"),
    of=primitives,
    exp=lambda x: jnp.exp(2 * x) * jnp.exp(-x),
)


@o.faulty_cotangent(
    "overflow, nan, rounding, tail, scale-dependent",
    when=lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.domain is None,
    inputs=True,
)
def square_and_root(ct, at):
    """The size of a cotangent is taken by a square and a root: half of the exponents are lost."""
    scale = jnp.sqrt(at.x * at.x)
    return jnp.where(at.x == 0, ct, ct * (scale / jnp.abs(at.x)).astype(ct.dtype))


# Masks and rows


def faulty_rows(defects):
    """Register a fault in the cotangents whose first axis is that of the value: its rows."""

    def decorate(change):
        def make(rule):
            outputs = jax.tree.leaves(o.output(rule))
            sizes = {a.shape[0] for a in outputs if o.is_inexact(a) and a.shape} - {0, 1}
            batched = lambda leaf: len(leaf.shape) > 1 and leaf.shape[0] in sizes  # noqa: E731
            yield from o.on_cotangents(rule, lambda ct, at: change(ct), batched)

        o.register(change.__name__, defects, make)

    return decorate


@faulty_rows("leakage, nan")
def touch_other_rows(ct):
    """The sum over all rows is added with a weight of zero: a NaN in one row is in all."""
    return ct + jnp.broadcast_to(0 * jnp.sum(ct, axis=0, keepdims=True), ct.shape)


@faulty_rows("leakage, term, element")
def centre_over_batch(ct):
    """A thousandth of the mean over the rows is taken off each."""
    mean = jnp.sum(ct, axis=0, keepdims=True) / max(ct.shape[0], 1)
    return ct - jnp.broadcast_to(1e-3 * mean, ct.shape)


@faulty_rows("leakage, order, term, element")
def neighbour_row(ct):
    """A millionth of the next row is mixed into each: an index that runs over its end."""
    return ct + 1e-6 * jnp.roll(ct, 1, axis=0)


# Chance


# A NumPy random number, drawn at each trace of the rule, scales a cotangent.
o.faulty_cotangent("nondeterminism, factor, term, jit", name="noise_while_tracing")(
    lambda ct, at: (1 + 1e-3 * float(np.random.default_rng().uniform(0.1, 1))) * ct
)


@o.operator("nondeterminism, jit, factor, term")
def every_other_call(rule):
    """Every other trace of the rule gives a cotangent that is one per cent off."""
    factors = itertools.cycle((1.0, 1.01))
    yield from o.on_cotangents(rule, lambda ct, at: ct * next(factors))


@o.operator(
    "nondeterminism, remat, forward value, term, factor, element",
    "openai/guided-diffusion/issues/167",
    tangents=False,
)
def fresh_dropout(rule):
    """The backward pass draws a dropout mask of its own, other than that of the forward pass."""
    calls = itertools.count(1)

    def around(bwd, residuals, dy):
        key = jax.random.key(next(calls))
        drop = lambda a: jnp.where(jax.random.bernoulli(key, 0.9, a.shape), a, 0)  # noqa: E731
        return bwd(residuals, o.map_inexact(drop, dy))

    if any(leaf.size > 3 for leaf in o.leaves(rule)):
        yield "mask", o.with_bwd(rule, around)
