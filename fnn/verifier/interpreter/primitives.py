"""The table of primitives: for each, how to compute it in NumPy.

An entry takes an equation of a traced program and returns a function of its inputs. It evaluates
the parameters once, and not with every call.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[..., Any]
Prepare = Callable[[Any], Function | None]
PRIMITIVES: dict[str, Prepare] = {}
"""By name: from an equation to a function of NumPy arrays, or None if XLA must compile the program.
The function returns an array, or a sequence of arrays if the primitive has several results."""


def primitive(*names: str) -> Callable[[Prepare], Prepare]:
    """Enter the decorated function in the table."""

    def enter(prepare: Prepare) -> Prepare:
        for name in names:
            PRIMITIVES[name] = prepare
        return prepare

    return enter


def is_half(dtype: Any) -> bool:
    """Whether a dtype has 16 bits; XLA adds such numbers in float32 and rounds the sum."""
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize == 2


def accumulator(dtype: Any) -> Any:
    """Return the dtype in which numbers of a dtype are added."""
    return np.dtype(np.float32) if is_half(dtype) else dtype


def is_extended(dtype: Any) -> bool:
    """Whether a dtype is one of JAX's own, such as PRNG keys; NumPy holds these as objects."""
    return jax.dtypes.issubdtype(dtype, jax.dtypes.extended)


def ranks(x: Any) -> Any:
    """Return integers in the order of the numbers' bits: -NaN, -∞, ..., -0, 0, ..., ∞, NaN."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    bits = np.ascontiguousarray(x).view(np.dtype(f"i{x.dtype.itemsize}")).reshape(x.shape)
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)


def lowest(dtype: Any) -> Any:
    """Return the smallest number of a dtype."""
    if dtype == np.bool_:
        return False
    return -np.inf if jnp.issubdtype(dtype, jnp.inexact) else jnp.iinfo(dtype).min


def highest(dtype: Any) -> Any:
    """Return the largest number of a dtype."""
    if dtype == np.bool_:
        return True
    return np.inf if jnp.issubdtype(dtype, jnp.inexact) else jnp.iinfo(dtype).max


def by_taps(window: Any, outputs: Any, strides: Any, dilation: Any) -> Any:
    """Yield each position in a window, and the slices of a padded array at that position."""
    for tap in np.ndindex(*window):
        corner = [t * d for t, d in zip(tap, dilation, strict=True)]
        slices = tuple(
            slice(first, first + (n - 1) * stride + 1, stride) if n else slice(0, 0)
            for first, n, stride in zip(corner, outputs, strides, strict=True)
        )
        yield tap, slices


def padded(x: Any, config: Any, value: Any) -> Any:
    """Return an array padded at both ends and between its numbers; negative padding cuts."""
    shape = [
        low + high + max(0, n + (n - 1) * inside)
        for n, (low, high, inside) in zip(x.shape, config, strict=True)
    ]
    out = np.full([max(0, n) for n in shape], value, x.dtype)
    source, target = [], []
    for n, size, (low, _, inside) in zip(x.shape, out.shape, config, strict=True):
        step = inside + 1
        first = -(low // step) if low < 0 else 0  # the first number that is not cut off
        last = min(n, (size - 1 - low) // step + 1) if size else 0
        last = max(first, last)
        source.append(slice(first, last))
        begin = low + first * step
        target.append(slice(begin, begin + (last - first - 1) * step + 1, step))
        if last == first:
            return out
    out[tuple(target)] = x[tuple(source)]
    return out
