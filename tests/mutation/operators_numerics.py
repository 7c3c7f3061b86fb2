"""Faults in numerics: precision, cancellation, overflow, masks that multiply, chance."""

import jax
import jax.numpy as jnp
import numpy as np

from .operator import (
    Mutants,
    abstract,
    is_inexact,
    leaves,
    map_inexact,
    on_cotangents,
    operator,
    output,
    total,
    with_bwd,
    with_residuals,
)
from .rule import Rule
from .surgery import bind, named, named_real, surgery


def through(dtype):
    """Return a function that rounds real arrays to `dtype` and hands them back in their own."""

    def change(a):
        if not jnp.issubdtype(a.dtype, jnp.floating) or a.dtype == dtype:
            return a
        return a.astype(dtype).astype(a.dtype)

    return change


# Precision


@operator("rounding", "term", "dtype")
def half_cotangent(rule: Rule) -> Mutants:
    """A cotangent has been through bfloat16."""
    if rule.jvp is None:
        yield from on_cotangents(rule, lambda ct, x, dy: through(jnp.bfloat16)(ct))


@operator("rounding", "term", "dtype")
def half_upstream(rule: Rule) -> Mutants:
    """The upstream cotangent is rounded to bfloat16 before it is used."""
    if rule.jvp is None:
        change = through(jnp.bfloat16)
        yield "dy", with_bwd(rule, lambda bwd, res, dy: bwd(res, map_inexact(change, dy)))


def _float_residuals(rule):
    if rule.jvp is not None or rule.symbolic_zeros:
        return False
    residuals = jax.tree.leaves(abstract(rule.fwd, rule)[1])
    return any(jnp.issubdtype(jnp.result_type(a), jnp.floating) for a in residuals)


@operator(
    "rounding", "term", "kink", "element", bug="https://github.com/flagos-ai/FlagGems/pull/221"
)
def bfloat16_residuals(rule: Rule) -> Mutants:
    """Residuals are kept in bfloat16, to save memory.

    After https://github.com/flagos-ai/FlagGems/pull/221: a layer norm whose mean and scale were
    kept in half precision.
    """
    if _float_residuals(rule):
        yield "bfloat16", with_residuals(rule, through(jnp.bfloat16))


@operator("rounding", "term", "kink", "element", "overflow", "nan")
def float16_residuals(rule: Rule) -> Mutants:
    """Residuals are kept in float16, where large ones become infinite and small ones vanish."""
    if _float_residuals(rule):
        yield "float16", with_residuals(rule, through(jnp.float16))


def _low(dtype):
    def change(equation, inputs):
        low = [a.astype(dtype) if is_inexact(a) else a for a in inputs]
        params = dict(equation.params)
        if params.get("preferred_element_type") is not None:
            params["preferred_element_type"] = np.dtype(dtype)
        outs = bind(equation.replace(params=params), low)
        return [out.astype(v.aval.dtype) for out, v in zip(outs, equation.outvars)]

    return change


@operator("rounding", "term", "broadcast", "overflow", "cancellation")
def half_sum(rule: Rule) -> Mutants:
    """A sum is done in bfloat16."""
    yield from surgery(rule, named_real("reduce_sum", "cumsum"), _low(jnp.bfloat16), most=2)


@operator("rounding", "term", "overflow", "nan")
def half_product(rule: Rule) -> Mutants:
    """A matrix product or convolution is done in bfloat16."""
    products = named_real("dot_general", "conv_general_dilated")
    yield from surgery(rule, products, _low(jnp.bfloat16), most=2)


@operator("rounding", "term", "overflow", "nan", "cancellation", "tail")
def half_function(rule: Rule) -> Mutants:
    """An exponential, root or logarithm is taken in bfloat16."""
    functions = named_real(
        "exp", "log", "rsqrt", "sqrt", "tanh", "logistic", "div", "expm1", "log1p"
    )
    yield from surgery(rule, functions, _low(jnp.bfloat16), most=2)


# Cancellation, overflow


@operator("cancellation", "rounding")
def large_detour(rule: Rule) -> Mutants:
    """A large multiple of the upstream sum is added to a cotangent, and taken off again."""

    def change(ct, x, dy):
        large = 4096 * total(dy).astype(ct.dtype)
        return jax.lax.optimization_barrier(ct + large) - large

    yield from on_cotangents(rule, change)


CANCELLING = {
    "log1p": lambda x: jnp.log(1 + x),
    "expm1": lambda x: jnp.exp(x) - 1,
    "erfc": lambda x: 1 - jax.lax.erf(x),
}


@operator("cancellation", "rounding", "tail", "nan")
def naive_function(rule: Rule) -> Mutants:
    """log(1 + x) for log1p, exp(x) - 1 for expm1, 1 - erf(x) for erfc."""

    def change(equation, inputs):
        return [CANCELLING[equation.primitive.name](*inputs)]

    yield from surgery(rule, named(*CANCELLING), change, most=2)


