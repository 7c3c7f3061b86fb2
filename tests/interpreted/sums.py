"""Programs that sum: along axes, in matrix products, in windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .table import FLOATS, each, normal, section, whole

REDUCE = lax.reduce_sum, lax.reduce_prod, lax.reduce_max, lax.reduce_min


@section(roundings=16, of_largest=True)
def reductions():
    for dtype in (*FLOATS, np.int8):
        x = (normal(3, 4, 5) * 2).astype(dtype)
        for axes in ((0,), (1, 2), ()):
            yield from each(REDUCE, x, axes=axes)
        yield from each(REDUCE, x[:, :0], axes=(1, 2))
        cumulate = lax.cumsum, lax.cumprod, lax.cummax, lax.cummin
        yield from each(cumulate, x, axis=1)
        yield from each(cumulate, x, axis=2, reverse=True)
        if dtype in FLOATS:
            x = x.copy()
            x[0, 1, 2] = np.nan
            yield from each((lax.reduce_max, lax.reduce_min, lax.reduce_sum), x, axes=(1,))
            yield from each((lax.cummax, lax.cummin, lax.cumsum, lax.cumlogsumexp), x, axis=1)
            x = x.copy()
            x[0, 0] = x[0, 1] = x[1, 0, 0] = -np.inf
            yield functools.partial(lax.cumlogsumexp, axis=1, reverse=True), x
    for dtype in (np.bool_, np.int32, np.uint8):
        x = whole(3, 4, dtype=dtype)
        for axes, some in (((1,), x), ((0, 1), x[:0])):
            yield from each((lax.reduce_and, lax.reduce_or, lax.reduce_xor), some, axes=axes)
    x = whole(3, 4, dtype=np.bool_)
    yield lambda x: (lax.reduce_max(x, (0,)), lax.reduce_min(x, (1,))), x
    yield lambda x: lax.reduce_max(x[:0], (0,)), x


@section(roundings=16, of_largest=True)
def products():
    for dtype in (*FLOATS, np.int32):
        a, b = (normal(2, 3, 4) * 2).astype(dtype), (normal(4, 2, 5, 3) * 2).astype(dtype)
        for sums in (((2, 1), (0, 3)), ((2,), (0,)), ((), ())):
            numbers = sums, ((0,), (1,))
            yield functools.partial(lax.dot_general, dimension_numbers=numbers), a, b
            empty = a[:, :0], b[..., :0]
            yield functools.partial(lax.dot_general, dimension_numbers=numbers), *empty
        wide = functools.partial(lax.dot_general, dimension_numbers=(((2,), (0,)), ((), ())))
        widest = np.float64 if dtype in FLOATS else np.int64
        yield functools.partial(wide, preferred_element_type=widest), a, b
    truth = whole(3, 3, low=0, high=2, dtype=np.bool_)
    yield lambda a: lax.dot_general(a, a, (((1,), (0,)), ((), ()))), truth
    for dtype in (np.float32, jnp.bfloat16):
        for inputs, outputs, groups, batches, options in CONVOLUTIONS:
            x = normal(4, 7, 6, inputs, dtype=dtype)
            w = normal(3, 2, inputs // groups, outputs, dtype=dtype)
            options = {"window_strides": (1, 1), "padding": ((0, 0), (0, 0))} | options
            options |= {"feature_group_count": groups, "batch_group_count": batches}
            yield convolution(("NHWC", "HWIO", "NHWC"), **options), x, w
    numbers = ("CWN", "IWO", "NWC")
    yield (
        convolution(numbers, window_strides=(2,), padding="SAME"),
        normal(3, 9, 2),
        normal(3, 4, 5),
    )


def convolution(numbers, **options):
    return functools.partial(lax.conv_general_dilated, dimension_numbers=numbers, **options)


CONVOLUTIONS = (
    (3, 4, 1, 1, {"window_strides": (2, 1), "padding": ((1, 2), (0, 3))}),
    (4, 6, 2, 1, {"lhs_dilation": (2, 3), "rhs_dilation": (1, 2)}),
    (3, 6, 3, 1, {"padding": ((-1, 2), (1, -2)), "rhs_dilation": (2, 1)}),
    (3, 4, 1, 2, {"padding": ((1, 1), (1, 1)), "lhs_dilation": (1, 2)}),
    (3, 4, 1, 4, {"window_strides": (3, 2)}),
    (2, 3, 1, 1, {"lhs_dilation": (2, 2), "padding": ((-2, 1), (0, -3)), "window_strides": (2, 2)}),
    (2, 3, 1, 1, {"padding": ((-3, -2), (0, 0))}),
)
WINDOWS = (
    {"window_dimensions": (2, 3), "window_strides": (1, 2), "padding": ((0, 0), (0, 0))},
    {"window_dimensions": (2, 2), "window_strides": (2, 1), "padding": ((1, 0), (2, 1))},
    {"window_dimensions": (2, 3), "window_strides": (1, 1), "padding": ((1, 1), (0, 2))}
    | {"base_dilation": (2, 1), "window_dilation": (1, 2)},
)


SUMS = (lax.add, 0), (lax.mul, 1), (lax.add, 2), (lax.max, 1)


@section(roundings=16, of_largest=True)
def windows():
    for dtype in (np.float32, jnp.bfloat16, np.int32):
        x = (normal(5, 6) * 2).astype(dtype)
        limits = jnp.finfo(dtype) if dtype in FLOATS else np.iinfo(dtype)
        lowest, highest = (-np.inf, np.inf) if dtype in FLOATS else (limits.min, limits.max)
        extremes = (lax.max, lowest), (lax.min, highest)
        for options in WINDOWS:
            for function, start in (*extremes, *SUMS):
                yield pooled(function, start, options), x
            for function, start in extremes if dtype in FLOATS else ():
                yield from derivatives(pooled(function, start, options), x, start, options)


def windowed(x, function=lax.add, start=0, options=WINDOWS[0]):
    return lax.reduce_window(x, np.asarray(start, x.dtype), function, **options)


def pooled(function, start, options=WINDOWS[0]):
    return functools.partial(windowed, function=function, start=start, options=options)


def derivatives(pool, x, start, options):
    """Yield pullbacks of a pool where numbers are equal, infinite or NaN."""
    if "base_dilation" in options:
        return
    ties = np.round(x / 2).astype(x.dtype)
    ties[3, 3:], ties[1, 2] = -np.inf, np.nan
    dy = normal(*jax.eval_shape(pool, x).shape, dtype=x.dtype)
    for y in (ties, np.full_like(x, start)):
        yield lambda y: jax.vjp(pool, y)[1](dy), y
