"""Max pooling: the largest number of each window, where it was, and the way back there."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ..custom_op import Static, op
from ..errors import ShapeError
from ..example import Example, example, integers, normal, uniform, values
from .devices import by_example
from .geometry import Padding, Sizes, Windows, spatial
from .norm_parts import at_least_float32
from .taps import blocks, inside, over_windows, pooling_windows, stack_taps, to_inputs

_SOURCE = "Ranzato, Huang, Boureau & LeCun 2007, CVPR, doi:10.1109/CVPR.2007.383157"


def _examples(*more: Example) -> tuple[Example, ...]:
    """Windows that fit, leave remainders, overlap, leave holes; padding, dilation, 1 to 3 axes."""
    lowest = values([[[1e4], [-np.inf]], [[-1e4], [-np.inf]], [[-np.inf], [-np.inf]]])
    return (
        example(x=normal(2, 4, 6, 3), window=2),
        example(x=normal(1, 7, 7, 2), window=2),
        example(x=normal(2, 7, 5, 2), window=3, stride=2),
        example(x=normal(1, 8, 7, 2), window=(3, 2), stride=(1, 2), padding=((1, 1), (0, 1))),
        example(x=normal(1, 6, 6, 2), window=3, stride=2, padding="SAME"),
        example(x=normal(1, 9, 8, 1), window=2, stride=3),
        example(x=normal(1, 7, 8, 2), window=3, stride=2, padding=2, dilation=2),
        example(x=normal(2, 9, 2), window=4, stride=3, padding=((2, 1),)),
        example(x=normal(1, 4, 5, 3, 2), window=2, stride=(2, 1, 2), padding=(0, 1, 1)),
        example(x=normal(1, 1, 1, 1), window=1),
        example(x=normal(0, 4, 4, 2), window=2),
        example(x=values(*np.ones((1, 5, 6, 2))), window=3, stride=2, padding=1, tags={"kink"}),
        example(x=values(*np.zeros((1, 4, 4, 1))), window=2, tags={"kink"}),
        example(x=values(*-np.ones((1, 3, 3, 1))), window=2, stride=1, padding=1, tags={"kink"}),
        example(x=uniform(2, 5, 5, 2, low=-3.0, high=-2.0), window=3, stride=2, padding=1),
        example(x=lowest, window=(2, 1), padding=((1, 0), (0, 0)), tags={"extreme"}),
        *more,
    )


def _reduce_window(x, *, window, stride, padding, dilation):
    win = pooling_windows("max_pool", x, window, stride, padding, dilation)
    return jax.lax.reduce_window(
        x,
        np.asarray(-np.inf, x.dtype),
        jax.lax.max,
        (1, *win.size, 1),
        (1, *win.stride, 1),
        ((0, 0), *win.padding, (0, 0)),
        window_dilation=(1, *win.dilation, 1),
    )


def _largest(x, win: Windows):
    """The largest number of each window, and by which tap it was met first."""
    taps = stack_taps(x, win, -jnp.inf)
    largest = (taps == jnp.max(taps, -1, keepdims=True)) | jnp.isnan(taps)
    first = jnp.argmax(inside(win) & largest, -1)
    return jnp.take_along_axis(taps, jnp.expand_dims(first, -1), -1)[..., 0], first


def _find_largest(arrays, names):
    """The largest of some arrays, and the name of the first that is as large; NaN is largest."""
    y = functools.reduce(jnp.maximum, arrays)
    name = jnp.full_like(y, names[-1], names[-1].dtype)
    for array, own in reversed(list(zip(arrays[:-1], names[:-1], strict=True))):
        name = jnp.where((array == y) | (array != array), own, name)
    return y, name


@op(
    reference=_reduce_window,
    examples=_examples(
        example(x=normal(64, 28, 28, 32), window=2, tags={"bench"}),
        example(x=normal(32, 112, 112, 64), window=2, tags={"bench"}),
        example(x=normal(32, 55, 55, 64), window=3, stride=2, tags={"bench"}),
    ),
    source=_SOURCE,
)
def max_pool(
    x,
    *,
    window: Sizes,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
):
    """Keep the largest number of each window.

        yᵢ = max over taps t of x[i s + t d],   x̄ⱼ = Σ of ȳᵢ over the windows i that j wins

    Of several that are equally large the first in row-major order wins, and NaN is larger than
    every number. Padding counts as -∞ and never wins; a window of padding alone is an error.
    Shapes: x (batch, *space, channels) -> y (batch, *places, channels); `stride` None is the
    window. Saves which tap won, one byte per window (four for more than 255 taps), and not x.
    """
    return _largest(x, pooling_windows("max_pool", x, window, stride, padding, dilation))[0]


@max_pool.def_fwd
def max_pool_fwd(x, *, window, stride, padding, dilation):
    win = pooling_windows("max_pool", x, window, stride, padding, dilation)
    dtype = np.uint8 if win.taps <= 255 else np.int32

    def largest(arrays, numbers):
        return _find_largest(arrays, [dtype(n) for n in numbers])

    y, tap = over_windows(x, win, largest)
    return y, (tap, Static(win))


@max_pool.def_bwd
def max_pool_bwd(residuals, dy, **statics):
    del statics
    taps, win = residuals

    def from_winner(number, tap, dy):
        return jnp.where(tap == number.astype(tap.dtype), dy, 0)

    return to_inputs(win.value, from_winner, taps, at_least_float32(dy))


@op(examples=_examples(example(x=normal(64, 28, 28, 32), window=2, tags={"bench"})), source=_SOURCE)
def max_pool_with_indices(
    x,
    *,
    window: Sizes,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
):
    """Keep the largest number of each window, and say where it was.

        y as of max_pool,   kᵢ = the index of yᵢ in the flattened space of x

    The indices are int32, count row by row through the unpadded space, and have no gradient; the
    gradient by x is `max_unpool(ȳ, k, space=...)`. Ties and padding are as in max_pool.
    Shapes: x (batch, *space, channels) -> y and k (batch, *places, channels). Saves k.
    """
    win = pooling_windows("max_pool_with_indices", x, window, stride, padding, dilation)
    y, first = _largest(x, win)
    offset = np.array([_flat(win, offset) for _, offset in win.offsets()], np.int32)
    return y, _starts(win) + jnp.asarray(offset)[first]


@max_pool_with_indices.def_fwd
def max_pool_with_indices_fwd(x, *, window, stride, padding, dilation):
    win = pooling_windows("max_pool_with_indices", x, window, stride, padding, dilation)
    offset = [np.int32(_flat(win, offset)) for _, offset in win.offsets()]

    def largest(arrays, numbers):
        return _find_largest(arrays, [offset[n] for n in numbers])

    y, index = over_windows(x, win, largest)
    index = index + _starts(win)
    return (y, index), (index, Static(win))


@max_pool_with_indices.def_bwd
def max_pool_with_indices_bwd(residuals, dy, **statics):
    del statics
    indices, win = residuals
    flat = np.arange(math.prod(win.value.inputs), dtype=np.int32)
    here = blocks(flat.reshape(1, *win.value.inputs, 1), win.value, behind=-1)

    def from_winner(_, index, dy):
        return jnp.where(index == here, dy, 0)

    return to_inputs(win.value, from_winner, indices, at_least_float32(dy[0]))


def _flat(win: Windows, offset):
    """How far apart two numbers of the flattened space are that stand `offset` apart."""
    return sum(o * math.prod(win.inputs[axis + 1 :]) for axis, o in enumerate(offset))


def _starts(win: Windows):
    """The index in the flattened space at which each window starts, (1, *places, 1) of int32."""
    axes = zip(win.outputs, win.stride, win.padding, strict=True)
    starts = [np.arange(m) * s - before for m, s, (before, _) in axes]
    return np.asarray(_flat(win, np.ix_(*starts)), np.int32)[None, ..., None]


@op(
    examples=(
        example(y=normal(2, 2, 3, 2), indices=integers(2, 2, 3, 2, high=20), space=(4, 5)),
        example(y=normal(2, 3, 1), indices=values(*[[[4], [0], [9]]] * 2), space=(10,)),
        example(y=normal(1, 2, 1, 2, 1), indices=integers(1, 2, 1, 2, 1, high=8), space=(2, 2, 2)),
        example(y=normal(1, 4, 2), indices=values([[3, 3], [3, 0], [-1, 6], [7, 1]]), space=(6,)),
        example(y=normal(1, 1, 1), indices=values([[0]]), space=(1,)),
        example(y=normal(0, 2, 2, 1), indices=integers(0, 2, 2, 1, high=9), space=(3, 3)),
        example(
            y=values([[1e4], [-1e4], [0.0]]),
            indices=values([[1], [1], [5]]),
            space=(6,),
            tags={"extreme"},
        ),
        example(
            y=normal(64, 14, 14, 32),
            indices=integers(64, 14, 14, 32, high=784),
            space=(28, 28),
            tags={"bench"},
        ),
    ),
    source="Zeiler & Fergus 2014, ECCV, arXiv:1311.2901",
)
def max_unpool(y, indices, *, space: tuple[int, ...]):
    """Put numbers back to where max_pool_with_indices found them, and 0 elsewhere.

        xₚ = Σ of yᵢ over the places i with kᵢ = p,   ȳᵢ = x̄ at kᵢ

    This is the transposed Jacobian of max pooling. Where windows overlap, two may name one place;
    their numbers are added. Where they do not, pooling x again gives y back, if no y is below 0.
    An index outside the space is left out.
    Shapes: y and indices (batch, *places, channels) -> x (batch, *space, channels). Saves the
    indices.
    """
    _must_match(y, indices)
    flat, index = _flatten(y, indices, space)
    here = jnp.arange(math.prod(space), dtype=jnp.int32)[None, :, None, None]
    matches = index.transpose(0, 2, 1)[:, None] == here
    x = jnp.sum(jnp.where(matches, flat.transpose(0, 2, 1)[:, None], 0), -1)
    return x.reshape(y.shape[0], *space, y.shape[-1])


@max_unpool.def_fwd
def max_unpool_fwd(y, indices, *, space):
    _must_match(y, indices)
    size = math.prod(space)

    def put(flat, index):
        batch, _, channels = flat.shape
        rows = np.arange(batch, dtype=np.int32)[:, None, None]
        columns = np.arange(channels, dtype=np.int32)
        x = jnp.zeros((batch, size, channels), at_least_float32(flat).dtype)
        return x.at[rows, _or_out(index, size), columns[None, None]].add(
            at_least_float32(flat), mode="drop"
        )

    x = by_example(put, *_flatten(y, indices, space))
    return x.astype(y.dtype).reshape(y.shape[0], *space, y.shape[-1]), indices


@max_unpool.def_bwd
def max_unpool_bwd(indices, dx, *, space):
    flat, index = _flatten(dx, indices, space)
    back = jnp.take_along_axis(flat, _or_out(index, flat.shape[1]), 1, mode="fill", fill_value=0)
    return back.reshape(indices.shape), None


def _must_match(y, indices):
    if y.shape != indices.shape:
        raise ShapeError(f"max_unpool: y {y.shape} and indices {indices.shape} must match in shape")


def _flatten(numbers, indices, space):
    """Both with one axis of space, the indices as int32."""
    if len(space) != len(spatial("max_unpool", indices)):
        raise ShapeError(
            f"max_unpool: space {space} has {len(space)} axes, the indices {indices.shape} have "
            f"{indices.ndim - 2}; space is the shape of the x of max_pool_with_indices, without "
            "batch and channels"
        )
    batch, channels = indices.shape[0], indices.shape[-1]
    flat = numbers.reshape(batch, math.prod(numbers.shape[1:-1]), channels)
    index = indices.reshape(batch, math.prod(indices.shape[1:-1]), channels)
    return flat, index.astype(jnp.int32)


def _or_out(index, size):
    """Indices below 0, which would count from the end, moved behind it."""
    return jnp.where(index < 0, size, index)
