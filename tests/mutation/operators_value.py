"""Faults in the value of a cotangent: factors, terms, single elements, order and broadcasts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from . import surgery as s
from .operator import faulty_cotangent, faulty_vjp, leaves, operator, with_cotangents

FACTORS = {
    "double": 2,
    "half_a_percent": 1.005,  # within the usual tolerance in float32
    "one_millionth": 1 + 1e-6,  # one or two figures above the rounding of float32
    "one_billionth": 1 + 1e-9,  # only float64 can show it
}

for name, factor in FACTORS.items():
    faulty_cotangent("factor", name=name)(lambda ct, at, factor=factor: factor * ct)

faulty_cotangent("sign", name="negate")(lambda ct, at: -ct)
faulty_cotangent("term, factor", name="drop")(lambda ct, at: jnp.zeros_like(ct))


def has_rows(leaf):
    return leaf.shape[:1] > (1,)


def has_columns(leaf):
    return leaf.shape[-1:] > (1,)


# A cotangent is divided by the length of its first axis, as if the sum were a mean.
faulty_cotangent("factor", "paiml/aprender/pull/2182", when=has_rows, name="mean_for_sum")(
    lambda ct, at: ct / max(ct.shape[0], 1)
)


# One equation of the derivative rule


def _perturbable(equation, smooth):
    moves = ("convert_element_type", "broadcast_in_dim", "reshape", "squeeze", "transpose")
    return smooth and s.inexact(equation.outvars[0]) and equation.primitive.name not in moves


@s.faulty_equation("term, factor, element", of=_perturbable, most=4)
def perturb_equation(equation, inputs):
    outs = s.bind(equation, inputs)
    return [a * (1 + 1e-6) if jnp.issubdtype(a.dtype, jnp.inexact) else a for a in outs]


@operator("term, factor, sign, element, order, broadcast, nan")
def lose_summand(rule):
    """One of two terms of a sum or difference is left out."""

    def without(place):
        def change(equation, inputs):
            inputs = list(inputs)
            inputs[place] = jnp.zeros_like(inputs[place])
            return s.bind(equation, inputs)

        return change

    for place in (0, 1):
        mutants = s.surgery(rule, s.primitives("add", "sub", "add_any"), without(place), most=2)
        yield from ((f"{label}[{place}]", mutant) for label, mutant in mutants)


s.faulty_equation(
    "term, sign, factor, element", of=s.primitives("sub"), most=3, name="swap_difference"
)(lambda equation, inputs: s.bind(equation, inputs[::-1]))
s.faulty_equation("term, sign, factor, element", of=s.primitives("neg"), most=3, name="lose_minus")(
    lambda equation, inputs: list(inputs)
)


RELATIVES = (
    {"sin": jax.lax.cos, "cos": jax.lax.sin, "max": jax.lax.min, "min": jax.lax.max}
    | {"exp": jax.lax.exp2, "expm1": jax.lax.exp, "log": jax.lax.log1p, "log1p": jax.lax.log}
    | {"tanh": jax.lax.erf, "erf": jax.lax.tanh, "sqrt": jax.lax.cbrt, "square": jax.lax.abs}
    | {"sign": jnp.ones_like, "abs": lambda x: x, "rsqrt": lambda x: 1 / x}
    | {"logistic": lambda x: 0.5 * (1 + jax.lax.erf(x))}
)
"""Functions in the place of others: a cosine for a sine, a minimum for a maximum."""

s.stand_ins(
    *("mistake_function", "term, factor, sign, element, tail, nan, overflow, kink, special value"),
    **RELATIVES | {"of": s.real_primitives, "most": 4},
)


@s.faulty_equation(
    "term, factor, element, order, kink, sign, nan, special value, not linear",
    of=s.two_cases,
    most=3,
)
def swap_branches(equation, inputs):
    """A `where` gives its branches in the wrong order."""
    which, *cases = inputs
    return s.bind(equation, [which, *cases[::-1]])


@s.faulty_equation(
    "term, factor, sign, element, order, broadcast, leakage",
    of=s.primitives("cumsum", "cumprod", "cumlogsumexp", "scan"),
)
def reverse_cumulation(equation, inputs):
    """A cumulative sum, or a scan, runs the wrong way."""
    params = dict(equation.params) | {"reverse": not equation.params["reverse"]}
    return s.bind(equation.replace(params=params), inputs)


@s.faulty_equation(
    *("term, order, broadcast, element", "pytorch/pytorch/issues/1528"),
    of=s.primitives("scatter-add", "scatter_add"),
)
def overwrite_duplicates(equation, inputs):
    """Where an index occurs twice, the last cotangent overwrites the first."""
    p = equation.params
    return [jax.lax.scatter(*inputs, p["dimension_numbers"], mode=p["mode"])]


# Single elements and order


@faulty_cotangent("element", when=lambda leaf: leaf.size > 3)
def wrong_middle(ct, at):
    """The element in the middle of a cotangent is too large by a thousandth."""
    where = tuple(n // 2 for n in ct.shape)
    return ct.at[where].multiply(1.001) if ct.size else ct


# The last element of a cotangent is zero: an end of a loop that is off by one.
faulty_cotangent("element", when=lambda leaf: leaf.size > 3, name="lose_last")(
    lambda ct, at: ct.at[(-1,) * ct.ndim].set(0) if ct.size else ct
)


@faulty_cotangent("element, term", when=lambda leaf: len(leaf.shape) > 1 and leaf.shape[0] > 2)
def lose_last_row(ct, at):
    """The last slice along the first axis of a cotangent is zero: a remainder forgotten."""
    return ct.at[-1].set(0) if ct.shape and ct.shape[0] > 1 else ct


faulty_cotangent("order, term", when=has_columns, name="roll")(
    lambda ct, at: jnp.roll(ct, 1, axis=-1)
)
faulty_cotangent("order, term", when=has_rows, name="reverse")(lambda ct, at: jnp.flip(ct, axis=0))


@faulty_cotangent(
    "order, term, structure, fails", when=lambda leaf: len(leaf.shape) == 2 and min(leaf.shape) > 1
)
def transpose(ct, at):
    return ct.T.reshape(ct.shape)


@operator("order, term, factor, sign", tangents=False)
def exchange_cotangents(rule):
    """Two arguments of one shape get each other's cotangents."""
    top = [leaf for leaf in leaves(rule) if leaf.inexact and leaf.tree.num_nodes == 1]
    for a, b in itertools.combinations(top, 2):
        if (a.shape, a.dtype) == (b.shape, b.dtype):

            def change(cotangents, a=a.argument, b=b.argument):
                cotangents[a], cotangents[b] = cotangents[b], cotangents[a]

            yield f"{a.label}↔{b.label}", with_cotangents(rule, change)


