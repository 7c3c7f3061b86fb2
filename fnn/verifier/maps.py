"""Error maps: three pictures of an array, of its expected and actual numbers and of its errors.

This file computes positions; the page's template draws them and its style sheet colours them. An
array of any rank becomes one grid of cells: a vector is wrapped into rows, and of a higher rank the
slice with the worst element is shown. If there are more elements than cells, each cell shows the
worst of its elements, in all three panels.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..text import nice_step
from . import words
from .judge import size_of, widen
from .report import Picture

Floats = NDArray[np.float64]

SHADES = 8
"""Steps of opacity from zero to the largest expected value."""
STEPS = 6
"""Steps of colour from the tolerance to the largest error."""
_MOST_CELLS = 48  # along a side
_ROW = 32  # cells in a row of a wrapped vector
_WIDTH, _HEIGHT, _LARGEST_CELL, _LONGEST_CELL = 288, 240, 40, 2  # units; the last is a ratio
_FRAME = 2.5  # units between a cell and the line around it


@dataclass(frozen=True)
class Layer:
    """All cells of one colour: a class of the style sheet, a shade, an SVG path."""

    name: str
    shade: int
    path: str


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Panel:
    """One of the pictures that make an error map."""

    title: str
    layers: tuple[Layer, ...]
    signed: bool
    """Whether colours run from negative to positive, rather than from small to large."""
    ends: tuple[str, ...]
    """Labels of the colour legend, from left to right."""
    broken: bool
    """Whether some cells hold no finite number."""


@dataclass(frozen=True)
class ErrorMap:
    """Three panels of one geometry, in SVG units, and a description in words."""

    panels: tuple[Panel, Panel, Panel]
    cell: tuple[int, int]
    width: int
    height: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_name: str
    y_name: str
    mark: tuple[float, float, float, float]
    worst: tuple[int, ...]
    outside: str
    layout: str

    left, top, right, bottom = 52, 4, 12, 38  # margins, for the ticks and the names of the axes


@dataclass(frozen=True)
class _Grid:
    """A matrix (h, w) laid into cells, each of rows × columns elements."""

    badness: Floats  # (h, w); -1 where a wrapped vector has ended
    rows: int
    columns: int

    def worst(self, values: Floats) -> Floats:
        """Return for each cell the value (h, w) where the badness is largest."""
        bad, here = self._blocks(self.badness, -1.0), self._blocks(values, 0.0)
        at = bad.argmax(axis=2, keepdims=True)
        return np.take_along_axis(here, at, axis=2)[:, :, 0]

    def _blocks(self, values: Floats, fill: float) -> Floats:
        h, w = values.shape
        high, wide = -(-h // self.rows), -(-w // self.columns)
        room = (0, high * self.rows - h), (0, wide * self.columns - w)
        full = np.pad(values, room, constant_values=fill)
        blocks = full.reshape(high, self.rows, wide, self.columns).swapaxes(1, 2)
        return blocks.reshape(high, wide, self.rows * self.columns)


def error_map(picture: Picture, index: tuple[int, ...] = ()) -> ErrorMap | None:
    """Return the map of a picture, with its worst element marked.

    That is `index`, if the picture has it. None if there is nothing to draw: for a single number,
    and for arrays of different shapes.
    """
    got, expected = widen(picture.got), widen(picture.expected)
    if got.shape != expected.shape or got.size < 2:
        return None
    error = _distance(got, expected)
    tolerance = np.broadcast_to(widen(picture.tolerance).real, got.shape)
    exact = not tolerance.any()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        badness = error if exact else np.where(error == 0, 0.0, error / tolerance)
    badness = np.where(np.isnan(badness), 0.0, badness)  # an infinite tolerance allows all
    threshold = 0.0 if exact else 1.0
    worst = tuple(int(i) for i in index)
    if len(worst) != got.ndim or any(not 0 <= i < n for i, n in zip(worst, got.shape, strict=True)):
        worst = tuple(int(i) for i in np.unravel_index(badness.argmax(), badness.shape))
    got, expected, part = _real(got, expected, worst)

    lead = worst[:-2]
    grid = _grid(_matrix(badness[lead], fill=-1.0), wrapped=got.ndim == 1)
    bad = grid.worst(grid.badness)
    actual, right = (grid.worst(_matrix(values[lead], fill=0.0)) for values in (got, expected))
    cell = _cell(*bad.shape)
    scale = size_of(right) or size_of(actual) or 1.0
    return ErrorMap(
        panels=(
            _values(f"expected{part}", right, bad, scale, cell),
            _values(f"got{part}", actual, bad, scale, cell),
            _errors(bad, np.isfinite(actual) & np.isfinite(right), threshold, cell),
        ),
        cell=cell,
        width=bad.shape[1] * cell[0],
        height=bad.shape[0] * cell[1],
        **_axes(got.shape, grid, bad.shape, cell),
        mark=_mark(worst, grid, cell),
        worst=worst,
        outside=_outside(badness, threshold),
        layout=_layout(got.shape, lead, grid),
    )


def _distance(got: NDArray[Any], expected: NDArray[Any]) -> Floats:
    """Return |got - expected|: 0 for equal infinities and two NaNs, infinite for one of them."""
    alike = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.where(alike, 0.0, np.abs(got - expected))
    return np.where(np.isnan(error), np.inf, error)


def _real(
    got: NDArray[Any], expected: NDArray[Any], worst: tuple[int, ...]
) -> tuple[Floats, Floats, str]:
    """Return the part of complex numbers in which the worst element differs more, and its name."""
    if not (np.iscomplexobj(got) or np.iscomplexobj(expected)):
        return got, expected, ""
    apart = [_distance(f(got[worst]), f(expected[worst])) for f in (np.real, np.imag)]
    if apart[0] >= apart[1]:
        return got.real, expected.real, ", real part"
    return got.imag, expected.imag, ", imaginary part"


def _matrix(values: Floats, fill: float) -> Floats:
    """Return a matrix unchanged, and a vector wrapped into rows."""
    if values.ndim == 2:
        return values
    n = len(values)
    row = n if n <= _ROW else _ROW * -(-n // (_ROW * _MOST_CELLS))  # cells times elements per cell
    return np.pad(values, (0, -n % row), constant_values=fill).reshape(-1, row)


def _grid(badness: Floats, wrapped: bool) -> _Grid:
    h, w = badness.shape
    if wrapped:
        return _Grid(badness, 1, -(-w // _ROW))
    return _Grid(badness, -(-h // _MOST_CELLS), -(-w // _MOST_CELLS))


def _cell(high: int, wide: int) -> tuple[int, int]:
    """Return a cell's width and height in whole units: square if there is room, never slender."""
    x = min(_LARGEST_CELL, _WIDTH // wide)
    y = min(_LARGEST_CELL, _HEIGHT // high)
    return min(x, _LONGEST_CELL * y), min(y, _LONGEST_CELL * x)


def _values(title: str, values: Floats, bad: Floats, scale: float, cell: tuple[int, int]) -> Panel:
    finite = np.isfinite(values)
    with np.errstate(over="ignore"):
        share = np.clip(np.where(finite, values, 0.0) / scale, -1.0, 1.0)
    shade = np.rint(SHADES * share).astype(int)
    layers = [
        Layer("positive" if s > 0 else "negative", abs(s), _path(shade == s, cell))
        for s in range(-SHADES, SHADES + 1)
        if s
    ]
    layers += [Layer("broken", 0, _path(~finite, cell)), Layer("end", 0, _path(bad < 0, cell))]
    ends = (f"−{words.short(scale)}", words.short(scale))
    return _panel(title, layers, True, ends, not finite.all())


def _errors(
    bad: Floats, finite: NDArray[np.bool_], threshold: float, cell: tuple[int, int]
) -> Panel:
    """Return the panel of errors over tolerances, or of errors where none is allowed."""
    broken = (bad > threshold) & ~finite
    wrong = (bad > threshold) & ~broken
    with np.errstate(divide="ignore"):
        decades = np.log10(np.where(wrong, bad, 1.0))
    bounded = decades[wrong & np.isfinite(bad)]
    first = 0 if threshold or not bounded.size else math.floor(bounded.min())
    last = max(first + 1, math.ceil(bounded.max(initial=first) - 1e-9))
    step = np.ceil(STEPS * (decades - first) / (last - first) - 1e-9).clip(1, STEPS)
    layers = [Layer("wrong", k, _path(wrong & (step == k), cell)) for k in range(1, STEPS + 1)]
    within = (bad > 0.1 * threshold) & (bad <= threshold)
    layers += [
        Layer("within", 0, _path(within, cell)),
        Layer("broken", 0, _path(broken, cell)),
        Layer("end", 0, _path(bad < 0, cell)),
    ]
    title, start = ("error / tolerance", -1) if threshold else ("error (none is allowed)", first)
    ends = tuple(map(_power, sorted({start, first, last})))
    return _panel(title, layers, False, ends, bool(broken.any()))


def _power(exponent: int) -> str:
    """Return 10ᵏ as text, even beyond float64."""
    return f"{10.0**exponent:g}" if abs(exponent) < 3 else f"1e{exponent}"


def _panel(
    title: str, layers: list[Layer], signed: bool, ends: tuple[str, ...], broken: bool
) -> Panel:
    return Panel(title, tuple(layer for layer in layers if layer.path), signed, ends, broken)


def _path(cells: NDArray[np.bool_], cell: tuple[int, int]) -> str:
    """Return cells (h, w) as an SVG path: one stroke, as wide as a row is high, per run."""
    strokes = []
    for r, row in enumerate(cells):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
        y = (r + 0.5) * cell[1]
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            strokes.append(f"M{start * cell[0]} {y:g}h{(stop - start) * cell[0]}")
    return "".join(strokes)


def _axes(
    shape: tuple[int, ...], grid: _Grid, cells: tuple[int, ...], cell: tuple[int, int]
) -> dict[str, Any]:
    if len(shape) == 1:
        row = grid.badness.shape[1]
        wrapped = cells[0] > 1
        rows = range(0, cells[0], -(-cells[0] // 8)) if wrapped else ()
        return {
            "x_name": "index, from the row's first" if wrapped else "index",
            "y_name": "",
            "x_ticks": _ticks(min(row, shape[0]), grid.columns, cell[0], "+" if wrapped else ""),
            "y_ticks": tuple(Tick((r + 0.5) * cell[1], f"{r * row:,}") for r in rows),
        }
    return {
        "x_name": f"axis {len(shape) - 1}",
        "y_name": f"axis {len(shape) - 2}",
        "x_ticks": _ticks(shape[-1], grid.columns, cell[0]),
        "y_ticks": _ticks(shape[-2], grid.rows, cell[1]),
    }


def _ticks(n: int, elements: int, side: int, sign: str = "") -> tuple[Tick, ...]:
    """Return ticks at round indices below n, with `elements` per cell of `side` units."""
    room = max(2, math.ceil(n / elements) * side // 40)
    step = max(1, round(nice_step(n, room)))
    at = [(i, (i + 0.5) / elements * side) for i in range(0, n, step)]
    return tuple(Tick(round(x, 1), f"{sign}{i:,}" if i else "0") for i, x in at)


def _mark(
    worst: tuple[int, ...], grid: _Grid, cell: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the frame around the worst element's cell: x, y, width, height."""
    r, c = worst[-2:] if len(worst) > 1 else divmod(worst[0], grid.badness.shape[1])
    x, y = c // grid.columns * cell[0], r // grid.rows * cell[1]
    return x - _FRAME, y - _FRAME, cell[0] + 2 * _FRAME, cell[1] + 2 * _FRAME


def _outside(badness: Floats, threshold: float) -> str:
    wrong = badness > threshold
    text = f"{wrong.sum():,} of {wrong.size:,} elements lie outside the tolerance"
    slices = wrong.reshape(-1, math.prod(wrong.shape[-2:])).any(axis=1)
    return f"{text}, in {slices.sum():,} of {slices.size:,} slices" if slices.size > 1 else text


def _layout(shape: tuple[int, ...], lead: tuple[int, ...], grid: _Grid) -> str:
    clauses = [" × ".join(f"{n:,}" for n in shape) + " elements"] if len(shape) > 1 else []
    if lead:
        clauses.append(f"the slice [{', '.join(map(str, lead))}, :, :] is shown")
    if grid.rows * grid.columns > 1:
        size = f"{grid.rows} × {grid.columns}" if len(shape) > 1 else f"{grid.columns:,}"
        clauses.append(f"a cell shows the worst of {size} elements")
    return words.sentence("; ".join(clauses)) if clauses else ""
