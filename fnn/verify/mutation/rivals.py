"""Other gradient checkers, each with its own default tolerances, on the same functions.

They take arrays of real or complex numbers and nothing else, so every other argument is held, and
every other output left out. A function with a `custom_vjp` has no forward mode, so that theirs is
asked for only where there is a `custom_jvp`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import FnnError
from ..arguments import parse
from ..values import draw, to_dtype
from .corpus import Rule

Function = Callable[..., Any]


def check_grads(function: Function, arrays: Sequence[np.ndarray], modes: tuple[str, ...]) -> None:
    """Finite differences along one random direction."""
    from jax.test_util import check_grads as check

    check(function, arrays, order=1, modes=modes)


def assert_numerical_grads(
    function: Function, arrays: Sequence[np.ndarray], modes: tuple[str, ...]
) -> None:
    """The same, with an absolute tolerance that grows with the first argument's size."""
    import chex

    chex.assert_numerical_grads(function, arrays, order=1, modes=modes)


RIVALS: dict[str, Callable[[Function, Sequence[np.ndarray], tuple[str, ...]], None]] = {
    "jax check_grads": check_grads,
    "chex": assert_numerical_grads,
}


def require() -> None:
    """Raise FnnError if a checker is not installed."""
    try:
        import chex
    except ImportError as error:
        raise FnnError("--compare needs chex: pip install 'fnn[dev]'") from error
    del chex


def accepts(name: str, rule: Rule, dtype: str, seed: int) -> bool:
    """Whether a checker lets a rule pass, on arguments drawn from a seed."""
    modes = ("rev",) if rule.jvp is None else ("fwd", "rev")
    with jax.enable_x64(dtype == "float64"):
        arguments = drawn(rule, dtype, seed)
        try:
            RIVALS[name](*real_part(rule.build(), arguments), modes)
        except Exception:  # a wrong rule can fail in any way, and all of them tell
            return False
    return True


def drawn(rule: Rule, dtype: str, seed: int) -> tuple[Any, ...]:
    """Draw a rule's arguments; those that are arrays already stay as they are."""
    call = parse(rule.primal, rule.cast(dtype), {}, rule.nondiff_argnums)
    rng = np.random.default_rng(seed)
    values = [draw(leaf, rng) if leaf.value is None else leaf.value for leaf in call.leaves]
    typed = [to_dtype(v, leaf.dtype) for v, leaf in zip(values, call.leaves, strict=True)]
    return call.build(typed)[0]


def real_part(
    function: Function, arguments: tuple[Any, ...]
) -> tuple[Function, tuple[np.ndarray, ...]]:
    """Return a function of the inexact arrays alone, to the inexact arrays, and those arrays."""
    leaves, tree = jax.tree.flatten(arguments)
    places = [i for i, leaf in enumerate(leaves) if _inexact(leaf)]

    def restricted(*arrays: Any) -> list[Any]:
        full = list(leaves)
        for i, array in zip(places, arrays, strict=True):
            full[i] = jnp.asarray(array)  # a rule may use what only JAX arrays have
        return [
            y for y in jax.tree.leaves(function(*jax.tree.unflatten(tree, full))) if _inexact(y)
        ]

    return restricted, tuple(np.asarray(leaves[i]) for i in places)


def _inexact(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
