"""Faults in the value of a cotangent: factors, terms, single elements, order and broadcasts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from .operator import Mutants, leaves, on_cotangents, operator, with_bwd
from .rule import Rule
from .surgery import (
    bind,
    derivative_jaxpr,
    equations,
    inexact,
    inner,
    named,
    named_real,
    reduces,
    surgery,
    two_cases,
)


@operator("sign")
def negate(rule: Rule) -> Mutants:
    """A cotangent has the wrong sign."""
    yield from on_cotangents(rule, lambda ct, x, dy: -ct)


@operator("factor")
def double(rule: Rule) -> Mutants:
    """A cotangent is twice what it should be."""
    yield from on_cotangents(rule, lambda ct, x, dy: 2 * ct)


@operator("factor")
def half_a_percent(rule: Rule) -> Mutants:
    """A cotangent is too large by half a percent, within the usual tolerance in float32."""
    yield from on_cotangents(rule, lambda ct, x, dy: 1.005 * ct)


@operator("factor")
def one_millionth(rule: Rule) -> Mutants:
    """A cotangent is too large by 1e-6, one or two figures above the rounding of float32."""
    yield from on_cotangents(rule, lambda ct, x, dy: (1 + 1e-6) * ct)


@operator("factor")
def one_billionth(rule: Rule) -> Mutants:
    """A cotangent is too large by 1e-9, which only float64 can show."""
    yield from on_cotangents(rule, lambda ct, x, dy: (1 + 1e-9) * ct)


@operator("factor", bug="https://github.com/paiml/aprender/pull/2182")
def mean_for_sum(rule: Rule) -> Mutants:
    """A cotangent is divided by the length of its first axis, as if the sum were a mean.

    After https://github.com/paiml/aprender/pull/2182: a loss whose gradient was divided by the
    size of the batch, whichever reduction was asked for.
    """
    yield from on_cotangents(
        rule,
        lambda ct, x, dy: ct / max(ct.shape[0], 1),
        lambda leaf: bool(leaf.shape) and leaf.shape[0] > 1,
    )


@operator("term", "factor")
def drop(rule: Rule) -> Mutants:
    """A cotangent is zero."""
    yield from on_cotangents(rule, lambda ct, x, dy: jnp.zeros_like(ct))


# One equation of the derivative rule


def _perturbable(equation, smooth):
    moves = ("convert_element_type", "broadcast_in_dim", "reshape", "squeeze", "transpose")
    name = equation.primitive.name
    return smooth and inexact(equation.outvars[0]) and name not in moves


@operator("term", "factor", "element")
def perturb_equation(rule: Rule) -> Mutants:
    """One intermediate result of the derivative rule is too large by 1e-6."""

    def change(equation, inputs):
        outs = bind(equation, inputs)
        return [a * (1 + 1e-6) if jnp.issubdtype(a.dtype, jnp.inexact) else a for a in outs]

    yield from surgery(rule, _perturbable, change, most=4)


@operator("term", "factor", "sign", "element", "order", "broadcast", "nan")
def lose_summand(rule: Rule) -> Mutants:
    """One of two terms of a sum or difference is left out."""

    def without(place):
        def change(equation, inputs):
            inputs = list(inputs)
            inputs[place] = jnp.zeros_like(inputs[place])
            return bind(equation, inputs)

        return change

    for place in (0, 1):
        mutants = surgery(rule, named("add", "sub", "add_any"), without(place), most=2)
        yield from ((f"{label}[{place}]", mutant) for label, mutant in mutants)


@operator("term", "sign", "factor", "element")
def swap_difference(rule: Rule) -> Mutants:
    """A difference is taken the wrong way round."""
    swapped = lambda equation, inputs: bind(equation, inputs[::-1])  # noqa: E731
    yield from surgery(rule, named("sub"), swapped, most=3)


@operator("term", "sign", "factor", "element")
def lose_minus(rule: Rule) -> Mutants:
    """A minus sign is left out."""
    yield from surgery(rule, named("neg"), lambda equation, inputs: list(inputs), most=3)


RELATIVES = {
    "sin": jax.lax.cos,
    "cos": jax.lax.sin,
    "tanh": jax.lax.erf,
    "logistic": lambda x: 0.5 * (1 + jax.lax.erf(x)),
    "exp": jax.lax.exp2,
    "expm1": jax.lax.exp,
    "log": jax.lax.log1p,
    "log1p": jax.lax.log,
    "sqrt": jax.lax.cbrt,
    "rsqrt": lambda x: 1 / x,
    "sign": jnp.ones_like,
    "abs": lambda x: x,
    "erf": jax.lax.tanh,
    "square": jax.lax.abs,
    "max": jax.lax.min,
    "min": jax.lax.max,
}


@operator("term", "factor", "sign", "element", "tail", "nan", "overflow", "kink", "special value")
def mistake_function(rule: Rule) -> Mutants:
    """A function is taken for a relative of it: a sine for a cosine, a maximum for a minimum."""

    def change(equation, inputs):
        return [RELATIVES[equation.primitive.name](*inputs)]

    yield from surgery(rule, named_real(*RELATIVES), change, most=4)


@operator(
    "term", "factor", "element", "order", "kink", "sign", "nan", "special value", "not linear"
)
def swap_branches(rule: Rule) -> Mutants:
    """A `where` gives its branches in the wrong order."""

    def change(equation, inputs):
        which, *cases = inputs
        return bind(equation, [which, *cases[::-1]])

    yield from surgery(rule, two_cases, change, most=3)


@operator("term", "factor", "sign", "element", "order", "broadcast", "leakage")
def reverse_cumulation(rule: Rule) -> Mutants:
    """A cumulative sum, or a scan, runs the wrong way."""

    def change(equation, inputs):
        params = dict(equation.params) | {"reverse": not equation.params["reverse"]}
        return bind(equation.replace(params=params), inputs)

    yield from surgery(rule, named("cumsum", "cumprod", "cumlogsumexp", "scan"), change, most=2)


@operator(
    "term", "order", "broadcast", "element", bug="https://github.com/pytorch/pytorch/issues/1528"
)
def overwrite_duplicates(rule: Rule) -> Mutants:
    """Where an index occurs twice, the last cotangent overwrites the first.

    Rebuilt from https://github.com/pytorch/pytorch/issues/1528, where indexing with repeated
    entries kept the gradient of the last copy alone.
    """

    def change(equation, inputs):
        operand, indices, updates = inputs
        p = equation.params
        return [jax.lax.scatter(operand, indices, updates, p["dimension_numbers"], mode=p["mode"])]

    yield from surgery(rule, named("scatter-add", "scatter_add"), change, most=2)


# Single elements and order


@operator("element")
def wrong_middle(rule: Rule) -> Mutants:
    """The element in the middle of a cotangent is too large by a thousandth."""

    def change(ct, x, dy):
        where = tuple(n // 2 for n in ct.shape)
        return ct.at[where].multiply(1.001) if ct.size else ct

    yield from on_cotangents(rule, change, lambda leaf: leaf.size > 3)


@operator("element")
def lose_last(rule: Rule) -> Mutants:
    """The last element of a cotangent is zero: an end of a loop that is off by one."""

    def change(ct, x, dy):
        return ct.at[(-1,) * ct.ndim].set(0) if ct.size else ct

    yield from on_cotangents(rule, change, lambda leaf: leaf.size > 3)


@operator("element", "term")
def lose_last_row(rule: Rule) -> Mutants:
    """The last slice along the first axis of a cotangent is zero: a remainder forgotten."""

    def change(ct, x, dy):
        return ct.at[-1].set(0) if ct.shape and ct.shape[0] > 1 else ct

    yield from on_cotangents(rule, change, lambda leaf: len(leaf.shape) > 1 and leaf.shape[0] > 2)


@operator("order", "term")
def roll(rule: Rule) -> Mutants:
    """A cotangent is shifted by one along its last axis."""
    yield from on_cotangents(
        rule, lambda ct, x, dy: jnp.roll(ct, 1, axis=-1), lambda leaf: leaf.shape[-1:] > (1,)
    )


@operator("order", "term")
def reverse(rule: Rule) -> Mutants:
    """A cotangent is the wrong way round along its first axis."""
    yield from on_cotangents(
        rule, lambda ct, x, dy: jnp.flip(ct, axis=0), lambda leaf: leaf.shape[:1] > (1,)
    )


@operator("order", "term", "structure", "fails")
def transpose(rule: Rule) -> Mutants:
    """The cotangent of a matrix is its transpose, reshaped to fit."""
    yield from on_cotangents(
        rule,
        lambda ct, x, dy: ct.T.reshape(ct.shape),
        lambda leaf: len(leaf.shape) == 2 and min(leaf.shape) > 1,
    )


@operator("order", "term", "factor", "sign")
def exchange_cotangents(rule: Rule) -> Mutants:
    """Two arguments of one shape get each other's cotangents."""
    if rule.jvp is not None:
        return
    top = [leaf for leaf in leaves(rule) if leaf.inexact and leaf.tree.num_nodes == 1]
    for a, b in itertools.combinations(top, 2):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            continue

        def around(bwd, residuals, dy, a=a.argument, b=b.argument):
            cotangents = list(bwd(residuals, dy))
            cotangents[a], cotangents[b] = cotangents[b], cotangents[a]
            return tuple(cotangents)

        yield f"{a.label}↔{b.label}", with_bwd(rule, around)


