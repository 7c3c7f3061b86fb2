"""What windows meet, and what they give back: the two movements of pools and patches.

With l numbers of padding in front, tap o (counted from the window's start) of the window at place i
meets number h = i s + o - l. Turned around: write h = u s + r with r < s; then the windows that
meet h are i = u - a, by their taps o = r + a s + l, for the few a that leave o inside the window.
So what comes back is, for each a, an array of windows moved by a, repeated over the s numbers of
a block, and compared with r: one loop over h that reads a small array, and no scatter.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ShapeError
from .devices import layout
from .geometry import Padding, Sizes, Windows, spatial, windows


def pooling_windows(
    name: str, x: jax.Array, window: Sizes, stride: Sizes | None, padding: Padding, dilation: Sizes
) -> Windows:
    """Return the windows over x, each of which must meet at least one input."""
    win = windows(name, spatial(name, x), window, stride, padding, dilation).check_taps(name)
    outside = any(max(p) >= e for p, e in zip(win.padding, win.extent, strict=True))
    if outside or (counts(win) == 0).any():
        raise ShapeError(
            f"{name}: with padding {win.padding} around the input {win.inputs}, a window of extent "
            f"{win.extent} meets padding alone; the padding must be smaller than the extent"
        )
    return win


def stack_taps(x: jax.Array, win: Windows, fill: float) -> jax.Array:
    """Stack what each tap, in row-major order, meets at every place, along a new last axis."""
    ends = [(0, 0, 0), *((*end, 0) for end in win.padding), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.asarray(fill, x.dtype), ends)
    return jnp.stack([x[(slice(None), *win.slices(offset))] for _, offset in win.offsets()], -1)


def inside(win: Windows) -> np.ndarray:
    """Return where each tap meets an input and not padding, as (1, *places, 1, taps)."""
    grids = itertools.product(*(table.T for table in _inside(win)))
    masks = [functools.reduce(np.logical_and.outer, rows) for rows in grids]
    return np.stack(masks, -1)[None, ..., None, :]


def counts(win: Windows) -> np.ndarray:
    """Return how many inputs each window meets, as (1, *places, 1)."""
    each = (table.sum(1) for table in _inside(win))
    return functools.reduce(np.multiply.outer, each)[None, ..., None]


def over_windows(
    x: jax.Array, win: Windows, function: Callable[[list[jax.Array], list[int]], tuple[Any, ...]]
) -> list[jax.Array]:
    """Apply `function` to what the windows meet, and never to padding.

    Windows at the border meet fewer inputs than those within. Each group of places whose windows
    hold the same taps is computed by itself, `function(arrays, numbers of the taps)`, and then
    joined to the others. A padded copy of x would cost more than all the rest.
    """

    def join(*groups: tuple[range, np.ndarray]) -> list[jax.Array]:
        axis = len(groups)
        if axis == len(win.inputs):
            numbers = itertools.product(*(np.flatnonzero(taps).tolist() for _, taps in groups))
            places = [range_ for range_, _ in groups]
            cut = [(np.ravel_multi_index(t, win.size), _cut(win, places, t)) for t in numbers]
            return list(function([x[index] for _, index in cut], [int(n) for n, _ in cut]))
        parts = [join(*groups, group) for group in _groups(tables[axis])]
        return [
            jnp.concatenate(p, axis + 1) if len(p) > 1 else p[0] for p in zip(*parts, strict=True)
        ]

    tables = list(_inside(win))
    return join()


def _inside(win: Windows) -> Iterator[np.ndarray]:
    """Yield for each axis a table (places, taps): does the tap meet an input there?"""
    axes = zip(
        win.inputs, win.size, win.stride, win.padding, win.dilation, win.outputs, strict=True
    )
    for n, k, s, (before, _), d, m in axes:
        number = np.arange(m)[:, None] * s + np.arange(k) * d - before
        yield (number >= 0) & (number < n)


def _groups(table: np.ndarray) -> Iterator[tuple[range, np.ndarray]]:
    """Yield the runs of places whose windows hold the same taps, and those taps."""
    starts = [0, *(np.flatnonzero((table[1:] != table[:-1]).any(1)) + 1), len(table)]
    for start, stop in itertools.pairwise(map(int, starts)):
        yield range(start, stop), table[start]


def _cut(win: Windows, places: list[range], tap: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the part of x that a tap meets over these places."""
    each = zip(places, tap, win.stride, win.dilation, win.padding, strict=True)
    starts = [(p.start * s + t * d - before, len(p), s) for p, t, s, d, (before, _) in each]
    return (slice(None), *(slice(i, i + (m - 1) * s + 1, s) for i, m, s in starts))


