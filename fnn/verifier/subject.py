"""The subject: a function with a backward rule, and the definition that it is compared with."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from ..custom_op import Op
from . import jaxprs
from .arguments import Arguments


@dataclass(frozen=True)
class Subject:
    """A function that JAX differentiates by a rule, and its definition, which needs none.

    `states_conventions`: whether the rule must follow the definition's derivative at a kink, even
    if other subgradients exist. True of ops.
    """

    name: str
    function: Callable[..., Any]
    definition: Callable[..., Any]
    nondiff: tuple[int, ...] = ()
    states_conventions: bool = False
    fwd: Callable[..., Any] | None = None
    bwd: Callable[..., Any] | None = None
    other: bool = False
    """Whether the definition is a separate function, and not the function without its rule."""
    reference: Callable[..., Any] | None = None
    """A second source of the values, with the broadcasting and promotion of plain JAX."""


def find(function: Any, definition: Callable[..., Any] | None) -> Subject:
    """Return the subject of a function, with a definition of its own if none is passed.

    Raises TypeError for a value that has no rule or is no function; it says what to pass instead.
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
        definition, reference = definition or function.definition, function.reference
        return Subject(name, function, definition, (), True, reference=reference)
    subject = functools.partial(Subject, name, function, other=other)
    if isinstance(function, jax.custom_vjp):
        fwd, bwd = getattr(function, "fwd", None), getattr(function, "bwd", None)
        if fwd is None or bwd is None:
            raise TypeError(f"verify: {name} has no rule yet; call {name}.defvjp(fwd, bwd) first")
        own = {} if getattr(function, "symbolic_zeros", False) else {"fwd": fwd, "bwd": bwd}
        return subject(definition or function.fun, _nondiff(function), **own)
    if isinstance(function, jax.custom_jvp):
        if getattr(function, "jvp", None) is None:
            raise TypeError(f"verify: {name} has no rule yet; decorate one with @{name}.defjvp")
        return subject(definition or function.fun, _nondiff(function))
    return subject(definition or _stripped(function))


@functools.lru_cache(maxsize=256)
def _stripped(function: Callable[..., Any]) -> Callable[..., Any]:
    return jaxprs.without_rules(function)


def _nondiff(function: Any) -> tuple[int, ...]:
    """Return the positions of the arguments that are static to a rule."""
    positions = function.nondiff_argnums
    return tuple(positions) if isinstance(positions, tuple | list) else (positions,)


def _name(function: Any) -> str:
    if isinstance(function, functools.partial):
        return getattr(function.func, "__name__", "function")
    return type(function).__name__


def check_call(subject: Subject, arguments: Arguments) -> None:
    """Check that function and definition accept the call, and that there is a rule to verify.

    Raises TypeError or ValueError; the message says what to pass instead.
    """
    arrays = arguments.structs()
    if not any(leaf.differentiable for leaf in arguments.leaves):
        raise TypeError(
            f"verify: no argument of {arguments.show(subject.name)} can be differentiated; pass "
            f'at least one floating-point array or its description, such as "f32[8,16]"'
            + signature(subject.function)
        )
    for what, function in (("definition", subject.definition), ("function", subject.function)):
        shape: Any = None
        try:
            shape = jax.eval_shape(functools.partial(arguments.apply, function), arrays)
        except Exception as error:
            raise ValueError(
                f"verify: the {what} cannot be called as {arguments.show(subject.name)}: "
                f"{first_line(error)}" + signature(function)
            ) from error
    outputs = jax.tree.leaves(shape)
    if not any(jax.numpy.issubdtype(y.dtype, jax.numpy.inexact) for y in outputs):
        types = ", ".join(f"{y.dtype}{list(y.shape)}" for y in outputs) or "nothing"
        raise TypeError(
            f"verify: {subject.name} is not differentiable: its output holds no floating-point "
            f"number, but {types}"
        )
    if subject.definition is _own_definition(subject.function):
        closed = jax.make_jaxpr(functools.partial(arguments.apply, subject.function))(arrays)
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


def signature(function: Any) -> str:
    """Return a clause with a function's signature, or nothing if it has none."""
    try:
        text = f"{getattr(function, '__name__', '')}{inspect.signature(function)}"
    except (TypeError, ValueError):
        return ""
    return f"; its signature is {text}"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, without the lines that explain JAX."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip() if lines else ''}"[:300]
