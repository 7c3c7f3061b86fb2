"""Primitives that sum over several positions: matrix products, convolutions, windows."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .primitives import Function, accumulator, by_taps, highest, lowest, padded, primitive


@primitive("dot_general")
def _dot(equation: Any) -> Function:
    ((a_sum, b_sum), (a_batch, b_batch)) = equation.params["dimension_numbers"]
    out = equation.outvars[0].aval
    shapes = [var.aval.shape for var in equation.invars]
    a_free = [i for i in range(len(shapes[0])) if i not in (*a_sum, *a_batch)]
    b_free = [i for i in range(len(shapes[1])) if i not in (*b_sum, *b_batch)]
    batch = math.prod(shapes[0][i] for i in a_batch)
    length = math.prod(shapes[0][i] for i in a_sum)
    a_axes, b_axes = (*a_batch, *a_free, *a_sum), (*b_batch, *b_sum, *b_free)
    a_shape = batch, math.prod(shapes[0][i] for i in a_free), length
    b_shape = batch, length, math.prod(shapes[1][i] for i in b_free)
    wide = accumulator(out.dtype)

    def run(a: Any, b: Any) -> Any:
        a = np.transpose(a, a_axes).reshape(a_shape).astype(wide)
        b = np.transpose(b, b_axes).reshape(b_shape).astype(wide)
        return np.matmul(a, b).astype(out.dtype).reshape(out.shape)

    return run


@primitive("conv_general_dilated")
def _convolution(equation: Any) -> Function:
    params, out = equation.params, equation.outvars[0].aval
    numbers = params["dimension_numbers"]
    groups, batches = params["feature_group_count"], params["batch_group_count"]
    sizes = [out.shape[i] for i in numbers.out_spec[2:]]
    strides, dilation = params["window_strides"], params["rhs_dilation"]
    config = [(0, 0, 0), (0, 0, 0), *_config(params["padding"], params["lhs_dilation"])]
    wide = accumulator(out.dtype)
    back = np.argsort(numbers.out_spec)

    def run(x: Any, w: Any) -> Any:
        x = padded(np.transpose(x, numbers.lhs_spec).astype(wide), config, 0)  # (n, c, ...)
        w = np.transpose(w, numbers.rhs_spec).astype(wide)  # (outputs, c / groups, ...)
        n, c = x.shape[0] // batches, x.shape[1]
        each = w.shape[0] // (groups * batches)
        x = x.reshape(batches, n, groups, c // groups, *x.shape[2:])
        w = w.reshape(batches, groups, each, c // groups, *w.shape[2:])
        total = np.zeros((batches, groups, each, n, *sizes), wide)
        for tap, where in by_taps(w.shape[4:], sizes, strides, dilation):
            taps = x[(..., *where)].transpose(0, 2, 3, 1, *range(4, x.ndim))  # (b, g, c, n, ...)
            flat = taps.reshape(batches, groups, c // groups, n * math.prod(sizes))
            total += np.matmul(w[(..., *tap)], flat).reshape(total.shape)
        total = total.transpose(3, 0, 1, 2, *range(4, total.ndim))
        y = total.reshape(n, w.shape[0] * groups * each, *sizes)
        return np.transpose(y, back).astype(out.dtype)

    return run


def _config(padding: Any, dilation: Any) -> list[tuple[int, int, int]]:
    """Return padding and dilation as `padded` takes them."""
    return [(*ends, between - 1) for ends, between in zip(padding, dilation, strict=True)]


MONOIDS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "add": (np.add, lambda dtype: 0),
    "mul": (np.multiply, lambda dtype: 1),
    "max": (np.maximum, lowest),
    "min": (np.minimum, highest),
}


@primitive("reduce_window_sum", "reduce_window_max", "reduce_window_min")
def _reduce_window(equation: Any) -> Function:
    kind = equation.primitive.name.removeprefix("reduce_window_")
    ufunc, start = MONOIDS["add" if kind == "sum" else kind]
    return _windows(equation, ufunc, start(equation.outvars[0].aval.dtype))


@primitive("reduce_window")
def _general_reduce_window(equation: Any) -> Function | None:
    """Return the reduction of a window by a program, if that is one operation of MONOIDS."""
    body = equation.params["jaxpr"]
    body = getattr(body, "jaxpr", body)
    if len(body.eqns) != 1 or body.eqns[0].primitive.name not in MONOIDS:
        return None
    if list(body.eqns[0].invars) != list(body.invars) or len(body.invars) != 2:
        return None
    ufunc, start = MONOIDS[body.eqns[0].primitive.name]
    run = _windows(equation, ufunc, start(equation.outvars[0].aval.dtype))
    return lambda x, initial: [ufunc(run(x), initial)]  # a CPU skips the padding


def _windows(equation: Any, ufunc: Any, start: Any) -> Function:
    params, out = equation.params, equation.outvars[0].aval
    config = _config(params["padding"], params["base_dilation"])
    names = ("window_strides", "window_dilation")
    taps = list(by_taps(params["window_dimensions"], out.shape, *(params[n] for n in names)))
    wide = accumulator(out.dtype)

    def run(x: Any) -> Any:
        x = padded(x.astype(wide), config, start)
        total = np.full(out.shape, start, wide)
        for _, where in taps:
            total = ufunc(total, x[where])
        return total.astype(out.dtype)

    return run


def _choices(x: Any, equation: Any, sizes: Any) -> np.ndarray:
    """Return the position in x that each window chooses; -1 for padding.

    A window chooses the first of equal numbers. As in XLA, any later number replaces a NaN, which
    is not at least as large.
    """
    params = equation.params
    largest = params["select_prim"].name == "ge"
    remains = np.greater_equal if largest else np.less_equal
    config = [(low, high, 0) for low, high in params["padding"]]
    places = padded(np.arange(x.size).reshape(x.shape), config, -1)
    numbers = padded(x, config, lowest(x.dtype) if largest else highest(x.dtype))
    dilation = params.get("window_dilation") or (1,) * x.ndim
    best: Any = None
    at: Any = np.full(sizes, -1)
    for _, where in by_taps(params["window_dimensions"], sizes, params["window_strides"], dilation):
        here, place = numbers[where], places[where]
        if best is None:
            best, at = here, place
        remain = remains(best, here)
        best, at = np.where(remain, best, here), np.where(remain, at, place)
    return at


@primitive("select_and_scatter_add")
def _select_and_scatter(equation: Any) -> Function:
    out = equation.outvars[0].aval

    def run(source: Any, x: Any) -> Any:
        at = _choices(x, equation, source.shape)
        total = np.zeros(x.size, accumulator(out.dtype))
        np.add.at(total, at[at >= 0], source[at >= 0].astype(total.dtype))
        return total.reshape(x.shape).astype(out.dtype)

    return run
