"""Pooling over regions of uneven size: bins that cover space, fixed or drawn at random.

Along an axis, region i holds the numbers h with firstᵢ ≤ h < endᵢ. The firsts and the ends
only grow, so the regions that hold h stand side by side, from the first whose end is behind h.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..custom_op import Static, op
from ..errors import ShapeError
from ..example import Example, example, key, normal, uniform, values
from .devices import layout
from .geometry import Sizes, sizes, spatial
from .norm_parts import at_least_float32


@dataclass(frozen=True)
class _Regions:
    """The regions along one axis: where each begins and ends, and the most that there can be."""

    first: Any
    end: Any
    longest: int
    overlap: int

    def members(self, n: int) -> Any:
        """Return the table (regions, n): does the region hold the number?"""
        here = np.arange(n, dtype=np.int32)[None]
        return (self.first[:, None] <= here) & (here < self.end[:, None])

    def reads(self) -> Iterator[tuple[Any, Any]]:
        """Yield the first number of every region, the second, ..., and which regions have one."""
        xp = np if isinstance(self.first, np.ndarray) else jnp
        for t in range(self.longest):
            yield xp.minimum(self.first + t, self.end - 1), self.first + t < self.end

    def holders(self, n: int) -> Iterator[tuple[Any, Any]]:
        """Yield the first region that holds each number, the next, ..., and whether it does."""
        xp = np if isinstance(self.first, np.ndarray) else jnp
        here = np.arange(n, dtype=np.int32)
        start = xp.sum(self.end[None] <= here[:, None], 1, dtype=np.int32)
        for a in range(self.overlap):
            region = xp.minimum(start + a, len(self.first) - 1)
            yield region, (start + a < len(self.first)) & (self.first[region] <= here)


def _bins(name: str, x, output: Sizes) -> tuple[_Regions, ...]:
    """Bin i of m over n numbers: from ⌊i n/m⌋ up to, without, ⌈(i+1) n/m⌉."""
    regions = []
    for n, m in zip(*_in_and_out(name, x, output), strict=True):
        i = np.arange(m, dtype=np.int64)
        first, end = i * n // m, -(-(i + 1) * n // m)
        overlap = ((first[:, None] <= np.arange(n)) & (np.arange(n) < end[:, None])).sum(0).max()
        longest = int((end - first).max())
        regions.append(
            _Regions(first.astype(np.int32), end.astype(np.int32), longest, int(overlap))
        )
    return tuple(regions)


def _in_and_out(name, x, output):
    inputs = spatial(name, x)
    if 0 in inputs:
        raise ShapeError(f"{name}: there is nothing in an empty space, x is {tuple(x.shape)}")
    return inputs, sizes(name, "output", output, len(inputs))


def _along(table, axis, ndim):
    """A vector, shaped to stand along one axis of an array."""
    return jnp.expand_dims(jnp.asarray(table), [a for a in range(ndim) if a != axis])


def _take(x, rows, axis):
    return jnp.take(x, jnp.asarray(rows), axis, mode="clip")


def _largest(x, regions):
    """The definition: each region's largest number, and its first in row-major order."""
    space = x.shape[1:-1]
    flat = x.reshape(x.shape[0], 1, math.prod(space), x.shape[-1])
    tables = [r.members(n) for r, n in zip(regions, space, strict=True)]
    grid = functools.reduce(
        lambda a, b: (a[:, None, :, None] & b[None, :, None, :]).reshape(
            a.shape[0] * b.shape[0], a.shape[1] * b.shape[1]
        ),
        tables,
    )
    inside = jnp.asarray(grid)[None, :, :, None]
    largest = jnp.max(jnp.where(inside, flat, -jnp.inf), 2, keepdims=True)
    first = jnp.argmax(inside & ((flat == largest) | jnp.isnan(flat)), 2)
    y = jnp.take_along_axis(flat[:, 0], first, 1)
    return y.reshape(x.shape[0], *(t.shape[0] for t in tables), x.shape[-1])


