"""Primitives that read and write at the positions in an array of indices."""

from typing import Any

import numpy as np

from .primitives import Function, accumulator, primitive


class _Windows:
    """The windows that a gather reads, or a scatter writes.

    `columns` maps an axis of the operand to the column of the indices with its start, `batches` an
    axis to the axis of the indices along which it counts. Other axes start at 0.
    """

    def __init__(
        self, shape: Any, sizes: Any, columns: Any, batches: Any, dropped: Any, fills: bool
    ):
        self.shape, self.sizes = shape, sizes
        self.columns, self.batches = columns, batches
        self.window_axes = [i for i in range(len(shape)) if i not in dropped]
        self.fills = fills

    def find(self, indices: Any) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Return an index for each axis of the operand, and which windows lie inside.

        The arrays have the axes of the indices (without the last), then those of the windows, and
        broadcast against each other.
        """
        outer = indices.shape[:-1]
        inside = np.ones(outer, bool)
        where = []
        for axis, (n, size) in enumerate(zip(self.shape, self.sizes, strict=True)):
            start = np.zeros(outer, np.int64)
            if axis in self.columns:
                start = indices[..., self.columns[axis]].astype(np.int64)
            elif axis in self.batches:
                along = self.batches[axis]
                count = [-1 if i == along else 1 for i in range(len(outer))]
                start = start + np.arange(outer[along]).reshape(count)
            inside &= (start >= 0) & (start <= n - size)
            start = np.maximum(np.minimum(start, max(0, n - size)), 0)
            start = np.reshape(start, (*outer, *(1,) * len(self.window_axes)))
            if axis in self.window_axes:
                place = self.window_axes.index(axis)
                steps = [-1 if i == place else 1 for i in range(len(self.window_axes))]
                start = start + np.arange(size).reshape(steps)
            where.append(start)
        return tuple(where), inside


@primitive("gather")
def _gather(equation: Any) -> Function:
    params, out = equation.params, equation.outvars[0].aval
    numbers, fill = params["dimension_numbers"], params["fill_value"]
    windows = _Windows(
        equation.invars[0].aval.shape,
        params["slice_sizes"],
        {axis: i for i, axis in enumerate(numbers.start_index_map)},
        dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)),
        (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims),
        "FILL" in str(params["mode"]),
    )
    outer = [i for i in range(len(out.shape)) if i not in numbers.offset_dims]
    back: Any = np.argsort([*outer, *numbers.offset_dims]) if out.shape else []

    def run(x: Any, indices: Any) -> Any:
        where, inside = windows.find(indices)
        if x.size:
            y = x[where]
        else:
            y = np.zeros(np.broadcast_shapes(*(a.shape for a in where)), x.dtype)
        if windows.fills and not inside.all():
            inside = inside.reshape(*inside.shape, *(1,) * len(windows.window_axes))
            y = np.where(inside, y, np.array(_filling(fill, x.dtype), x.dtype))
        return np.transpose(y, back)

    return run


def _filling(fill: Any, dtype: Any) -> Any:
    """Return the number that a gather reads outside; by default NaN, or an extreme integer."""
    if fill is not None:
        return fill
    if dtype == np.bool_:
        return True
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return limits.min if limits.min < 0 else limits.max
    return np.nan


WRITES: dict[str, Any] = {
    "scatter": None,
    "scatter-add": np.add,
    "scatter-sub": np.subtract,
    "scatter-mul": np.multiply,
    "scatter-min": np.minimum,
    "scatter-max": np.maximum,
}


@primitive(*WRITES)
def _scatter(equation: Any) -> Function | None:
    params, ufunc = equation.params, WRITES[equation.primitive.name]
    if ufunc is None and params["update_jaxpr"] is not None and params["update_jaxpr"].eqns:
        return None  # it applies a function to the old numbers
    numbers, out = params["dimension_numbers"], equation.outvars[0].aval
    shape, blocks = out.shape, equation.invars[2].aval.shape
    dropped = *numbers.inserted_window_dims, *numbers.operand_batching_dims
    axes = [i for i in range(len(shape)) if i not in dropped]
    sizes = [1] * len(shape)
    for axis, place in zip(axes, numbers.update_window_dims, strict=True):
        sizes[axis] = blocks[place]
    windows = _Windows(
        shape,
        sizes,
        {axis: i for i, axis in enumerate(numbers.scatter_dims_to_operand_dims)},
        dict(
            zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
        ),
        dropped,
        "CLIP" not in str(params["mode"]),
    )
    outer = [i for i in range(len(blocks)) if i not in numbers.update_window_dims]
    order = *outer, *numbers.update_window_dims
    wide = accumulator(out.dtype) if ufunc is not None else out.dtype

    def run(x: Any, indices: Any, updates: Any) -> Any:
        where, inside = windows.find(indices)
        y, updates = np.array(x, wide), np.transpose(updates, order).astype(wide)
        if windows.fills and not inside.all():
            where = tuple(index[inside] for index in np.broadcast_arrays(*where))
            updates = updates[inside]
        if not updates.size:
            return y.astype(out.dtype)
        if ufunc is None:
            y[where] = updates
        else:
            ufunc.at(y, where, updates)
        return y.astype(out.dtype)

    return run