# Sums over broadcast axes

PASSES = ("reshape", "convert_element_type", "squeeze", "neg", "broadcast_in_dim", "jit", "pjit")


def _final_sums(closed):
    """Return the sums whose result is a cotangent, but for its shape and type."""
    makers = {}
    todo = [(closed.jaxpr, list(closed.jaxpr.outvars))]
    found = []
    while todo:
        jaxpr, wanted = todo.pop()
        makers = {var: e for e in jaxpr.eqns for var in e.outvars}
        while wanted:
            var = wanted.pop()
            equation = makers.get(var) if not hasattr(var, "val") else None
            if equation is None:
                continue
            name = equation.primitive.name
            if name == "reduce_sum":
                found.append(id(equation))
            elif name in ("jit", "pjit"):
                place = equation.outvars.index(var)
                called = inner(equation).jaxpr
                todo.append((called, [called.outvars[place]]))
                if called.outvars[place] in called.invars:
                    wanted.append(equation.invars[called.invars.index(called.outvars[place])])
            elif name in PASSES:
                wanted.append(equation.invars[0])
    return found


def _broadcast_sums(rule, change):
    """Yield the rule with a change to each sum that ends in a cotangent."""
    if rule.symbolic_zeros or rule.jvp is not None:
        return
    closed = derivative_jaxpr(rule)
    final = _final_sums(closed)
    sums = [id(e) in final for e, smooth in equations(closed) if reduces(e, smooth)]
    yield from itertools.compress(surgery(rule, reduces, change, most=len(sums)), sums)


