"""Pooling's two movements: what each tap of a window meets, and what the windows give back.

With l numbers of padding in front, tap o (counted from the window's start) of the window at place i
meets number h = i s + o - l. Turned around: write h = u s + r with r < s; then the windows that
meet h are i = u - a, by their taps o = r + a s + l, for the few a that leave o inside the window.
So what comes back is, for each a, an array of windows moved by a, repeated over the s numbers of
a block, and compared with r: one loop over h that reads a small array, and no scatter.
"""

import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ShapeError
from .geometry import Padding, Sizes, Windows, spatial, windows


def pooling_windows(
    name: str, x: jax.Array, window: Sizes, stride: Sizes | None, padding: Padding, dilation: Sizes
) -> Windows:
    """Return the windows over x, each of which must meet at least one input."""
    win = windows(name, spatial(name, x), window, stride, padding, dilation)
    if any(axis.sum(0).min() == 0 for axis in _inside(win)):
        raise ShapeError(
            f"{name}: with padding {win.padding} around the input {win.inputs}, a window of extent "
            f"{win.extent} meets padding alone; the padding must be smaller than the extent"
        )
    return win


def taps(x: jax.Array, win: Windows, fill: float) -> list[jax.Array]:
    """Return, for each tap in row-major order, what it meets at every place."""
    ends = ((0, 0), *win.padding, (0, 0))
    if any(map(any, ends)):
        x = jax.lax.pad(x, jnp.asarray(fill, x.dtype), [(*end, 0) for end in ends])
    return [x[(slice(None), *win.met(offset))] for offset in win.offsets()]


def inside(win: Windows) -> list[np.ndarray | None]:
    """Return, for each tap, where it meets no padding, as (1, *places, 1); None is everywhere."""
    masks = []
    for rows in itertools.product(*_inside(win)):
        mask = functools.reduce(np.logical_and.outer, rows)
        masks.append(None if mask.all() else mask[None, ..., None])
    return masks


def counts(win: Windows) -> np.ndarray:
    """Return how many inputs each window meets, as (1, *places, 1)."""
    each = (axis.sum(0) for axis in _inside(win))
    return functools.reduce(np.multiply.outer, each)[None, ..., None]


def _inside(win: Windows) -> Iterator[np.ndarray]:
    """Yield for each axis a table (taps, places): does the tap meet an input there?"""
    axes = zip(win.inputs, win.size, win.stride, win.padding, win.dilation, win.outputs, strict=True)
    for n, k, s, (before, _), d, m in axes:
        met = np.arange(m) * s + np.arange(k)[:, None] * d - before
        yield (met >= 0) & (met < n)


def first_largest(met: list[jax.Array], win: Windows, names: list[int], dtype) -> tuple:
    """Return the largest of the taps, and the name of the first tap that is as large.

    A NaN is larger than everything, and padding never wins.
    """
    y = functools.reduce(jnp.maximum, met)
    name = jnp.full(y.shape, names[-1], dtype)
    for tap, mask, code in reversed(list(zip(met, inside(win), names, strict=True))[:-1]):
        wins = (tap == y) | (tap != tap)
        wins = wins if mask is None else wins & mask
        name = jnp.where(wins, jnp.asarray(code, dtype), name)
    return y, name


def blocks(x: jax.Array, win: Windows) -> jax.Array:
    """View x (batch, *space, channels) as (batch, u, r, ..., channels), zeros behind the end."""
    more = [(0, -n % s, 0) for n, s in zip(win.inputs, win.stride, strict=True)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *more, (0, 0, 0)])
    return x.reshape(_block_shape(x.shape[0], win, x.shape[-1]))


def positions(win: Windows) -> np.ndarray:
    """Return the flat index of every number of space, as blocks has it; -1 behind the end."""
    flat = np.arange(np.prod(win.inputs), dtype=np.int32).reshape(win.inputs)
    more = [(0, -n % s) for n, s in zip(win.inputs, win.stride, strict=True)]
    return np.pad(flat, more, constant_values=-1).reshape(_block_shape(1, win, 1))


def gather_back(win: Windows, term: Callable[..., jax.Array], *places: jax.Array) -> jax.Array:
    """Sum over the windows that meet each input; the transpose of reading the taps.

        x̄ = Σₐ term(tap, *(p moved by a for p in places))

    `tap` is the number of the tap by which a window meets an input, in row-major order, and -1
    where it does not: int32 of shape (1, 1, s, ..., 1, s, 1). The places are arrays
    (batch, *places, channels) and come to `term` as (batch, u, 1, ..., channels), with 0 where
    there is no window. What it returns has, or broadcasts to, the shape of `blocks`.
    """
    moves = [list(_moves(win, axis)) for axis in range(len(win.inputs))]
    whole = _block_shape(places[0].shape[0], win, places[0].shape[-1])
    ends = [
        (m[-1], -(-n // s) - 1 - m[0] - (o - 1), 0)
        for m, n, s, o in zip(moves, win.inputs, win.stride, win.outputs, strict=True)
    ]
    ends = [(0, 0, 0), *ends, (0, 0, 0)]
    padded = [jax.lax.pad(p, jnp.zeros((), p.dtype), ends) for p in places]
    total = None
    for a in itertools.product(*moves):
        cut = [slice(m[-1] - i, m[-1] - i + u) for m, i, u in zip(moves, a, whole[1:-1:2], strict=True)]
        index = (slice(None), *itertools.chain(*((c, None) for c in cut)))
        part = jnp.broadcast_to(term(_tap(win, a), *(p[index] for p in padded)), whole)
        total = part if total is None else total + part
    assert total is not None
    x = total.reshape(whole[0], *(u * s for u, s in zip(whole[1:-1:2], win.stride, strict=True)), whole[-1])
    return x[(slice(None), *map(slice, win.inputs))]


def _moves(win: Windows, axis: int) -> Iterator[int]:
    """Yield every a for which some number of a block is met by the window a blocks before it."""
    s, (before, _), e = win.stride[axis], win.padding[axis], win.extent[axis]
    for a in range(-before // s, (e - 1 - before) // s + 1):
        if (_axis_tap(win, axis, a) >= 0).any():
            yield a


def _axis_tap(win: Windows, axis: int, a: int) -> np.ndarray:
    """Return for each r the tap along one axis of the window a blocks before, or -1."""
    s, d = win.stride[axis], win.dilation[axis]
    offset = np.arange(s) + a * s + win.padding[axis][0]
    met = (offset >= 0) & (offset < win.extent[axis]) & (offset % d == 0)
    return np.where(met, offset // d, -1)


def _tap(win: Windows, a: tuple[int, ...]) -> np.ndarray:
    each = [_axis_tap(win, axis, i) for axis, i in enumerate(a)]
    grid = np.meshgrid(*each, indexing="ij")
    number = np.ravel_multi_index([np.maximum(g, 0) for g in grid], win.size)
    met = np.logical_and.reduce([g >= 0 for g in grid])
    shape = (1, *itertools.chain(*((1, s) for s in win.stride)), 1)
    return np.where(met, number, -1).astype(np.int32).reshape(shape)


def _block_shape(batch: int, win: Windows, channels: int) -> tuple[int, ...]:
    axes = ((-(-n // s), s) for n, s in zip(win.inputs, win.stride, strict=True))
    return (batch, *itertools.chain(*axes), channels)
