"""Faults in numerics: precision, cancellation, overflow, masks that multiply, chance."""

import jax
import jax.numpy as jnp
import numpy as np

from .operator import (
    Mutants,
    abstract,
    faulty_cotangent,
    is_inexact,
    leaves,
    map_inexact,
    on_cotangents,
    operator,
    output,
    register,
    total,
    with_bwd,
    with_dy,
    with_residuals,
)
from .rule import Rule
from .surgery import bind, named, named_real, stand_ins, surgery


def through(dtype):
    """Return a function that rounds real arrays to `dtype` and hands them back in their own."""

    def change(a):
        if not jnp.issubdtype(a.dtype, jnp.floating) or a.dtype == dtype:
            return a
        return a.astype(dtype).astype(a.dtype)

    return change


# Precision


@faulty_cotangent("rounding", "term", "dtype", tangents=False)
def half_cotangent(ct, at):
    """A cotangent has been through bfloat16."""
    return through(jnp.bfloat16)(ct)


@operator("rounding", "term", "dtype", tangents=False)
def half_upstream(rule: Rule) -> Mutants:
    """The upstream cotangent is rounded to bfloat16 before it is used."""
    yield "dy", with_dy(rule, through(jnp.bfloat16))


def _float_residuals(rule):
    if rule.symbolic_zeros:
        return False
    residuals = jax.tree.leaves(abstract(rule.fwd, rule)[1])
    return any(jnp.issubdtype(jnp.result_type(a), jnp.floating) for a in residuals)


@operator("rounding", "term", "kink", "element", tangents=False)
def bfloat16_residuals(rule: Rule) -> Mutants:
    """Residuals are kept in bfloat16, to save memory.

    After https://github.com/flagos-ai/FlagGems/pull/221: a layer norm whose mean and scale were
    kept in half precision.
    """
    if _float_residuals(rule):
        yield "bfloat16", with_residuals(rule, through(jnp.bfloat16))


@operator("rounding", "term", "kink", "element", "overflow", "nan", tangents=False)
def float16_residuals(rule: Rule) -> Mutants:
    """Residuals are kept in float16, where large ones become infinite and small ones vanish."""
    if _float_residuals(rule):
        yield "float16", with_residuals(rule, through(jnp.float16))


def _in_bfloat16(equation, inputs):
    low = [a.astype(jnp.bfloat16) if is_inexact(a) else a for a in inputs]
    params = dict(equation.params)
    if params.get("preferred_element_type") is not None:
        params["preferred_element_type"] = np.dtype(jnp.bfloat16)
    outs = bind(equation.replace(params=params), low)
    return [out.astype(v.aval.dtype) for out, v in zip(outs, equation.outvars)]


HALF = {
    "half_sum": (
        ("rounding", "term", "broadcast", "overflow", "cancellation"),
        ("reduce_sum", "cumsum"),
    ),
    "half_product": (
        ("rounding", "term", "overflow", "nan"),
        ("dot_general", "conv_general_dilated"),
    ),
    "half_function": (
        ("rounding", "term", "overflow", "nan", "cancellation", "tail"),
        ("exp", "log", "rsqrt", "sqrt", "tanh", "logistic", "div", "expm1", "log1p"),
    ),
}
"""Faults that do an equation in bfloat16: their defects, and the primitives."""

for name, (defects, primitives) in HALF.items():
    of = named_real(*primitives)
    register(name, defects, lambda rule, of=of: surgery(rule, of, _in_bfloat16, most=2))


# Cancellation, overflow


@faulty_cotangent("cancellation", "rounding")
def large_detour(ct, at):
    """A large multiple of the upstream sum is added to a cotangent, and taken off again."""
    large = 4096 * total(at.dy).astype(ct.dtype)
    return jax.lax.optimization_barrier(ct + large) - large


@stand_ins("cancellation", "rounding", "tail", "nan", of=named)
def naive_function():
    """log(1 + x) for log1p, exp(x) - 1 for expm1, 1 - erf(x) for erfc."""
    return {
        "log1p": lambda x: jnp.log(1 + x),
        "expm1": lambda x: jnp.exp(x) - 1,
        "erfc": lambda x: 1 - jax.lax.erf(x),
    }