def to_inputs(win: Windows, term: Callable[..., jax.Array], *places: jax.Array) -> jax.Array:
    """Sum for each input over the windows that meet it.

        xₕ = Σₐ term(tap of a at h, *(p moved by a for p in places))

    The tap is its number in row-major order, int32 of shape (1, 1, s, ..., 1, s, 1), and -1 where
    the window does not meet the input; the term is taken as 0 there. The places are arrays
    (batch, *places, channels) and come as (batch, u, 1, ..., channels), 0 where there is no window.
    """
    axes = range(len(win.inputs))
    moves = [list(_moves(win, axis)) for axis in axes]
    number = [-(-n // s) for n, s in zip(win.inputs, win.stride, strict=True)]
    ends = [(m[-1], u - m[0] - o, 0) for m, u, o in zip(moves, number, win.outputs, strict=True)]
    ends = [(0, 0, 0), *ends, (0, 0, 0)]
    arrays = [jax.lax.pad(p, jnp.zeros((), p.dtype), ends) for p in places]
    shape = (places[0].shape[0], *_interleave(number, win.stride), places[0].shape[-1])
    total = None
    for a in itertools.product(*moves):
        first = [m[-1] - i for m, i in zip(moves, a, strict=True)]
        cut = [slice(f, f + u) for f, u in zip(first, number, strict=True)]
        index = (slice(None), *_interleave(cut, [None] * len(cut)))
        tap = _tap(win, a)
        part = term(tap, *(p[index] for p in arrays))
        if (tap < 0).any():
            part = jnp.where(tap < 0, 0, part)
        total = part if total is None else total + part
    assert total is not None
    x = jnp.broadcast_to(total, shape)
    for axis in axes:
        x = jax.lax.collapse(x, axis + 1, axis + 3)
    return x[(slice(None), *map(slice, win.inputs))]


def blocks(x: Any, win: Windows, behind: int = 0) -> Any:
    """View x (batch, *space, channels) as (batch, u, r, ..., channels), as `to_inputs` has it."""
    xp = np if isinstance(x, np.ndarray) else jnp
    ends = [(0, -n % s) for n, s in zip(win.inputs, win.stride, strict=True)]
    if any(map(any, ends)):
        x = xp.pad(x, [(0, 0), *ends, (0, 0)], constant_values=behind)
    for axis, s in reversed(list(enumerate(win.stride, 1))):
        x = x.reshape(*x.shape[:axis], x.shape[axis] // s, s, *x.shape[axis + 1 :])
    return x


def _moves(win: Windows, axis: int) -> Iterator[int]:
    """Yield every a for which the window a blocks before meets some number of a block."""
    s, d, before = win.stride[axis], win.dilation[axis], win.padding[axis][0]
    yield from sorted({(t * d - before) // s for t in range(win.size[axis])})


def _axis_tap(win: Windows, axis: int, a: int) -> np.ndarray:
    """Return for each r the tap along one axis of the window a blocks before, or -1."""
    s, d = win.stride[axis], win.dilation[axis]
    offset = np.arange(s) + a * s + win.padding[axis][0]
    meets = (offset >= 0) & (offset < win.extent[axis]) & (offset % d == 0)
    return np.where(meets, offset // d, -1)


def _tap(win: Windows, a: tuple[int, ...]) -> np.ndarray:
    """Return for each number of a block the tap of the window a blocks before, or -1."""
    each = np.ix_(*(_axis_tap(win, axis, i) for axis, i in enumerate(a)))
    number = np.ravel_multi_index([np.maximum(t, 0) for t in each], win.size)
    meets = functools.reduce(np.logical_and, [t >= 0 for t in each])
    shape = (1, *_interleave([1] * len(a), win.stride), 1)
    return np.where(meets, number, -1).astype(np.int32).reshape(shape)


def _interleave(a: Any, b: Any) -> Iterator[Any]:
    return itertools.chain(*zip(a, b, strict=True))


# By one tap at a time


def pad_with_zeros(x: Any, at: Windows) -> Any:
    """Return x with zeros around its spatial axes; negative padding cuts numbers off."""
    ends = [(0, 0, 0), *((low, high, 0) for low, high in at.padding), (0, 0, 0)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ends)


def add_up(parts: Sequence[Any], at: Windows) -> Any:
    """Add what each tap met, at every place, where it stands on the (unpadded) axes."""
    offsets = [offset for _, offset in at.offsets()]
    if max(at.stride) > 1:
        each = [place(part, at, o) for part, o in zip(parts, offsets, strict=True)]
        return functools.reduce(operator.add, reversed(each))  # the last first: 10 % faster, 2 × 2
    batch, *_, channels = parts[0].shape
    x = jnp.zeros((batch, *at.padded, channels), parts[0].dtype, out_sharding=layout(parts[0]))
    for part, offset in zip(parts, offsets, strict=True):  # whole rows at a time, in place
        now = x[(slice(None), *at.slices(offset))]
        x = jax.lax.dynamic_update_slice(x, now + part, (0, *offset, 0))
    return x[(slice(None), *at.inside)]


def place(part: Any, at: Windows, offset: tuple[int, ...]) -> Any:
    """Put what one tap met, at every place, where it stands on the (unpadded) axes."""
    zero = jnp.zeros((), part.dtype)
    each = zip(at.inputs, at.outputs, at.stride, at.padding, offset, strict=True)
    ends = [(o - low, n + low - o - (m - 1) * s - 1, s - 1) for n, m, s, (low, _), o in each]
    return jax.lax.pad(part, zero, ((0, 0, 0), *ends, (0, 0, 0)))
