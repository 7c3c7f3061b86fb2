"""Surgery on a derivative rule: run it equation by equation, with a fault in one of them."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from . import operator as o
from .rule import Rule

CALLS = ("jit", "pjit", "closed_call")


def bind(equation: Any, inputs: list[Any]) -> list[Any]:
    """Run one equation as it is."""
    params = equation.primitive.get_bind_params(equation.params)
    out = equation.primitive.bind(*inputs, **params)
    return list(out) if equation.primitive.multiple_results else [out]


def interpret(closed: Any, args: list[Any], run: Callable[..., list[Any]]) -> list[Any]:
    """Evaluate a jaxpr with `run(equation, inputs, smooth)`; calls of other jaxprs are entered."""
    environment = dict(zip(closed.jaxpr.constvars, closed.consts))
    environment |= dict(zip(closed.jaxpr.invars, args))

    def read(var):
        return var.val if isinstance(var, core.Literal) else environment[var]

    for equation, smooth in live(closed.jaxpr):
        inputs = [read(var) for var in equation.invars]
        if equation.primitive.name in CALLS:
            outs = interpret(inner(equation), inputs, run)
        else:
            outs = run(equation, inputs, smooth)
        environment.update(zip(equation.outvars, outs))
    return [read(var) for var in closed.jaxpr.outvars]


def inner(equation: Any) -> Any:
    """Return the jaxpr that an equation calls."""
    return equation.params.get("jaxpr") or equation.params["call_jaxpr"]


def live(jaxpr: Any) -> list[tuple[Any, bool]]:
    """Return the equations that an output depends on, in order, and whether it does so smoothly.

    An equation that reaches the outputs through comparisons and integers only is not smooth: a
    small fault there changes nothing.
    """
    sources = set(filter(_is_var, jaxpr.outvars))
    smooth = set(sources)
    alive = []
    for equation in reversed(jaxpr.eqns):
        if any(var in sources for var in equation.outvars):
            passes = any(var in smooth and inexact(var) for var in equation.outvars)
            alive.append((equation, passes))
            inputs = set(filter(_is_var, equation.invars))
            sources |= inputs
            smooth |= inputs if passes else set()
    return alive[::-1]


def _is_var(var):
    return not isinstance(var, core.Literal)


def equations(closed: Any) -> list[tuple[Any, bool]]:
    """Return all live equations, those of called jaxprs in the place of the calls."""
    flat = []
    for equation, smooth in live(closed.jaxpr):
        is_call = equation.primitive.name in CALLS
        flat += equations(inner(equation)) if is_call else [(equation, smooth)]
    return flat


def _traceable(a):
    if not hasattr(a, "dtype") or a.dtype == jax.dtypes.float0:
        return False
    # A size among the residuals must stay a number: shapes are made of it. JAX's ints have a dtype.
    if isinstance(a, int):
        return False
    size = a.ndim == 0 and jnp.issubdtype(a.dtype, jnp.integer)
    return isinstance(a, jax.core.Tracer | jax.ShapeDtypeStruct) or not size


def trace(function: Callable[..., Any], args: Any) -> tuple[Any, list[Any], Callable[..., Any]]:
    """Return the jaxpr of `function(*args)`, its inputs, and the way back to the result's tree.

    float0 zeros have no place in a jaxpr: they are constants among the inputs and the outputs.
    """
    flat, tree = jax.tree.flatten(args)
    at = [number for number, a in enumerate(flat) if _traceable(a)]
    result = []

    def flattened(*inputs):
        values = dict(zip(at, inputs))
        filled = [values.get(number, a) for number, a in enumerate(flat)]
        result[:] = jax.tree.flatten(function(*jax.tree.unflatten(tree, filled)))
        return [a for a in result[0] if _traceable(a)]

    inputs = [flat[number] for number in at]
    closed = jax.make_jaxpr(flattened)(*inputs)
    out, out_tree = result

    def restore(values):
        values = iter(values)
        return jax.tree.unflatten(out_tree, [next(values) if _traceable(a) else a for a in out])

    return closed, inputs, restore


def derivative(rule: Rule, static: tuple[Any, ...]) -> Callable[..., Any]:
    """Return a rule's backward rule, or the tangents of its jvp rule, as a function of arrays."""
    if rule.jvp is None:
        return functools.partial(rule.bwd, *static)
    return lambda primals, tangents: rule.jvp(*static, primals, tangents)[1]