def _find_largest(x, regions):
    """The same, an axis at a time from the last, with the index of each in the flattened space.

    Indices are kept in the narrowest integers that hold them.
    """
    space = x.shape[1:-1]
    shape = (1, *space, 1)
    here = np.arange(math.prod(space), dtype=np.int32).reshape(shape)
    y, index = x, jnp.broadcast_to(jnp.asarray(here), x.shape, out_sharding=layout(x))
    for axis in reversed(range(1, x.ndim - 1)):
        rows = [rows for rows, _ in regions[axis - 1].reads()]
        arrays = [(_take(y, r, axis), _take(index, r, axis)) for r in rows]
        y = functools.reduce(jnp.maximum, [a for a, _ in arrays])
        index = arrays[-1][1]
        for a, i in reversed(arrays[:-1]):
            index = jnp.where((a == y) | (a != a), i, index)
    return y, index.astype(np.min_scalar_type(max(math.prod(space) - 1, 0)))


def _to_largest(index, dy, regions, space):
    """Sum for each number over the regions that it won."""
    here = np.arange(math.prod(space), dtype=index.dtype).reshape(1, *space, 1)
    parts = [(index, at_least_float32(dy))]
    for axis, (r, n) in enumerate(zip(regions, space, strict=True), 1):
        holders = list(r.holders(n))
        parts = [
            (
                _take(i, region, axis),
                jnp.where(_along(holds, axis, d.ndim), _take(d, region, axis), 0),
            )
            for i, d in parts
            for region, holds in holders
        ]
    return functools.reduce(jnp.add, [jnp.where(i == here, d, 0) for i, d in parts])


def _by_bin(reduce):
    def reference(x, *, output):
        """By numpy, a bin at a time."""
        x = np.asarray(x)
        regions = _bins("reference", x, output)
        y = np.zeros((x.shape[0], *(len(r.first) for r in regions), x.shape[-1]), x.dtype)
        for place in np.ndindex(y.shape[1:-1]):
            cut = [slice(r.first[i], r.end[i]) for r, i in zip(regions, place, strict=True)]
            y[(slice(None), *place)] = reduce(x[(slice(None), *cut)], tuple(range(1, x.ndim - 1)))
        return y

    return reference


def _examples(*more: Example) -> tuple[Example, ...]:
    return (
        example(x=normal(2, 6, 4, 2), output=(3, 2)),
        example(x=normal(1, 7, 5, 2), output=(3, 2)),
        example(x=normal(2, 5, 3), output=4),
        example(x=normal(1, 3, 2, 2), output=(5, 3)),
        example(x=normal(1, 3, 4, 5, 1), output=(2, 3, 2)),
        example(x=normal(1, 4, 3, 1), output=1),
        example(x=normal(1, 1, 1, 1), output=1),
        example(x=normal(0, 5, 4, 2), output=2),
        example(x=normal(2, 5, 2, scale=1e4), output=2, tags={"extreme"}),
        example(x=normal(32, 28, 28, 64), output=7, tags={"bench"}),
        example(x=normal(32, 30, 30, 64), output=7, tags={"bench"}),
        *more,
    )


_TIES = (
    example(x=values(*np.ones((1, 5, 4, 2))), output=3, tags={"kink"}),
    example(x=values([[0.0], [0.0], [-1.0], [-1.0], [-1.0]]), output=2, tags={"kink"}),
)
_SOURCE = "He, Zhang, Ren & Sun 2014, arXiv:1406.4729"


