"""Primitives that move elements about, or run along axes: shapes, slices, sums, sorts."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .primitives import (
    Function,
    accumulator,
    highest,
    is_extended,
    lowest,
    padded,
    primitive,
    ranks,
)


@primitive("iota")
def _iota(equation: Any) -> Function:
    aval, axis = equation.outvars[0].aval, equation.params["dimension"]
    shape = [-1 if i == axis else 1 for i in range(len(aval.shape))]
    numbers = np.broadcast_to(
        np.arange(aval.shape[axis]).astype(aval.dtype).reshape(shape), aval.shape
    )
    return lambda *_: numbers


@primitive("broadcast_in_dim")
def _broadcast(equation: Any) -> Function:
    shape, axes = equation.params["shape"], equation.params["broadcast_dimensions"]
    aligned = [1] * len(shape)
    for n, axis in zip(equation.invars[0].aval.shape, axes, strict=True):
        aligned[axis] = n
    dtype = equation.outvars[0].aval.dtype
    dtype = object if is_extended(dtype) else dtype

    def broadcast(x: Any, *_: Any) -> Any:
        out = np.empty(shape, dtype)  # several times as fast as a view by np.broadcast_to
        out[...] = np.reshape(x, aligned)
        return out

    return broadcast


@primitive("reshape")
def _reshape(equation: Any) -> Function | None:
    shape = equation.params["new_sizes"]
    if equation.params.get("dimensions") is not None:
        return None
    return lambda x, *_: np.reshape(x, shape)


@primitive("squeeze")
def _squeeze(equation: Any) -> Function:
    shape = equation.outvars[0].aval.shape
    return lambda x: np.reshape(x, shape)


@primitive("transpose")
def _transpose(equation: Any) -> Function:
    axes = equation.params["permutation"]
    return lambda x: np.transpose(x, axes)


@primitive("rev")
def _rev(equation: Any) -> Function:
    axes = equation.params["dimensions"]
    return lambda x: np.flip(x, axes)


@primitive("slice")
def _slice(equation: Any) -> Function:
    params = equation.params
    strides = params["strides"] or (1,) * len(params["start_indices"])
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    where = tuple(slice(*bound) for bound in bounds)
    return lambda x: x[where]


@primitive("pad")
def _pad(equation: Any) -> Function:
    config = equation.params["padding_config"]
    return lambda x, value: padded(x, config, value)


@primitive("concatenate")
def _concatenate(equation: Any) -> Function:
    axis = equation.params["dimension"]
    return lambda *arrays: np.concatenate(arrays, axis)


@primitive("stack")
def _stack(equation: Any) -> Function:
    axis = equation.params["axis"]
    return lambda *arrays: np.stack(arrays, axis)


@primitive("unstack")
def _unstack(equation: Any) -> Function:
    axis, shape = equation.params["axis"], equation.outvars[0].aval.shape
    return lambda x: [np.reshape(part, shape) for part in np.split(x, x.shape[axis], axis)]


@primitive("split")
def _split(equation: Any) -> Function:
    axis, at = equation.params["axis"], np.cumsum(equation.params["sizes"])[:-1]
    return lambda x: np.split(x, at, axis)


def _corner(x: Any, starts: Any, sizes: Any) -> tuple[slice, ...]:
    """Return the slices of a block that begins at `starts`, moved inside x where it is not."""
    firsts = [
        min(max(int(s), 0), n - size) for s, n, size in zip(starts, x.shape, sizes, strict=True)
    ]
    return tuple(slice(first, first + size) for first, size in zip(firsts, sizes, strict=True))


@primitive("dynamic_slice")
def _dynamic_slice(equation: Any) -> Function:
    sizes = equation.params["slice_sizes"]
    return lambda x, *starts: x[_corner(x, starts, sizes)]


@primitive("dynamic_update_slice")
def _dynamic_update_slice(equation: Any) -> Function:
    def update(x: Any, block: Any, *starts: Any) -> Any:
        out = np.array(x)
        out[_corner(x, starts, block.shape)] = block
        return out

    return update


@primitive("reduce_sum", "reduce_prod")
def _sum(equation: Any) -> Function:
    axes, dtype = equation.params["axes"], equation.outvars[0].aval.dtype
    ufunc = np.add if equation.primitive.name == "reduce_sum" else np.multiply
    wide = accumulator(dtype)
    if wide != dtype:
        return lambda x: ufunc.reduce(x.astype(wide), axes).astype(dtype)
    return lambda x: ufunc.reduce(x, axes, dtype=dtype)


def _extreme(ufunc: Any, initial: Callable[[Any], Any]) -> Callable[[Any], Function]:
    def prepare(equation: Any) -> Function:
        axes, dtype = equation.params["axes"], equation.outvars[0].aval.dtype
        start = np.array(initial(dtype), dtype)[()]
        return lambda x: ufunc.reduce(x, axes, initial=start)

    return prepare


primitive("reduce_max")(_extreme(np.maximum, lowest))
primitive("reduce_min")(_extreme(np.minimum, highest))
BITWISE = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


@primitive("reduce_and", "reduce_or", "reduce_xor")
def _bitwise(equation: Any) -> Function:
    axes, ufunc = equation.params["axes"], BITWISE[equation.primitive.name.removeprefix("reduce_")]
    return lambda x: ufunc.reduce(x, axes)


@primitive("argmax", "argmin")
def _argument(equation: Any) -> Function:
    (axis,), dtype = equation.params["axes"], equation.params["index_dtype"]
    find = np.argmax if equation.primitive.name == "argmax" else np.argmin
    return lambda x: find(x, axis).astype(dtype)


CUMULATIVE = {
    "cumsum": np.add,
    "cumprod": np.multiply,
    "cummax": np.maximum,
    "cummin": np.minimum,
    "cumlogsumexp": np.logaddexp,
}


@primitive(*CUMULATIVE)
def _cumulative(equation: Any) -> Function:
    axis, dtype = equation.params["axis"], equation.outvars[0].aval.dtype
    ufunc, wide = CUMULATIVE[equation.primitive.name], accumulator(dtype)

    def run(x: Any) -> Any:
        return ufunc.accumulate(x.astype(wide), axis).astype(dtype)

    if equation.params["reverse"]:
        return lambda x: np.flip(run(np.flip(x, axis)), axis)
    return run


@primitive("sort")
def _sort(equation: Any) -> Function:
    axis, keys = equation.params["dimension"], equation.params["num_keys"]

    def run(*arrays: Any) -> Any:
        order = np.lexsort([_plain(a) for a in arrays[keys - 1 :: -1]], axis)
        return [np.take_along_axis(a, order, axis) for a in arrays]

    return run


def _plain(x: Any) -> Any:
    """Return numbers in a dtype that NumPy sorts."""
    return x.astype(np.float32) if accumulator(x.dtype) != x.dtype else x


@primitive("top_k")
def _top_k(equation: Any) -> Function:
    k, axis = equation.params["k"], equation.params.get("axis", -1)
    index = equation.outvars[1].aval.dtype

    def run(x: Any) -> Any:
        order = np.take(np.argsort(~ranks(x), axis, kind="stable"), range(k), axis)
        return np.take_along_axis(x, order, axis), order.astype(index)

    return run