@stand_ins("overflow", "nan", "tail", "cancellation", "rounding", of=named)
def overflowing_sigmoid():
    """A sigmoid or tanh is the quotient of two exponentials, infinity by infinity in the tail.

    Rebuilt from https://github.com/jeshraghian/snntorch/pull/433, where a surrogate gradient of
    large membrane potentials was not a number.
    """
    return {
        "logistic": lambda x: jnp.exp(x) / (1 + jnp.exp(x)),
        "tanh": lambda x: (jnp.exp(2 * x) - 1) / (jnp.exp(2 * x) + 1),
    }


@stand_ins("overflow", "nan", "rounding", "tail", of=named)
def square_the_divisor():
    """A quotient a/b is computed as ab/b², whose divisor overflows before the quotient does."""
    return {"div": lambda a, b: (a * b) / (b * b)}


@stand_ins("overflow", "nan", "tail", "rounding", of=named)
def exponential_detour():
    """exp(x) is computed as exp(2x)·exp(-x), zero times infinity where x is far below zero."""
    return {"exp": lambda x: jnp.exp(2 * x) * jnp.exp(-x)}


@faulty_cotangent(
    *("overflow", "nan", "rounding", "tail", "scale-dependent"),
    when=lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.domain is None,
    inputs=True,
)
def square_and_root(ct, at):
    """The size of a cotangent is taken by a square and a root: half of the exponents are lost."""
    scale = jnp.sqrt(at.x * at.x)
    return jnp.where(at.x == 0, ct, ct * (scale / jnp.abs(at.x)).astype(ct.dtype))


# Masks and rows


def faulty_rows(*defects: str):
    """Register a fault in the cotangents whose first axis is that of the value: its rows."""

    def decorate(change):
        def make(rule):
            outputs = jax.tree.leaves(output(rule))
            sizes = {a.shape[0] for a in outputs if is_inexact(a) and a.shape} - {0, 1}
            batched = lambda leaf: len(leaf.shape) > 1 and leaf.shape[0] in sizes  # noqa: E731
            yield from on_cotangents(rule, lambda ct, at: change(ct), batched)

        register(change.__name__, defects, make, change.__doc__)

    return decorate


@faulty_rows("leakage", "nan")
def touch_other_rows(ct):
    """The sum over all rows is added with a weight of zero: a NaN in one row is in all."""
    return ct + jnp.broadcast_to(0 * jnp.sum(ct, axis=0, keepdims=True), ct.shape)


@faulty_rows("leakage", "term", "element")
def centre_over_batch(ct):
    """A thousandth of the mean over the rows is taken off each."""
    mean = jnp.sum(ct, axis=0, keepdims=True) / max(ct.shape[0], 1)
    return ct - jnp.broadcast_to(1e-3 * mean, ct.shape)


@faulty_rows("leakage", "order", "term", "element")
def neighbour_row(ct):
    """A millionth of the next row is mixed into each: an index that runs over its end."""
    return ct + 1e-6 * jnp.roll(ct, 1, axis=0)


# Chance


@faulty_cotangent("nondeterminism", "factor", "term", "jit")
def noise_while_tracing(ct, at):
    """A random number of numpy's, drawn anew whenever the rule is traced, scales a cotangent."""
    return (1 + 1e-3 * float(np.random.default_rng().uniform(0.1, 1))) * ct


@operator("nondeterminism", "jit", "factor", "term")
def every_other_call(rule: Rule) -> Mutants:
    """Every other trace of the rule gives a cotangent that is one per cent off."""
    calls = []

    def change(ct, at):
        calls.append(None)
        return ct * (1.01 if len(calls) % 2 == 0 else 1.0)

    yield from on_cotangents(rule, change)


@operator(
    *("nondeterminism", "remat", "forward value", "term", "factor", "element"), tangents=False
)
def fresh_dropout(rule: Rule) -> Mutants:
    """The backward pass draws a dropout mask of its own, other than that of the forward pass.

    Rebuilt from https://github.com/openai/guided-diffusion/issues/167: a recomputation that did
    not restore the state of the random numbers.
    """
    calls = []

    def around(bwd, residuals, dy):
        calls.append(None)
        key = jax.random.key(len(calls))
        kept = lambda a: jnp.where(jax.random.bernoulli(key, 0.9, a.shape), a, 0)  # noqa: E731
        return bwd(residuals, map_inexact(kept, dy))

    if any(leaf.size > 3 for leaf in leaves(rule)):
        yield "mask", with_bwd(rule, around)
