"""Operators, which put faults into rules, and the parts that they are written with."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from fnn.verifier.arguments import Domain, read
from fnn.verifier.defects import DEFECTS

from .rule import Rule

Mutants = Iterator[tuple[str, Rule]]

VAGUE = frozenset({"sign", "factor", "term", "element", "nan", "fails"})
"""Defects that faults of any group may show themselves as."""


@dataclasses.dataclass(frozen=True)
class Operator:
    """One kind of fault, with the defects that name it rightly, and the bug report it comes from.

    `make(rule)` yields every way to put it into a rule, as pairs of a label and the faulty rule.
    """

    name: str
    defects: frozenset[str]
    bug: str
    make: Callable[[Rule], Mutants]

    @property
    def group(self) -> str:
        """The group that most of its defects belong to, vague ones aside; the last of equals."""
        telling = (self.defects - VAGUE) or self.defects
        groups = [defect.group for name, defect in reversed(DEFECTS.items()) if name in telling]
        return max(groups, key=groups.count)


OPERATORS: dict[str, Operator] = {}
"""The corpus of faults, by name."""


def register(name: str, defects: str, make: Callable[[Rule], Mutants], bugs: str = "") -> None:
    """Put an operator into the table, with its defects "a, b" and its reports on GitHub "c d"."""
    names = frozenset(defects.split(", "))
    if name in OPERATORS or not names <= set(DEFECTS):
        raise ValueError(f"{name} is there already, or there are no such defects: {defects}")
    bug = f"https://github.com/{bugs.split()[0]}" if bugs else ""
    OPERATORS[name] = Operator(name, names, bug, make)


def operator(defects: str, bugs: str = "", tangents: bool = True) -> Callable[[Any], None]:
    """Register an operator: the decorated function, from a rule to its mutants.

    Without `tangents`, it applies to `custom_vjp` rules only.
    """

    def decorate(make):
        of_vjp = lambda rule: make(rule) if rule.jvp is None else iter(())  # noqa: E731
        register(make.__name__, defects, make if tangents else of_vjp, bugs)

    return decorate


# The arrays of a rule, without running it


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Leaf `position` of differentiable argument `argument`, whose structure is `tree`.

    `domain` is where its numbers may lie, None for anywhere.
    """

    label: str
    argument: int
    position: int
    tree: Any
    shape: tuple[int, ...]
    dtype: Any
    domain: Domain | None = None

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def inexact(self) -> bool:
        """Whether it has a cotangent of its own."""
        return jnp.issubdtype(self.dtype, jnp.inexact)


def struct(a: Any) -> Any:
    """Return the shape struct of a spec; anything else is returned as it is."""
    if not isinstance(a, str) or "[" not in a:
        return a
    spec = read(a)
    key = jax.eval_shape(jax.random.key, 0).dtype
    return jax.ShapeDtypeStruct(spec.shape, key if spec.dtype == "key" else spec.dtype)


def differentiable(rule: Rule, args: tuple[Any, ...]) -> list[Any]:
    """Return the arguments that are not among the rule's `nondiff_argnums`."""
    return [a for number, a in enumerate(args) if number not in rule.nondiff_argnums]


def leaves(rule: Rule) -> list[Leaf]:
    """Return every array leaf of the differentiable arguments, integers and keys included."""
    arrays = []
    for argument, a in enumerate(differentiable(rule, rule.args)):
        paths, tree = jax.tree_util.tree_flatten_with_path(a, is_leaf=lambda a: a is None)
        for position, (path, spec) in enumerate(paths):
            if hasattr(array := struct(spec), "shape"):
                place = f"{argument}{jax.tree_util.keystr(path)}", argument, position, tree
                domain = read(spec).domain if isinstance(spec, str) else None
                arrays.append(Leaf(*place, array.shape, array.dtype, domain))
    return arrays


def abstract(function: Callable[..., Any], rule: Rule) -> Any:
    """Return the value of `function` at the rule's arguments, with shape structs for arrays."""
    args = [jax.tree.map(struct, a, is_leaf=lambda a: a is None) for a in rule.args]
    numbers = [n for n in range(len(args)) if n not in rule.nondiff_argnums]
    value = []

    def call(dynamic):
        value[:] = jax.tree.flatten(function(*(dynamic.get(n, a) for n, a in enumerate(args))))
        return [a for a in value[0] if hasattr(a, "dtype")]

    arrays = iter(jax.eval_shape(call, {n: args[n] for n in numbers}))
    flat, tree = value
    return jax.tree.unflatten(tree, [next(arrays) if hasattr(a, "dtype") else a for a in flat])


def output(rule: Rule) -> Any:
    """Return the shapes of a rule's value."""
    return abstract(rule.primal, rule)


def tangent_of(a: Any) -> Any:
    """Return the shape struct, or the float0 zeros, of the tangent of an array."""
    if jnp.issubdtype(a.dtype, jnp.inexact):
        return jax.ShapeDtypeStruct(a.shape, a.dtype)
    return np.zeros(a.shape, jax.dtypes.float0)


# Putting a fault in


def is_inexact(a: Any) -> bool:
    """Return whether a is an array of real or complex numbers."""
    if isinstance(a, SymbolicZero) or not hasattr(a, "dtype"):
        return False
    return jnp.issubdtype(a.dtype, jnp.inexact)


def map_inexact(change: Callable[[Any], Any], tree: Any) -> Any:
    """Apply `change` to the real and complex arrays of a tree, and leave the others."""
    return jax.tree.map(
        lambda a: change(a) if is_inexact(a) else a,
        tree,
        is_leaf=lambda a: a is None or isinstance(a, SymbolicZero),
    )


