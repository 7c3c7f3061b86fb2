"""Primitives that move elements, or run along axes: shapes, slices, sums, sorts."""

from functools import partial
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


@primitive("reshape", "squeeze")
def _reshape(equation: Any) -> Function | None:
    shape = equation.outvars[0].aval.shape
    if equation.params.get("dimensions") is not None and equation.primitive.name == "reshape":
        return None
    return lambda x, *_: np.reshape(x, shape)


BY_PARAMETER: dict[str, tuple[str, Function]] = {
    "transpose": ("permutation", lambda axes, x: np.transpose(x, axes)),
    "rev": ("dimensions", lambda axes, x: np.flip(x, axes)),
    "pad": ("padding_config", lambda config, x, value: padded(x, config, value)),
    "concatenate": ("dimension", lambda axis, *arrays: np.concatenate(arrays, axis)),
    "stack": ("axis", lambda axis, *arrays: np.stack(arrays, axis)),
    "dynamic_slice": ("slice_sizes", lambda sizes, x, *at: x[_corner(x, at, sizes)]),
}
"""Primitives with one parameter: its name, and the function of its value and the arrays."""


@primitive(*BY_PARAMETER)
def _by_parameter(equation: Any) -> Function:
    name, function = BY_PARAMETER[equation.primitive.name]
    return partial(function, equation.params[name])


@primitive("slice")
def _slice(equation: Any) -> Function:
    params = equation.params
    strides = params["strides"] or (1,) * len(params["start_indices"])
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    where = tuple(slice(*bound) for bound in bounds)
    return lambda x: x[where]


@primitive("unstack")
def _unstack(equation: Any) -> Function:
    axis, shape = equation.params["axis"], equation.outvars[0].aval.shape
    return lambda x: [np.reshape(part, shape) for part in np.split(x, x.shape[axis], axis)]


@primitive("split")
def _split(equation: Any) -> Function:
    axis, at = equation.params["axis"], np.cumsum(equation.params["sizes"])[:-1]
    return lambda x: np.split(x, at, axis)


def _corner(x: Any, starts: Any, sizes: Any) -> tuple[slice, ...]:
    """Return the slices of a block that begins at `starts`, moved to lie inside x."""
    firsts = [
        min(max(int(s), 0), n - size) for s, n, size in zip(starts, x.shape, sizes, strict=True)
    ]
    return tuple(slice(first, first + size) for first, size in zip(firsts, sizes, strict=True))


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


REDUCTIONS: dict[str, tuple[Any, Any]] = {
    "reduce_max": (np.maximum, lowest),
    "reduce_min": (np.minimum, highest),
    "reduce_and": (np.bitwise_and, None),
    "reduce_or": (np.bitwise_or, None),
    "reduce_xor": (np.bitwise_xor, None),
}
"""Reductions, each with the number of a dtype that they start from, or none."""


@primitive(*REDUCTIONS)
def _reduce(equation: Any) -> Function:
    axes, dtype = equation.params["axes"], equation.outvars[0].aval.dtype
    ufunc, initial = REDUCTIONS[equation.primitive.name]
    if initial is None:
        return lambda x: ufunc.reduce(x, axes)
    start = np.array(initial(dtype), dtype)[()]
    return lambda x: ufunc.reduce(x, axes, initial=start)


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

    def plain(x: Any) -> Any:  # in a dtype that NumPy sorts
        return x.astype(np.float32) if accumulator(x.dtype) != x.dtype else x

    def run(*arrays: Any) -> Any:
        order = np.lexsort([plain(a) for a in arrays[keys - 1 :: -1]], axis)
        return [np.take_along_axis(a, order, axis) for a in arrays]

    return run


@primitive("top_k")
def _top_k(equation: Any) -> Function:
    k, axis = equation.params["k"], equation.params.get("axis", -1)
    index = equation.outvars[1].aval.dtype

    def run(x: Any) -> Any:
        order = np.take(np.argsort(~ranks(x), axis, kind="stable"), range(k), axis)
        return np.take_along_axis(x, order, axis), order.astype(index)

    return run
