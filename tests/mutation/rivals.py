"""Other gradient checkers, each with its own default tolerances, on the same functions.

They take arrays of real or complex numbers and nothing else: every other argument is held fixed,
and every other output left out. A function with a `custom_vjp` has no forward mode, so they check
it only where there is a `custom_jvp`.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from fnn.verifier.arguments import parse
from fnn.verifier.values import draw, to_dtype

from .operator import is_inexact
from .rule import Rule

RIVALS = {"jax check_grads": check_grads, "chex": chex.assert_numerical_grads}
"""Both compare with finite differences along one random direction."""


def accepts(checker: str, rule: Rule, dtype: str, seed: int) -> bool:
    """Return whether a checker lets a rule pass, on arguments drawn from a seed."""
    modes = ("rev",) if rule.jvp is None else ("fwd", "rev")
    with jax.enable_x64(dtype == "float64"):
        arguments = draw_arguments(rule, dtype, seed)
        try:
            RIVALS[checker](*real_part(rule.build(), arguments), order=1, modes=modes)
        except Exception:  # a wrong rule can fail in any way
            return False
    return True


def draw_arguments(rule: Rule, dtype: str, seed: int) -> tuple[Any, ...]:
    """Return arguments of a rule, drawn from a seed; arrays among its own stay as they are."""
    call = parse(rule.primal, rule.cast(dtype), {}, rule.nondiff_argnums)
    rng = np.random.default_rng(seed)
    values = [draw(leaf, rng) if leaf.value is None else leaf.value for leaf in call.leaves]
    return call.build([to_dtype(v, leaf.dtype) for v, leaf in zip(values, call.leaves)])[0]


def real_part(
    function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Callable[..., Any], tuple[np.ndarray, ...]]:
    """Return the function of the inexact arrays alone, to the inexact arrays, and those arrays."""
    leaves, tree = jax.tree.flatten(arguments)
    places = [i for i, leaf in enumerate(leaves) if is_inexact(leaf)]

    def restricted(*arrays: Any) -> list[Any]:
        full = list(leaves)
        for i, array in zip(places, arrays, strict=True):
            full[i] = jnp.asarray(array)  # a rule may use methods that only JAX arrays have
        outputs = function(*jax.tree.unflatten(tree, full))
        return [y for y in jax.tree.leaves(outputs) if is_inexact(y)]

    return restricted, tuple(np.asarray(leaves[i]) for i in places)
