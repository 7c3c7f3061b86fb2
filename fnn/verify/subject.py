"""What is verified: a function with a backward rule, and the definition that judges it."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from ..custom_op import Op
from . import jaxprs
from .arguments import Arguments, struct


@dataclass(frozen=True)
class Subject:
    """A function that JAX differentiates by a rule, and its definition, which needs none.

    `states_conventions`: what the definition's derivative is at a kink binds the rule, even where
    other subgradients exist. True of ops.
    """

    name: str
    function: Callable[..., Any]
    definition: Callable[..., Any]
    nondiff: tuple[int, ...] = ()
    states_conventions: bool = False
    fwd: Callable[..., Any] | None = None
    bwd: Callable[..., Any] | None = None
    other: bool = False
    """Whether the definition is a function of its own, and not what stands under the rule."""
    reference: Callable[..., Any] | None = None
    """A second opinion on the values, which broadcasts and promotes as plain JAX does."""


def find(function: Any, definition: Callable[..., Any] | None) -> Subject:
    """Find out what a function is, and its definition if none is given.

    Raises TypeError, saying what to pass, for something that has no rule or cannot be called.
    """
    if not callable(function):
        raise TypeError(
            f"verify: expected a function, got {type(function).__name__}; pass an fnn op, a "
            "jax.custom_vjp or jax.custom_jvp function, or a function and its definition="
        )
    if definition is not None and not callable(definition):
        raise TypeError(
            f"verify: definition= must be a function of the same arguments, got "
            f"{type(definition).__name__}"
        )
    name, other = getattr(function, "__name__", None) or _name(function), definition is not None
    if isinstance(function, Op):
        for which, rule in (("fwd", function.fwd_rule), ("bwd", function.bwd_rule)):
            if rule is None:
                raise TypeError(f"verify: {name} has no {which} rule; write @{name}.def_{which}")
        return Subject(
            name,
            function,
            definition or function.definition,
            (),
            True,
            reference=function.reference,
        )
    if isinstance(function, jax.custom_vjp):
        fwd, bwd = getattr(function, "fwd", None), getattr(function, "bwd", None)
        if fwd is None or bwd is None:
            raise TypeError(f"verify: {name} has no rule yet; call {name}.defvjp(fwd, bwd) first")
        plain = not getattr(function, "symbolic_zeros", False)
        return Subject(
            name,
            function,
            definition or function.fun,
            _places(function),
            other=other,
            fwd=fwd if plain else None,
            bwd=bwd if plain else None,
        )
    if isinstance(function, jax.custom_jvp):
        if getattr(function, "jvp", None) is None:
            raise TypeError(f"verify: {name} has no rule yet; decorate one with @{name}.defjvp")
        return Subject(name, function, definition or function.fun, _places(function), other=other)
    return Subject(name, function, definition or _stripped(function), other=other)


@functools.lru_cache(maxsize=256)
def _stripped(function: Callable[..., Any]) -> Callable[..., Any]:
    return jaxprs.without_rules(function)


def _places(function: Any) -> tuple[int, ...]:
    """Return the positions that are no arguments to differentiate by."""
    marked = function.nondiff_argnums
    return tuple(marked) if isinstance(marked, tuple | list) else (marked,)


def _name(function: Any) -> str:
    if isinstance(function, functools.partial):
        return getattr(function.func, "__name__", "function")
    return type(function).__name__


def check_call(subject: Subject, arguments: Arguments) -> None:
    """Check that function and definition can be called so, and that there is a rule to verify.

    Raises TypeError or ValueError with what to pass instead.
    """
    arrays = [struct(leaf) for leaf in arguments.leaves]
    if not any(leaf.differentiable for leaf in arguments.leaves):
        raise TypeError(
            f"verify: no argument of {arguments.show(subject.name)} can be differentiated; pass "
            f'at least one floating-point array or its description, such as "f32[8,16]"'
            + _signature(subject.function)
        )
    outputs = []
    for what, function in (("definition", subject.definition), ("function", subject.function)):
        shape: Any = None
        try:
            shape = jax.eval_shape(lambda *a, f=function: _call(f, arguments, a), *arrays)
        except Exception as error:
            raise ValueError(
                f"verify: the {what} cannot be called as {arguments.show(subject.name)}: "
                f"{first_line(error)}" + _signature(function)
            ) from error
        outputs.append(shape)
    if not any(jax.numpy.issubdtype(y.dtype, jax.numpy.inexact) for y in jax.tree.leaves(shape)):
        raise TypeError(
            f"verify: {subject.name} is not differentiable: its output holds no floating-point "
            f"number, but {_types(shape)}"
        )
    if subject.definition is _own_definition(subject.function):
        closed = jax.make_jaxpr(lambda *a: _call(subject.function, arguments, a))(*arrays)
        if not any(map(jaxprs.has_rules, closed.jaxpr.eqns)):
            raise TypeError(
                f"verify: no custom rule was found in {subject.name}, so there is nothing to "
                "compare; pass a jax.custom_vjp, a jax.custom_jvp or an fnn op, or give the "
                "function to compare with as definition="
            )


def _own_definition(function: Any) -> Any:
    if isinstance(function, Op | jax.custom_vjp | jax.custom_jvp):
        return None
    try:
        return _stripped(function)
    except TypeError:
        return None


def _call(function: Callable[..., Any], arguments: Arguments, arrays: Any) -> Any:
    args, kwargs = arguments.build(arrays)
    return function(*args, **kwargs)


def _types(tree: Any) -> str:
    return ", ".join(f"{y.dtype}{list(y.shape)}" for y in jax.tree.leaves(tree)) or "nothing"


def _signature(function: Any) -> str:
    try:
        return (
            f"; its signature is {getattr(function, '__name__', '')}{inspect.signature(function)}"
        )
    except (TypeError, ValueError):
        return ""


def first_line(error: BaseException) -> str:
    """Return what an exception says, without the lines that explain JAX."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip() if lines else ''}"[:300]
