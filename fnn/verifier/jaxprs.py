"""Traced programs: without their custom rules, their operations, and whether they are linear."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from ..custom_op import rules
from ..memory import array_bytes

CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vmap_call")
INLINED = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")


def without_rules(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function without any custom rule in it, at any depth.

    A `jax.custom_vjp`, a `jax.custom_jvp` or an op that it calls becomes its undecorated body.
    """

    @functools.wraps(function)
    def definition(*args: Any, **kwargs: Any) -> Any:
        flat, tree = jax.tree.flatten((args, kwargs))
        arrays = {i: a for i, a in enumerate(flat) if isinstance(a, jax.Array)}

        def call(arrays: dict[int, Any]) -> Any:
            full = [arrays.get(i, a) for i, a in enumerate(flat)]
            args, kwargs = jax.tree.unflatten(tree, full)
            return function(*args, **kwargs)

        with rules("autodiff"):
            closed, shape = jax.make_jaxpr(call, return_shape=True)(arrays)
        outs = evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(arrays))
        return jax.tree.unflatten(jax.tree.structure(shape), outs)

    return definition


def evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Run a traced program without its custom rules."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def read(var: Any) -> Any:
        return var.val if isinstance(var, core.Literal) else values[var]

    for equation in jaxpr.eqns:
        inputs = [read(v) for v in equation.invars]
        name = equation.primitive.name
        inner = next(iter(nested(equation)), None)
        if name in CUSTOM or (name in INLINED and inner is not None and has_rules(equation)):
            assert inner is not None
            outs = evaluate(inner.jaxpr, inner.consts, inputs)
        else:
            params = {k: _without_rules(v) for k, v in equation.params.items()}
            outs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(params))
            outs = outs if equation.primitive.multiple_results else [outs]
        values.update(zip(equation.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _without_rules(param: Any) -> Any:
    """Return a parameter of an equation, such as a scan's body, without custom rules."""
    if isinstance(param, tuple) and any(isinstance(p, core.ClosedJaxpr) for p in param):
        return tuple(map(_without_rules, param))
    if not isinstance(param, core.ClosedJaxpr) or not any(map(has_rules, param.jaxpr.eqns)):
        return param
    run = functools.partial(evaluate, param.jaxpr, param.consts)
    return jax.make_jaxpr(lambda *args: run(args))(*param.in_avals)


def nested(equation: Any) -> Iterator[Any]:
    """Yield every program inside an equation, closed."""
    for param in equation.params.values():
        for value in param if isinstance(param, tuple | list) else (param,):
            if isinstance(value, core.ClosedJaxpr):
                yield value
            elif isinstance(value, core.Jaxpr) and not value.constvars:
                yield core.ClosedJaxpr(value, [])


def has_rules(equation: Any) -> bool:
    """Whether an equation is a call of a function with a custom rule, or holds one."""
    if equation.primitive.name in CUSTOM:
        return True
    return any(has_rules(e) for inner in nested(equation) for e in inner.jaxpr.eqns)


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yield every equation, at any depth."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in nested(equation):
            yield from equations(inner.jaxpr)


def structure(jaxpr: Any) -> tuple[str, ...]:
    """Return the names of a program's operations in order, without their sizes and numbers."""
    return tuple(equation.primitive.name for equation in equations(jaxpr))


MOVES = frozenset(
    [
        *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "rev", "iota"),
        *("slice", "dynamic_slice", "dynamic_update_slice", "gather", "pad", "concatenate"),
        *("split", "stack", "unstack", "copy", "stop_gradient", "optimization_barrier"),
        *("select_n", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not"),
        *("convert_element_type", "jit", "custom_jvp_call", "custom_vjp_call"),
    ]
)
"""Primitives that move, choose or compare numbers, and round none."""


def arithmetic(operations: Sequence[str]) -> tuple[str, ...]:
    """Return the operations that may round."""
    return tuple(name for name in operations if name not in MOVES)


def bytes_made(jaxpr: Any) -> int:
    """Return the bytes of all arrays that a program makes, with one iteration of each loop."""
    arrays = (var.aval for equation in equations(jaxpr) for var in equation.outvars)
    return sum(array_bytes(aval) for aval in arrays if hasattr(aval, "dtype"))


def literals(jaxpr: Any) -> set[float]:
    """Return the floating-point numbers in a program, which may be thresholds.

    Very large and very small ones are left out.
    """
    numbers = {
        float(var.val)
        for equation in equations(jaxpr)
        for var in equation.invars
        if isinstance(var, core.Literal) and np.asarray(var.val).dtype.kind == "f"
    }
    return {number for number in numbers if 1e-4 < abs(number) < 1e4}


NONLINEAR = frozenset(
    [
        *("abs", "acos", "acosh", "argmax", "argmin", "asin", "asinh", "atan", "atan2", "atanh"),
        *("cbrt", "ceil", "clamp", "cos", "cosh", "cummax", "cummin", "cumprod", "digamma", "eq"),
        *("erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma"),
        *("integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max"),
        *("min", "ne", "nextafter", "pow", "reduce_and", "reduce_max", "reduce_min", "reduce_or"),
        *("reduce_prod", "rem", "round", "rsqrt", "sign", "sin", "sinh", "sort", "sqrt", "square"),
        *("tan", "tanh", "top_k"),
    ]
)
"""Primitives that no linear function applies to its argument."""
PRODUCTS = ("mul", "dot_general", "conv_general_dilated")


def first_nonlinear(jaxpr: Any, linear: Sequence[bool]) -> str | None:
    """Return the first primitive that makes a program no linear function of the marked inputs.

    Values that depend on no marked input may be computed in any way. An opaque primitive, such as
    a kernel, is trusted.
    """
    nonlinear: list[str] = []
    _depends(jaxpr, linear, nonlinear)
    return nonlinear[0] if nonlinear else None


def _depends(jaxpr: Any, linear: Sequence[bool], nonlinear: list[str]) -> list[bool]:
    """Return which outputs depend on the marked inputs; collect nonlinear primitives on the way."""
    dependent = {v for v, m in zip(jaxpr.invars, linear, strict=True) if m}

    def depends(var: Any) -> bool:
        return not isinstance(var, core.Literal) and var in dependent

    for equation in jaxpr.eqns:
        name, ins = equation.primitive.name, [depends(v) for v in equation.invars]
        if not any(ins):
            continue
        outs = [True] * len(equation.outvars)
        if (
            name in NONLINEAR
            or (name in PRODUCTS and all(ins[:2]))
            or (name == "div" and ins[1])
            or (name == "select_n" and ins[0])
        ):
            nonlinear.append(name)
        inner = list(nested(equation))
        if name == "scan" and inner:
            outs = _loop(equation, inner[0].jaxpr, ins, nonlinear)
        elif len(inner) == 1 and len(inner[0].jaxpr.invars) == len(ins) and name != "while":
            outs = _depends(inner[0].jaxpr, ins, nonlinear)
        elif name == "cond" and all(len(j.jaxpr.invars) == len(ins) - 1 for j in inner):
            if ins[0]:
                nonlinear.append("cond")
            branches = [_depends(j.jaxpr, ins[1:], nonlinear) for j in inner]
            outs = [any(o) for o in zip(*branches, strict=True)]
        dependent.update(v for v, m in zip(equation.outvars, outs, strict=True) if m)
    return [depends(v) for v in jaxpr.outvars]


def _loop(equation: Any, body: Any, ins: list[bool], nonlinear: list[str]) -> list[bool]:
    """Follow a scan's carried values until no more of them depend on the inputs."""
    carry = carried(equation, body)
    while True:
        scratch: list[str] = []
        marks = _depends(body, ins, scratch)
        after = [a or b for a, b in zip(ins[carry], marks, strict=False)]
        if after == ins[carry]:
            nonlinear.extend(scratch)
            return marks
        ins = [*ins[: carry.start], *after, *ins[carry.stop :]]


def carried(equation: Any, body: Any) -> slice:
    """Return which inputs of a scan's body are carried: constants come before, slices after.

    The ranks show it; the names of the equation's parameters differ between JAX's versions.
    """
    count = sum(_same_rank(*pair) for pair in zip(equation.outvars, body.outvars, strict=True))
    slices = sum(not _same_rank(*pair) for pair in zip(equation.invars, body.invars, strict=True))
    stop = len(body.invars) - slices
    return slice(stop - count, stop)


def _same_rank(a: Any, b: Any) -> bool:
    return len(a.aval.shape) == len(b.aval.shape)