@op(reference=_by_bin(np.mean), examples=_examples(), source=_SOURCE)
def adaptive_avg_pool(x, *, output: Sizes):
    """Take the mean of each of m bins, however long the axis is.

        yᵢ = mean of xₕ over ⌊i n/m⌋ ≤ h < ⌈(i+1) n/m⌉,   x̄ₕ = Σ of ȳᵢ/sizeᵢ over the bins with h

    Along several axes, bins are products; m is `output`. Neighbours share a number where m does
    not divide n.
    Shapes: x (batch, *space, channels) -> y (batch, *output, channels). Saves the shape alone.
    """
    for axis, bins in enumerate(_bins("adaptive_avg_pool", x, output), 1):
        members = bins.members(x.shape[axis])
        each = jnp.where(members, jnp.moveaxis(x, axis, -1)[..., None, :], 0)  # (..., bins, n)
        x = jnp.sum(each, -1) / _along(members.sum(1).astype(x.dtype), x.ndim - 1, x.ndim)
        x = jnp.moveaxis(x, -1, axis)
    return x


@adaptive_avg_pool.def_fwd
def adaptive_avg_pool_fwd(x, *, output):
    y = at_least_float32(x)
    for axis, bins in enumerate(_bins("adaptive_avg_pool", x, output), 1):
        parts = [
            jnp.where(_along(has, axis, y.ndim), _take(y, rows, axis), 0)
            for rows, has in bins.reads()
        ]
        number = jnp.asarray(bins.end - bins.first, y.dtype)
        y = functools.reduce(jnp.add, parts) / _along(number, axis, y.ndim)
    return y.astype(x.dtype), Static(x.shape)


@adaptive_avg_pool.def_bwd
def adaptive_avg_pool_bwd(shape, dy, *, output):
    dx = at_least_float32(dy)
    regions = _bins("adaptive_avg_pool", jax.ShapeDtypeStruct(shape.value, dy.dtype), output)
    for axis, bins in enumerate(regions, 1):
        number = jnp.asarray(bins.end - bins.first, dx.dtype)
        share = dx / _along(number, axis, dx.ndim)
        parts = [
            jnp.where(_along(holds, axis, dx.ndim), _take(share, region, axis), 0)
            for region, holds in bins.holders(shape.value[axis])
        ]
        dx = functools.reduce(jnp.add, parts)
    return dx


@op(reference=_by_bin(np.max), examples=_examples(*_TIES), source=_SOURCE)
def adaptive_max_pool(x, *, output: Sizes):
    """Keep the largest number of each of m bins, however long the axis is.

        yᵢ = max of xₕ over ⌊i n/m⌋ ≤ h < ⌈(i+1) n/m⌉,   x̄ₕ = Σ of ȳᵢ over the bins that h won

    Along several axes, bins are products; m is `output`. Of several that are equally large the
    first in row-major order wins, and NaN is larger than every number.
    Shapes: x (batch, *space, channels) -> y (batch, *output, channels). Saves where each y was.
    """
    return _largest(x, _bins("adaptive_max_pool", x, output))


@adaptive_max_pool.def_fwd
def adaptive_max_pool_fwd(x, *, output):
    y, index = _find_largest(x, _bins("adaptive_max_pool", x, output))
    return y, (index, Static(x.shape))


@adaptive_max_pool.def_bwd
def adaptive_max_pool_bwd(residuals, dy, *, output):
    index, shape = residuals
    x = jax.ShapeDtypeStruct(shape.value, dy.dtype)
    return _to_largest(index, dy, _bins("adaptive_max_pool", x, output), shape.value[1:-1])