# Sums over broadcast axes

PASSES = ("reshape", "convert_element_type", "squeeze", "neg", "broadcast_in_dim", "jit", "pjit")


def _final_sums(closed):
    """Return the ids of the sums whose result is a cotangent, up to its shape and type."""
    todo = [(closed.jaxpr, list(closed.jaxpr.outvars))]
    sums = []
    while todo:
        jaxpr, sources = todo.pop()
        makers = {var: e for e in jaxpr.eqns for var in e.outvars}
        while sources:
            var = sources.pop()
            equation = makers.get(var) if not hasattr(var, "val") else None
            if equation is None:
                continue
            name = equation.primitive.name
            if name == "reduce_sum":
                sums.append(id(equation))
            elif name in ("jit", "pjit"):
                called = s.inner(equation).jaxpr
                result = called.outvars[equation.outvars.index(var)]
                todo.append((called, [result]))
                if result in called.invars:
                    sources.append(equation.invars[called.invars.index(result)])
            elif name in PASSES:
                sources.append(equation.invars[0])
    return sums


def _broadcast_sums(rule, change):
    """Yield the rule with a change to each sum that ends in a cotangent."""
    if not rule.symbolic_zeros:
        closed = s.derivative_jaxpr(rule)
        final = _final_sums(closed)
        sums = [id(e) in final for e, smooth in s.equations(closed) if s.reduces(e, smooth)]
        yield from itertools.compress(s.surgery(rule, s.reduces, change, most=len(sums)), sums)


@operator("broadcast, factor, term", tangents=False)
def average_copies(rule):
    """The cotangent of a broadcast argument is the mean over its copies, not the sum."""

    def change(equation, inputs):
        (out,) = s.bind(equation, inputs)
        return [out / max(inputs[0].size // max(out.size, 1), 1)]

    return _broadcast_sums(rule, change)


@operator("broadcast, term, order, element", tangents=False)
def first_copy(rule):
    """The cotangent of a broadcast argument is that of its first copy, times their number."""

    def change(equation, inputs):
        (a,) = inputs
        axes = equation.params["axes"]
        copies = int(np.prod([a.shape[axis] for axis in axes]))
        if copies == 0:
            return s.bind(equation, inputs)
        first = tuple(0 if axis in axes else slice(None) for axis in range(a.ndim))
        return [a[first] * copies]

    return _broadcast_sums(rule, change)


# The cotangent of a broadcast argument keeps the shape it was broadcast to.
faulty_vjp("structure, fails", "deeplearning4j/nd4j/issues/2424", name="forget_sum")(
    lambda ct, at: jnp.broadcast_to(ct, (3, *ct.shape))
)
