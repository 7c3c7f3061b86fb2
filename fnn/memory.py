"""Memory in bytes: the residuals of a backward pass, and the temporaries of a program."""

from collections.abc import Callable
from typing import Any

import jax


def array_bytes(array: Any) -> int:
    """Return the bytes of an array, or of an array of this type."""
    return array.size * array.dtype.itemsize


def residual_bytes(vjp: Callable[..., Any], *types: Any, beside_output: bool = False) -> int:
    """Return the bytes of the residuals of a backward pass, each array counted once.

    `vjp(*arrays)` returns the output and the backward pass, as `jax.vjp` does; it is traced, not
    run. With `beside_output`, a residual that is itself an output does not count.
    """

    def residuals(*arrays: Any) -> list[Any]:
        y, pullback = vjp(*arrays)
        arrays_by_id = {id(a): a for a in jax.tree.leaves(pullback) if isinstance(a, jax.Array)}
        for a in jax.tree.leaves(y) if beside_output else ():
            arrays_by_id.pop(id(a), None)
        return list(arrays_by_id.values())

    return sum(map(array_bytes, jax.eval_shape(residuals, *types)))


def temporary_bytes(compiled: Any) -> int:
    """Return a program's bytes beside arguments and outputs, or 0 if XLA does not report them."""
    analysis = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes) if analysis is not None else 0