@operator("broadcast", "factor", "term")
def average_copies(rule: Rule) -> Mutants:
    """The cotangent of a broadcast argument is the mean over its copies, not the sum."""

    def change(equation, inputs):
        (out,) = bind(equation, inputs)
        return [out / max(inputs[0].size // max(out.size, 1), 1)]

    yield from _broadcast_sums(rule, change)


@operator("broadcast", "term", "order", "element")
def first_copy(rule: Rule) -> Mutants:
    """The cotangent of a broadcast argument is that of its first copy, times their number."""

    def change(equation, inputs):
        (a,) = inputs
        axes = equation.params["axes"]
        copies = int(np.prod([a.shape[axis] for axis in axes]))
        if copies == 0:
            return bind(equation, inputs)
        first = tuple(0 if axis in axes else slice(None) for axis in range(a.ndim))
        return [a[first] * copies]

    yield from _broadcast_sums(rule, change)


@operator("structure", "fails", bug="https://github.com/deeplearning4j/nd4j/issues/2424")
def forget_sum(rule: Rule) -> Mutants:
    """The cotangent of a broadcast argument keeps the shape it was broadcast to.

    Rebuilt from https://github.com/deeplearning4j/nd4j/issues/2424, where the gradient of a row
    that was added to a matrix was a matrix.
    """
    for label, mutant in on_cotangents(
        rule, lambda ct, x, dy: jnp.broadcast_to(ct, (3, *ct.shape)), lambda leaf: True
    ):
        if rule.jvp is None:
            yield label, mutant