def _random_regions(name, x, key, output, overlapping) -> tuple[_Regions, ...]:
    """The boundaries aᵢ = ⌈(n i + z)/m⌉ - ⌈z/m⌉, with z in 1..n drawn for each axis.

    They are those of a real number u = z/n in (0, 1], exactly: a₀ = 0, aₘ = n.
    """
    inputs, outputs = _in_and_out(name, x, output)
    shared = int(overlapping)
    if any(m > n for n, m in zip(inputs, outputs, strict=True)):
        raise ShapeError(
            f"{name}: output {outputs} is larger than the input {inputs}; regions would be empty"
        )
    keys = jax.random.split(key, len(inputs))
    regions = []
    for axis, (n, m) in enumerate(zip(inputs, outputs, strict=True)):
        z = jax.random.randint(keys[axis], (), 1, n + 1, dtype=jnp.int32)
        bounds = -(-(n * np.arange(m + 1, dtype=np.int32) + z) // m) - (-(-z // m))
        end = jnp.minimum(bounds[1:] + shared, n)
        longest = min(-(-n // m) + shared, n)
        regions.append(_Regions(bounds[:-1], end, longest, 1 + shared))
    return tuple(regions)


def _by_region(x, key, *, output, overlapping):
    """By numpy, a region at a time."""
    x = np.asarray(x)
    key = jnp.asarray(key)
    regions = _random_regions("fractional_max_pool", x, key, output, overlapping)
    bounds = [(np.asarray(r.first), np.asarray(r.end)) for r in regions]
    y = np.zeros((x.shape[0], *(len(first) for first, _ in bounds), x.shape[-1]), x.dtype)
    for place in np.ndindex(y.shape[1:-1]):
        cut = [slice(a[i], b[i]) for (a, b), i in zip(bounds, place, strict=True)]
        y[(slice(None), *place)] = x[(slice(None), *cut)].max(tuple(range(1, x.ndim - 1)))
    return y


@op(
    reference=_by_region,
    examples=(
        example(x=normal(2, 7, 5, 2), key=key(), output=(5, 3)),
        example(x=normal(2, 7, 5, 2), key=key(), output=(5, 3), overlapping=False),
        example(x=normal(1, 9, 2), key=key(), output=4),
        example(x=normal(1, 4, 5, 3, 1), key=key(), output=(3, 3, 2), overlapping=False),
        example(x=normal(1, 3, 3, 1), key=key(), output=3),
        example(x=normal(1, 1, 1), key=key(), output=1),
        example(x=normal(0, 5, 5, 1), key=key(), output=3),
        example(x=values(*np.ones((1, 5, 4, 2))), key=key(), output=3, tags={"kink"}),
        example(x=uniform(2, 6, 2, low=-1e4, high=-1e3), key=key(), output=4, tags={"extreme"}),
        example(x=normal(32, 28, 28, 64), key=key(), output=19, tags={"bench"}),
    ),
    source="Graham 2014, arXiv:1412.6071",
)
def fractional_max_pool(x, key, *, output: Sizes, overlapping: bool = True):
    """Keep the largest number of each of m regions, whose borders the key draws.

        aᵢ = ⌈α (i + u)⌉ - ⌈α u⌉ with α = n/m and u uniform in (0, 1], for each axis
        yᵢ = max of xₕ over aᵢ ≤ h < aᵢ₊₁ (overlapping: ≤ aᵢ₊₁),   x̄ₕ = Σ of ȳᵢ that h won

    The pseudo-random sequences of the paper: sizes are ⌊α⌋ or ⌈α⌉ and spread evenly, and all
    of x is covered. One draw serves the batch. m is `output`; regions of several axes are
    products. Ties go to the first in row-major order, and NaN is larger than every number.
    Shapes: x (batch, *space, channels), key a PRNG key -> y (batch, *output, channels). Saves
    where each y was, and the key.
    """
    regions = _random_regions("fractional_max_pool", x, key, output, overlapping)
    return _largest(x, regions)


@fractional_max_pool.def_fwd
def fractional_max_pool_fwd(x, key, *, output, overlapping):
    regions = _random_regions("fractional_max_pool", x, key, output, overlapping)
    y, index = _find_largest(x, regions)
    return y, (index, key, Static(x.shape))


@fractional_max_pool.def_bwd
def fractional_max_pool_bwd(residuals, dy, *, output, overlapping):
    index, key, shape = residuals
    x = jax.ShapeDtypeStruct(shape.value, dy.dtype)
    regions = _random_regions("fractional_max_pool", x, key, output, overlapping)
    return _to_largest(index, dy, regions, shape.value[1:-1]), None
