"""Programs that move elements, by shape, by order or by index."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .table import FLOATS, INTEGERS, each, normal, section, special, whole


@section()
def shapes_and_slices():
    for dtype in (np.float32, jnp.bfloat16):
        x = (normal(2, 3, 4) * 3).astype(dtype)
        yield lambda x: lax.iota(x.dtype, 5) if x.dtype != bool else x, x
        yield lambda x: lax.broadcasted_iota(np.int32, (2, 3), 1), x
        yield lambda x: lax.broadcast_in_dim(x, (5, 2, 3, 2, 4), (1, 2, 4)), x
        yield lambda x: lax.broadcast_in_dim(x[:, :1], (2, 5, 4), (0, 1, 2)), x
        yield lambda x: (lax.reshape(x, (4, 6)), lax.squeeze(x[:1], (0,)), x[None]), x
        yield lambda x: (lax.transpose(x, (2, 0, 1)), lax.rev(x, (0, 2))), x
        yield lambda x: (lax.slice(x, (0, 1, 0), (2, 3, 4), (1, 1, 3)), x[:, :0]), x
        for config in PADDINGS:
            yield functools.partial(lax.pad, padding_config=config), x, np.ones((), dtype)
        yield lambda x: lax.concatenate([x, x[:, :0], x[:, :1]], 1), x
        yield lambda x: lax.split(x, (1, 0, 3), 2), x
        yield lambda x: (lax.stack_p.bind(x, x, axis=1), *lax.unstack_p.bind(x, axis=1)), x
        for starts in ((0, 1, 2), (-1, 9, -9), (5, -2, 1)):
            starts = np.array(starts, np.int32)
            yield lambda x, s: lax.dynamic_slice_p.bind(x, *s, slice_sizes=(1, 2, 3)), x, starts
            yield lambda x, s: lax.dynamic_slice(x, s, (2, 3, 0)), x, starts
            yield lambda x, s: lax.dynamic_update_slice(x, x[:1, :2, ::2], s), x, starts
    yield lambda x, i: lax.dynamic_slice(x, (i,), (2,)), normal(300), np.uint8(200)


PADDINGS = (
    ((1, 2, 0), (0, 0, 0), (0, 3, 0)),
    ((-1, 0, 0), (0, -2, 0), (-1, -1, 0)),
    ((0, 0, 2), (1, -1, 1), (-2, 3, 3)),
    ((-2, 1, 1), (-4, 2, 1), (-1, -3, 2)),
    ((-1, -1, 0), (0, 0, 0), (-4, 0, 0)),
)


@section()
def sorting():
    for dtype in FLOATS:
        x = np.concatenate([special(dtype), special(dtype)[::-1], [np.asarray(-np.nan, dtype)]])
        x = np.stack([x, x[::-1], np.roll(x, 5)])
        for axis in (0, 1):
            yield functools.partial(lax.sort, dimension=axis), x
            yield lambda x, a=axis: (lax.argmax(x, a, np.int32), lax.argmin(x, a, np.int64)), x
        yield lambda x: lax.argmax(jnp.abs(x[:, 3:7]), 1, np.uint8), x
        yield lambda x: (lax.top_k(x, 4), lax.top_k(x[:, 3:], 4)), x
        keys = np.asarray(x, dtype), whole(*x.shape, high=-2), normal(*x.shape)
        yield lambda *x: lax.sort(x, dimension=1, num_keys=2), keys[1], keys[0], keys[2]
        yield lambda *x: lax.sort(x, dimension=1, num_keys=1), *keys
    for dtype in (*INTEGERS, np.bool_):
        x = whole(3, 9, dtype=dtype)
        yield lax.sort, x
        yield lambda x: (lax.argmax(x, 1, np.int32), lax.argmin(x, 0, np.int32)), x
        yield lambda x: jnp.argsort(x, 1, descending=True), x
    yield lambda x: lax.top_k(x, 4), whole(3, 9)


def read(mode, **more):
    return lambda x, i: x.at[i, 1:].get(mode=mode, wrap_negative_indices=False, **more)


def write(method, mode):
    def scatter(x, i, y):
        return getattr(x.at[i, 1:], method)(y, mode=mode, wrap_negative_indices=False)

    return scatter


@section()
def reads():
    inside, outside = np.array([[2, 0], [0, 3]], np.int32), np.array([9, 1, -1, -7], np.int32)
    for dtype in (np.float32, jnp.bfloat16, np.int32, np.uint8, np.bool_):
        x = (normal(4, 3) * 3).astype(dtype)
        yield from each((read("fill"), read("clip"), read("fill", fill_value=1)), x, outside)
        yield read("promise_in_bounds"), x, inside
        yield lambda x, i: jnp.take_along_axis(x, i, 1, mode="fill"), x, whole(4, 2)
        yield jax.vmap(lambda x, i: x.at[i].get(mode="clip")), x, whole(4, 5)
        yield jax.vmap(lambda x, i: x[i], (1, None)), x, inside
        for mode in ("clip", "fill"):
            yield functools.partial(window_read, mode=mode), x, outside[:, None] // 2
        yield lambda x, i: x.at[i].get(mode="fill"), x, np.zeros((0, 2), np.int32)


@section(roundings=4, of_largest=True)
def writes():
    inside, outside = np.array([2, 0, 0, 3], np.int32), np.array([9, 1, -1, -7], np.int32)
    for dtype in (np.float32, jnp.bfloat16, np.int32, np.uint8, np.bool_):
        x, y = (normal(4, 3) * 3).astype(dtype), (normal(4, 2) * 2).astype(dtype)
        methods = ("set", "add", "mul", "min", "max") if dtype != np.bool_ else ("set", "min")
        if dtype not in (np.uint8, np.bool_):
            methods += ("subtract",)
        for method in methods:
            yield write(method, "promise_in_bounds"), x, inside, y
            update = lambda x, i, y, m=method: getattr(x.at[i], m)(y)  # noqa: E731
            yield jax.vmap(update), x, whole(4, 2, low=0, high=2), y
            yield from each((write(method, "drop"), write(method, "clip")), x, outside, y)
        for mode in ("clip", "drop"):
            yield functools.partial(window_write, mode=mode), x, outside[:, None] // 2, y
        yield lambda x, i, y: x.at[i].set(y), x, np.zeros(0, np.int32), x[:0]


def window_read(x, i, mode):
    """Read blocks (2, 2) of x that may lie partly outside it."""
    numbers = lax.GatherDimensionNumbers((1, 2), (), (0,))
    return lax.gather(x, i, numbers, (2, 2), mode=mode)


def window_write(x, i, y, mode):
    """Add blocks (2, 1) to x that may lie partly outside it."""
    numbers = lax.ScatterDimensionNumbers((1,), (1,), (0,))
    return lax.scatter_add(x, i, y, numbers, mode=mode) if x.dtype != bool else x