OVERFLOWING = {
    "logistic": lambda x: jnp.exp(x) / (1 + jnp.exp(x)),
    "tanh": lambda x: (jnp.exp(2 * x) - 1) / (jnp.exp(2 * x) + 1),
}


@operator(
    "overflow",
    "nan",
    "tail",
    "cancellation",
    "rounding",
    bug="https://github.com/jeshraghian/snntorch/pull/433",
)
def overflowing_sigmoid(rule: Rule) -> Mutants:
    """A sigmoid or tanh is the quotient of two exponentials, infinity by infinity in the tail.

    Rebuilt from https://github.com/jeshraghian/snntorch/pull/433, where a surrogate gradient of
    large membrane potentials was not a number.
    """

    def change(equation, inputs):
        return [OVERFLOWING[equation.primitive.name](*inputs)]

    yield from surgery(rule, named(*OVERFLOWING), change, most=2)


@operator("overflow", "nan", "rounding", "tail")
def square_the_divisor(rule: Rule) -> Mutants:
    """A quotient a/b is computed as ab/b², whose divisor overflows before the quotient does."""

    def change(equation, inputs):
        a, b = inputs
        return [(a * b) / (b * b)]

    yield from surgery(rule, named("div"), change, most=2)


@operator("overflow", "nan", "rounding", "tail", "scale-dependent")
def square_and_root(rule: Rule) -> Mutants:
    """The size of a cotangent is taken by a square and a root: half of the exponents are lost."""

    def change(ct, x, dy):
        scale = jnp.sqrt(x * x)
        return jnp.where(x == 0, ct, ct * (scale / jnp.abs(x)).astype(ct.dtype))

    real = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.domain is None  # noqa: E731
    yield from on_cotangents(rule, change, real, inputs=True)


@operator("overflow", "nan", "tail", "rounding")
def exponential_detour(rule: Rule) -> Mutants:
    """exp(x) is computed as exp(2x)·exp(-x), zero times infinity where x is far below zero."""

    def change(equation, inputs):
        (x,) = inputs
        return [jnp.exp(2 * x) * jnp.exp(-x)]

    yield from surgery(rule, named("exp"), change, most=2)


# Masks and rows


def batched(rule: Rule):
    """Return a test for arguments whose first axis is that of the value: its rows."""
    sizes = {a.shape[0] for a in jax.tree.leaves(output(rule)) if is_inexact(a) and a.shape}
    return lambda leaf: len(leaf.shape) > 1 and leaf.shape[0] > 1 and leaf.shape[0] in sizes


@operator("leakage", "nan")
def touch_other_rows(rule: Rule) -> Mutants:
    """The sum over all rows is added with a weight of zero: a NaN in one row is in all."""

    def change(ct, x, dy):
        return ct + jnp.broadcast_to(0 * jnp.sum(ct, axis=0, keepdims=True), ct.shape)

    yield from on_cotangents(rule, change, batched(rule))


@operator("leakage", "term", "element")
def centre_over_batch(rule: Rule) -> Mutants:
    """A thousandth of the mean over the rows is taken off each."""

    def change(ct, x, dy):
        mean = jnp.sum(ct, axis=0, keepdims=True) / max(ct.shape[0], 1)
        return ct - jnp.broadcast_to(1e-3 * mean, ct.shape)

    yield from on_cotangents(rule, change, batched(rule))


@operator("leakage", "order", "term", "element")
def neighbour_row(rule: Rule) -> Mutants:
    """A millionth of the next row is mixed into each: an index that runs over its end."""
    yield from on_cotangents(
        rule, lambda ct, x, dy: ct + 1e-6 * jnp.roll(ct, 1, axis=0), batched(rule)
    )


# Chance


@operator("nondeterminism", "factor", "term", "jit")
def noise_while_tracing(rule: Rule) -> Mutants:
    """A random number of numpy's, drawn anew whenever the rule is traced, scales a cotangent."""
    noise = lambda: 1 + 1e-3 * float(np.random.default_rng().uniform(0.1, 1))  # noqa: E731
    yield from on_cotangents(rule, lambda ct, x, dy: noise() * ct)


@operator("nondeterminism", "jit", "factor", "term")
def every_other_call(rule: Rule) -> Mutants:
    """Every other trace of the rule gives a cotangent that is one per cent off."""
    calls = []

    def change(ct, x, dy):
        calls.append(None)
        return ct * (1.01 if len(calls) % 2 == 0 else 1.0)

    yield from on_cotangents(rule, change)


@operator(
    "nondeterminism",
    "remat",
    "forward value",
    "term",
    "factor",
    "element",
    bug="https://github.com/openai/guided-diffusion/issues/167",
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

    if rule.jvp is None and any(leaf.size > 3 for leaf in leaves(rule)):
        yield "mask", with_bwd(rule, around)