def total(tree: Any) -> Any:
    """Return the sum of all real parts in a tree, in the widest type among them."""
    parts = [jnp.sum(jnp.real(a)) for a in jax.tree.leaves(tree) if is_inexact(a)]
    widest = max((p.dtype for p in parts), key=lambda dtype: dtype.itemsize, default=jnp.float32)
    return sum((p.astype(widest) for p in parts), jnp.zeros((), widest))


def with_bwd(rule: Rule, around: Callable[[Callable[..., Any], Any, Any], Any]) -> Rule:
    """Return the rule with `around(bwd, residuals, dy)` for its backward rule."""
    static = len(rule.nondiff_argnums)

    def bwd(*call):
        return around(functools.partial(rule.bwd, *call[:static]), *call[static:])

    return rule.replace(bwd=bwd)


def with_dy(rule: Rule, change: Callable[[Any], Any]) -> Rule:
    """Return the rule with a change to each array of the upstream cotangent."""
    return with_bwd(rule, lambda bwd, residuals, dy: bwd(residuals, map_inexact(change, dy)))


def with_residuals(rule: Rule, change: Callable[[Any], Any]) -> Rule:
    """Return the rule with a change to each real or complex residual."""
    return with_bwd(rule, lambda bwd, residuals, dy: bwd(map_inexact(change, residuals), dy))


def with_cotangents(rule: Rule, change: Callable[[list[Any]], Any]) -> Rule:
    """Return the rule with a change to the list of its cotangents, in place."""

    def around(bwd, residuals, dy):
        cotangents = list(bwd(residuals, dy))
        change(cotangents)
        return tuple(cotangents)

    return with_bwd(rule, around)


def with_extra(rule: Rule, extra: Callable[[Any], Any], change: Callable[..., Any]) -> Rule:
    """Return the rule with one more residual, and a change to its cotangents.

    The residual is e = extra(arguments); the new cotangents are change(cotangents, e, dy).
    """

    def fwd(*args):
        y, residuals = rule.fwd(*args)
        return y, (residuals, extra(differentiable(rule, args)))

    def around(bwd, both, dy):
        residuals, e = both
        return change(bwd(residuals, dy), e, dy)

    return with_bwd(rule, around).replace(fwd=fwd)


def exchange(cotangents: Any, leaf: Leaf, change: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Return the cotangents with a change to the one of `leaf`, where it has one."""
    cotangents = list(cotangents)
    if cotangents[leaf.argument] is not None:
        flat = leaf.tree.flatten_up_to(cotangents[leaf.argument])
        if is_inexact(flat[leaf.position]):
            flat[leaf.position] = change(flat[leaf.position])
        cotangents[leaf.argument] = jax.tree.unflatten(leaf.tree, flat)
    return tuple(cotangents)


def pick(args: Any, leaf: Leaf) -> Any:
    """Return the value of a leaf among the differentiable arguments of a forward rule."""
    a = leaf.tree.flatten_up_to(args[leaf.argument])[leaf.position]
    return getattr(a, "value", a)


class Site(NamedTuple):
    """The place of a changed cotangent: its argument, of value x, and the upstream cotangent dy."""

    leaf: Leaf
    x: Any
    dy: Any


def on_cotangents(
    rule: Rule,
    change: Callable[[Any, Site], Any],
    when: Callable[[Leaf], bool] = lambda leaf: True,
    inputs: bool = False,
) -> Mutants:
    """Yield the rule with `change(cotangent, site)` for one of its cotangents at a time.

    In a `custom_jvp` rule the change applies to the tangent of an output; x is then an argument of
    the output's shape. Without `inputs`, x is None.
    """
    if rule.jvp is not None:
        yield from _on_tangents(rule, change, when, inputs)
        return
    for leaf in leaves(rule):
        if leaf.inexact and when(leaf):
            yield leaf.label, _with_cotangent(rule, change, leaf, inputs)


def faulty_cotangent(
    defects: str, bugs: str = "", *, tangents: bool = True, name: str = "", **options: Any
) -> Callable[[Callable[[Any, Site], Any]], None]:
    """Register a fault in one cotangent: the decorated change, for `on_cotangents(**options)`.

    Without `tangents`, it applies to `custom_vjp` rules only.
    """

    def decorate(change):
        def make(rule):
            if tangents or rule.jvp is None:
                yield from on_cotangents(rule, change, **options)

        register(name or change.__name__, defects, make, bugs)

    return decorate


faulty_vjp = functools.partial(faulty_cotangent, tangents=False)


def _with_cotangent(rule, change, leaf, inputs):
    return with_extra(
        rule,
        lambda args: pick(args, leaf) if inputs else None,
        lambda cts, x, dy: exchange(cts, leaf, lambda ct: change(ct, Site(leaf, x, dy))),
    )


def _on_tangents(rule, change, when, inputs):
    static = len(rule.nondiff_argnums)
    outputs, tree = jax.tree.flatten(output(rule))
    for position, y in enumerate(outputs):
        like = [leaf for leaf in leaves(rule) if leaf.inexact and leaf.shape == y.shape]
        if not jnp.issubdtype(y.dtype, jnp.inexact) or (inputs and not like):
            continue
        source = like[0] if like else Leaf("", 0, 0, None, y.shape, y.dtype)
        if not when(source):
            continue

        def jvp(*call, position=position, source=source):
            primals, tangents = call[static:]
            y, dy = rule.jvp(*call)
            flat = tree.flatten_up_to(dy)
            x = pick(primals, source) if inputs else None
            flat[position] = change(flat[position], Site(source, x, tangents))
            return y, jax.tree.unflatten(tree, flat)

        yield f"y{position}", rule.replace(jvp=jvp)
