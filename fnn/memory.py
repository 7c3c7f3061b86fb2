"""Memory: what a backward pass keeps, what a compiled program needs on its way, in bytes."""

import math
from collections.abc import Callable
from typing import Any

import jax


def array_bytes(array: Any) -> int:
    """Return the bytes of an array, or of one of that type."""
    return array.size * array.dtype.itemsize


def residual_bytes(pullback: Callable[..., Any], *types: Any) -> int:
    """Return the bytes of all arrays that a backward pass holds on to, each counted once.

    `pullback(*arrays)` returns the backward pass, as `jax.vjp` does. It is traced, not run.
    """

    def residuals(*arrays: Any) -> list[Any]:
        leaves = jax.tree.leaves(pullback(*arrays))
        return list({id(a): a for a in leaves if isinstance(a, jax.Array)}.values())

    return sum(map(array_bytes, jax.eval_shape(residuals, *types)))


def temporary_bytes(compiled: Any) -> int:
    """Return what a compiled program takes beside its arguments and outputs; 0 if untold."""
    analysis = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes) if analysis is not None else 0


def size(octets: float) -> str:
    """Return 41216 as `40.2 KiB`."""
    if octets < 1024:
        return f"{octets:.0f} B"
    power = min(int(math.log2(octets) // 10), 4)
    return f"{octets / 1024**power:.1f} {'KMGT'[power - 1]}iB"
