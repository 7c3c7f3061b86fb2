"""Decorators for faults of single rules: a wrong backward pass, function or tangent."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from .operator import differentiable, is_inexact, register
from .rule import Rule

Decorator = Callable[[Callable[..., Any]], None]


def only(
    names: str, defects: str, bugs: str = "", into: Callable = lambda make, rule: make(rule)
) -> Decorator:
    """Register a fault of some rules: `into(decorated, rule)` makes the mutant."""

    def decorate(function):
        def make(rule):
            if rule.name in names.split():
                yield "rule", into(function, rule)

        register(function.__name__, defects, make, bugs)

    return decorate


def wrong_backward(names: str, defects: str, bugs: str = "", args: Sequence[Any] = ()) -> Decorator:
    """Register a fault of some rules: the decorated `backward(rule, args, dy, right)`.

    The residuals are all arguments. `right` are the cotangents by automatic differentiation of the
    body, None for arguments of integers, booleans and keys. `args` replace the rule's own.
    """

    def into(backward, rule):
        rule = rule.replace(args=tuple(args) or rule.args)
        return _with_backward(rule, functools.partial(backward, rule))

    return only(names, defects, bugs, into)


def wrong_function(names: str, defects: str, bugs: str = "") -> Decorator:
    """Register a fault of some rules: they get the derivative of the decorated function."""

    def into(wrong, rule):
        return _with_backward(rule, lambda args, dy, right: pullback(rule, wrong, args, dy))

    return only(names, defects, bugs, into)


def wrong_tangent(names: str, defects: str, bugs: str = "") -> Decorator:
    """Register a fault of some `custom_jvp` rules: `tangent(rule, primals, tangents, dy)`.

    dy is the right tangent.
    """

    def into(tangent, rule):
        def jvp(*call):
            y, dy = rule.jvp(*call)
            return y, tangent(rule, *call[len(rule.nondiff_argnums) :], dy)

        return rule.replace(jvp=jvp)

    return only(names, defects, bugs, into)


def _with_backward(rule, backward):
    """Return the rule with `backward(args, dy, right)` for its cotangents."""
    static = len(rule.nondiff_argnums)

    def fwd(*args):
        return rule.primal(*args), tuple(differentiable(rule, args))

    def bwd(*call):
        fixed, (dynamic, dy) = iter(call[:static]), call[static:]
        dynamic = iter(dynamic)
        numbers = range(len(rule.args))
        args = [next(fixed if n in rule.nondiff_argnums else dynamic) for n in numbers]
        return tuple(backward(args, dy, pullback(rule, rule.primal, args, dy)))

    return rule.replace(fwd=fwd, bwd=bwd)


def pullback(rule: Rule, function: Callable[..., Any], args: list[Any], dy: Any) -> list[Any]:
    """Return the cotangent of each argument of a rule, by automatic differentiation."""
    numbers = [n for n in range(len(args)) if n not in rule.nondiff_argnums]
    active = [n for n in numbers if all(map(is_inexact, jax.tree.leaves(args[n])))]

    def call(*inputs):
        values = dict(zip(active, inputs))
        return function(*(values.get(n, a) for n, a in enumerate(args)))

    cotangents = dict(zip(active, jax.vjp(call, *(args[n] for n in active))[1](dy)))
    return [cotangents.get(n) for n in numbers]