def derivative_jaxpr(rule: Rule) -> Any:
    """Return the jaxpr of the derivative of a rule."""
    args = tuple(jax.tree.map(o.struct, a, is_leaf=lambda a: a is None) for a in rule.args)
    static = tuple(args[number] for number in rule.nondiff_argnums)
    if rule.jvp is None:
        inputs = o.abstract(rule.fwd, rule)[1], jax.tree.map(o.tangent_of, o.output(rule))
    else:
        primals = tuple(o.differentiable(rule, args))
        inputs = primals, jax.tree.map(o.tangent_of, primals)
    return trace(derivative(rule, static), inputs)[0]


def with_change(rule: Rule, eligible: Callable, which: int, change: Callable) -> Rule:
    """Return the rule with `change(equation, inputs)` for its eligible equation number `which`.

    `smooth`, in `eligible(equation, smooth)`, is whether the outputs depend on it smoothly.
    """
    static = len(rule.nondiff_argnums)

    def faulty(*call):
        closed, inputs, restore = trace(derivative(rule, call[:static]), call[static:])
        count = itertools.count()

        def run(equation, values, smooth):
            if eligible(equation, smooth) and next(count) == which:
                return change(equation, values)
            return bind(equation, values)

        return restore(interpret(closed, inputs, run))

    if rule.jvp is None:
        return rule.replace(bwd=faulty)
    return rule.replace(jvp=lambda *call: (rule.jvp(*call)[0], faulty(*call)))


def surgery(rule: Rule, eligible: Callable, change: Callable, most: int = 6) -> o.Mutants:
    """Yield the rule with a change to one eligible equation at a time, `most` of them.

    Rules with symbolic zeros are left out: their backward rules are no functions of arrays only.
    """
    if rule.symbolic_zeros:
        return
    candidates = [e for e, smooth in equations(derivative_jaxpr(rule)) if eligible(e, smooth)]
    most = min(most, len(candidates))
    places = np.unique(np.linspace(0, len(candidates) - 1, most).astype(int))
    for which in map(int, places):
        label = f"{which}:{candidates[which].primitive.name}"
        yield label, with_change(rule, eligible, which, change)


Test = Callable[[Any, bool], bool]


def faulty_equation(
    defects: str, bugs: str = "", *, of: Test, most: int = 2, name: str = ""
) -> Callable[[Callable[[Any, list[Any]], list[Any]]], None]:
    """Register a fault in one equation: the decorated change, as `surgery` calls it."""

    def decorate(change):
        make = functools.partial(surgery, eligible=of, change=change, most=most)
        o.register(name or change.__name__, defects, make, bugs)

    return decorate


def stand_ins(
    name: str, defects: str, bugs: str = "", *, of: Callable, most: int = 2, **functions: Callable
) -> None:
    """Register a fault that puts another function in the place of a primitive, by its name."""

    def change(equation, inputs):
        return [functions[equation.primitive.name](*inputs)]

    faulty_equation(defects, bugs, of=of(*functions), most=most, name=name)(change)


def primitives(*names: str) -> Test:
    """Return a test for equations of some primitives on which an output depends smoothly."""
    return lambda e, smooth: smooth and e.primitive.name in names and inexact(e.outvars[0])


def real_primitives(*names: str) -> Test:
    """Return a test for such equations with real results."""
    return lambda e, smooth: primitives(*names)(e, smooth) and jnp.isrealobj(e.outvars[0].aval)


def two_cases(equation: Any, smooth: bool) -> bool:
    """Return whether an equation selects between two arrays."""
    return primitives("select_n")(equation, smooth) and len(equation.invars) == 3


def reduces(equation: Any, smooth: bool) -> bool:
    """Return whether an equation is a sum of more than one number."""
    if not primitives("reduce_sum")(equation, smooth):
        return False
    return equation.invars[0].aval.size > equation.outvars[0].aval.size


def inexact(var: Any) -> bool:
    """Return whether a variable of a jaxpr holds real or complex numbers."""
    return jnp.issubdtype(var.aval.dtype, jnp.inexact)
