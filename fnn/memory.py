"""Memory: what a backward pass keeps, what a compiled program needs on its way, in bytes."""

import math
from collections.abc import Callable
from typing import Any

import jax


def array_bytes(array: Any) -> int:
    """Return the bytes of an array, or of one of that type."""
    return array.size * array.dtype.itemsize


def residual_bytes(vjp: Callable[..., Any], *types: Any, beside_output: bool = False) -> int:
    """Return the bytes of all arrays that a backward pass holds on to, each counted once.

    `vjp(*arrays)` returns the output and the backward pass, as `jax.vjp` does; it is traced, not
    run. With `beside_output`, an array that is the output itself does not count.
    """

    def residuals(*arrays: Any) -> list[Any]:
        y, pullback = vjp(*arrays)
        kept = {id(a): a for a in jax.tree.leaves(pullback) if isinstance(a, jax.Array)}
        for a in jax.tree.leaves(y) if beside_output else ():
            kept.pop(id(a), None)
        return list(kept.values())

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
