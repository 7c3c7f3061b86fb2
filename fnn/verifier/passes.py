"""Forward and backward passes, as functions of arrays: the rule's, and automatic differentiation's.

JAX differentiates the function by its rule and the definition by itself. Both passes are `jax.vjp`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .arguments import Arguments

Outcome = dict[str, list[Any]]
"""`y`: the output's leaves; `plain`: the same, not differentiated; `ct`: one cotangent for each
argument that is differentiated."""
Make = Callable[[Callable[..., Any], Arguments], Callable[..., Outcome]]
"""by_rule, by_rule_alone or by_autodiff: returns the function of arrays that a program runs."""
FLOAT0 = jax.dtypes.float0


def call(function: Callable[..., Any], arguments: Arguments, arrays: Sequence[Any]) -> list[Any]:
    """Return the leaves of a function's output, with arrays in their places."""
    return jax.tree.leaves(arguments.apply(function, arrays))


def pullback(
    function: Callable[..., Any],
    arguments: Arguments,
    arrays: Sequence[Any],
    which: Sequence[int] | None = None,
) -> tuple[list[Any], Any]:
    """Return the output's leaves, and the backward pass to the arrays in `which` (all of them)."""
    which = arguments.places if which is None else which
    return backward(functools.partial(call, function, arguments), arrays, which)


def backward(
    run: Callable[[Sequence[Any]], list[Any]], arrays: Sequence[Any], which: Sequence[int]
) -> tuple[list[Any], Any]:
    """Return `run(arrays)`, and its backward pass to the arrays in `which`."""

    def of_some(*some: Any) -> list[Any]:
        return run(exchanged(arrays, which, some))

    return jax.vjp(of_some, *(arrays[i] for i in which))


def both_ways(
    function: Callable[..., Any], arguments: Arguments, arrays: Sequence[Any], dys: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Return the output's leaves, and the arguments' cotangents for the outputs' `dys`."""
    y, pull = pullback(function, arguments, arrays)
    return y, list(pull(typed(dys, y)))


def exchanged(arrays: Sequence[Any], which: Sequence[int], by: Sequence[Any]) -> list[Any]:
    """Return the arrays with those in `which` exchanged."""
    full = list(arrays)
    for i, a in zip(which, by, strict=True):
        full[i] = a
    return full


def typed(dys: Sequence[Any], y: Sequence[Any]) -> list[Any]:
    """Return cotangents in the dtypes of their outputs; integers have float0."""
    return [
        jnp.asarray(dy).astype(out.dtype)
        if jnp.issubdtype(out.dtype, jnp.inexact)
        else np.zeros(out.shape, FLOAT0)
        for dy, out in zip(dys, y, strict=True)
    ]


def ones_like(y: Sequence[Any]) -> list[Any]:
    """Return cotangents of 1 for outputs."""
    return typed([np.ones(out.shape) for out in y], y)


def by_autodiff(definition: Callable[..., Any], arguments: Arguments) -> Callable[..., Outcome]:
    """Return the definition, differentiated by JAX."""

    def run(arrays: Sequence[Any], dys: Sequence[Any]) -> Outcome:
        y, cotangents = both_ways(definition, arguments, arrays, dys)
        return {"y": y, "ct": cotangents}

    return run


def by_rule(function: Callable[..., Any], arguments: Arguments) -> Callable[..., Outcome]:
    """Return the function, called plainly and differentiated by its rule."""
    rule = by_rule_alone(function, arguments)

    def run(arrays: Sequence[Any], dys: Sequence[Any], jitter: Any, salt: Any) -> Outcome:
        plain = call(function, arguments, arrays)
        return {"plain": plain, **rule(arrays, dys, jitter, salt)}

    return run


def by_rule_alone(function: Callable[..., Any], arguments: Arguments) -> Callable[..., Outcome]:
    """Return the function, differentiated by its rule, without the plain call.

    `jitter` changes each number of the residuals by that relative amount, which shows the effect
    of their rounding. A jitter of 0 leaves the residuals bitwise unchanged.
    """

    def run(arrays: Sequence[Any], dys: Sequence[Any], jitter: Any, salt: Any) -> Outcome:
        y, pull = pullback(function, arguments, arrays)
        leaves, tree = jax.tree.flatten(pull)
        leaves = [
            _shake(leaf, jitter, salt + i)
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact)
            else leaf
            for i, leaf in enumerate(leaves)
        ]
        return {"y": y, "ct": list(jax.tree.unflatten(tree, leaves)(typed(dys, y)))}

    return run


@jax.jit  # traced once for all residuals of a shape
def _shake(leaf: jax.Array, jitter: jax.Array, salt: jax.Array) -> jax.Array:
    """Multiply each number by 1 + jitter or 1 - jitter."""
    count = jnp.arange(leaf.size, dtype=jnp.uint32).reshape(leaf.shape)
    mixed = (count + salt.astype(jnp.uint32)) * np.uint32(2654435761)
    up = (mixed ^ (mixed >> np.uint32(15))) & np.uint32(64) == 0
    jitter = jitter.astype(jnp.finfo(leaf.dtype).dtype)
    change = jnp.where(up, jitter, -jitter)
    return leaf * (1 + change).astype(leaf.dtype)
