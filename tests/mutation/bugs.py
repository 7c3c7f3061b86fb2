"""How a fault of one rule is planted: by a rewritten backward pass, function or tangent."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .operator import differentiable, is_inexact, register
from .rule import Rule


def only(names: str, *defects: str) -> Callable[[Callable[[Rule], Rule]], None]:
    """Register a fault of the rules named: the decorated function, from a rule to its mutant."""

    def decorate(make):
        def applied(rule):
            if rule.name in names.split():
                yield "rule", make(rule)

        register(make.__name__, defects, applied, make.__doc__)

    return decorate


def wrong_backward(
    names: str, *defects: str, args: Sequence[Any] = ()
) -> Callable[[Callable[..., Any]], None]:
    """Register a fault of the rules named: the decorated `backward(rule, args, dy, right)`.

    All arguments are saved. `right` are the cotangents that automatic differentiation of the body
    gives, None for arguments of integers, booleans and keys. `args` replace the rule's own.
    """

    def decorate(backward):
        def make(rule):
            rule = rule.replace(args=tuple(args) or rule.args)
            return _rewritten(rule, lambda *call: backward(rule, *call))

        make.__name__, make.__doc__ = backward.__name__, backward.__doc__
        only(names, *defects)(make)

    return decorate


def wrong_function(names: str, *defects: str) -> Callable[[Callable[..., Any]], None]:
    """Register a fault of the rules named: they get the derivative of the decorated function."""

    def decorate(wrong):
        def make(rule):
            return _rewritten(rule, lambda args, dy, right: pullback(rule, wrong, args, dy))

        make.__name__, make.__doc__ = wrong.__name__, wrong.__doc__
        only(names, *defects)(make)

    return decorate


def wrong_tangent(names: str, *defects: str) -> Callable[[Callable[..., Any]], None]:
    """Register a fault of the rules named: the decorated `tangent(rule, primals, tangents, dy)`.

    They are `custom_jvp` rules, and dy is the right tangent.
    """

    def decorate(tangent):
        def make(rule):
            static = len(rule.nondiff_argnums)

            def jvp(*call):
                y, dy = rule.jvp(*call)
                return y, tangent(rule, *call[static:], dy)

            return rule.replace(jvp=jvp)

        make.__name__, make.__doc__ = tangent.__name__, tangent.__doc__
        only(names, *defects)(make)

    return decorate


def _rewritten(rule, backward):
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
    """Return what automatic differentiation of a function gives for each argument of a rule."""
    numbers = [n for n in range(len(args)) if n not in rule.nondiff_argnums]
    active = [n for n in numbers if all(map(is_inexact, jax.tree.leaves(args[n])))]

    def call(*inputs):
        full = list(args)
        for n, a in zip(active, inputs):
            full[n] = a
        return function(*full)

    found = dict(zip(active, jax.vjp(call, *(args[n] for n in active))[1](dy)))
    return [found.get(n) for n in numbers]
