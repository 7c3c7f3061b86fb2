"""The geometry of a sweep's figures: parallel coordinates, a result over a value, many curves.

As in `charts.py`, the template draws and this file returns positions. The style sheet colours a run
by its `rank`, from 1 for the best to 0 for the worst.
"""

import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import text
from ..metrics import Metric
from . import charts
from .charts import Axis, Chart, Floats, Tick

WIDTH, HEIGHT = 1020.0, 372.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 960.0, 62.0, 330.0
BELOW = 26.0
"""How far below its axis a result without a place on it is drawn."""
MARGIN = 16.0
"""The distance of a plot's dots from its edges."""
MOST_TIMES = 100.0
"""A loss above this times the median has no place."""
MOST_NAMED = 14
"""Labels on an axis of values that are not numbers, at most."""


class Scale(NamedTuple):
    """The positions of one column's values: `places` (n,), NaN for a value without one."""

    ticks: tuple[Tick, ...]
    places: Floats


class Coordinate(NamedTuple):
    """One vertical axis of the parallel coordinates."""

    name: str
    x: float
    ticks: tuple[Tick, ...]
    lost: bool  # whether some runs have no place on it


class Thread(NamedTuple):
    """One run's line through all axes."""

    run: int
    path: str
    rank: float
    lost: bool  # without a place on some axis


class Parallel(NamedTuple):
    """Parallel coordinates, with the threads from the worst to the best."""

    axes: tuple[Coordinate, ...]
    threads: tuple[Thread, ...]


class Spot(NamedTuple):
    """One run in a plot of a result over a value."""

    run: int
    x: float
    y: float
    rank: float


class Plot(NamedTuple):
    """A result over the values of one key."""

    key: str
    result: str
    spots: tuple[Spot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


class Curves(NamedTuple):
    """One metric of many runs over their epochs; a line's name is the run's number."""

    chart: Chart
    ranks: tuple[float, ...]


class Column(NamedTuple):
    """One value per run; the value of a metric may be None."""

    name: str
    values: Sequence[Any]
    metric: Metric | None = None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def value_text(value: Any) -> str:
    """Return a value as a config writes it."""
    if isinstance(value, str):
        return value
    if _is_number(value):
        return text.number(value, 4)
    return json.dumps(value, ensure_ascii=False).replace('"', "")


def parallel(columns: Sequence[Column], runs: Sequence[int], ranks: Sequence[float]) -> Parallel:
    """Lay out runs over columns, with good results at the top."""
    across = np.linspace(LEFT, RIGHT, len(columns))
    scales = [
        _scale(c, TOP, BOTTOM)
        if c.metric and not c.metric.larger_is_better
        else _scale(c, BOTTOM, TOP)
        for c in columns
    ]
    heights = np.array([s.places for s in scales])  # (columns, runs)
    lost = np.isnan(heights)
    heights[lost] = BOTTOM + BELOW
    axes = [
        Coordinate(column.name, round(x, 1), scale.ticks, bool(lost[i].any()))
        for i, (column, scale, x) in enumerate(zip(columns, scales, across.tolist(), strict=True))
    ]
    threads = [
        Thread(run, _smooth(across, heights[:, i]), ranks[i], bool(lost[:, i].any()))
        for i, run in enumerate(runs)
    ]
    return Parallel(tuple(axes), tuple(sorted(threads, key=lambda thread: thread.rank)))


def short(key: str) -> str:
    """Return the end of a key: `learning_rate`, `model.2`."""
    parts = key.split(".")
    return ".".join(parts[-2 if parts[-1].isdigit() else -1 :])


def _scale(column: Column, start: float, end: float) -> Scale:
    """Lay out values from `start` to `end`: numbers to scale, logarithmic if they span decades.

    A loss far above the median has no place: one diverging run would flatten all others.
    """
    values = column.values
    if not all(_is_number(value) or (column.metric and value is None) for value in values):
        return _named(values, start, end)
    numbers = np.array([math.nan if value is None else value for value in values], float)
    finite = np.isfinite(numbers)
    if column.metric and finite.any():
        finite[finite] = numbers[finite] <= MOST_TIMES * abs(np.median(numbers[finite]))
    distinct = np.unique(numbers[finite])
    if not distinct.size:
        return Scale((), np.full(len(values), math.nan))
    low, high = float(distinct[0]), float(distinct[-1])
    percent = column.metric is not None and column.metric.percent
    log = charts.spans_decades(distinct) and not percent
    if low == high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    axis = Axis(low, high, start, end, log=log)
    ticks = axis.round_values()
    if distinct.size <= len(ticks) or len(ticks) < 2:  # few values: label each
        ticks = distinct.tolist()
    places = np.full(len(values), math.nan)
    places[finite] = axis.place(numbers[finite])
    digits = 0 if all(abs(100 * t - round(100 * t)) < 1e-9 for t in ticks) else 1
    write = partial(text.percent, digits=digits) if percent else text.number
    return Scale(axis.ticks(ticks, write), places)


def _named(values: Sequence[Any], start: float, end: float) -> Scale:
    """Give each distinct value a place: words first, then numbers by size."""
    distinct = {value_text(value): value for value in values}
    names = sorted(distinct, key=lambda name: _order(distinct[name]))
    spread = np.linspace(start, end, len(names)) if len(names) > 1 else [(start + end) / 2]
    at = {name: float(place) for name, place in zip(names, spread, strict=True)}
    ticks = tuple(
        Tick(round(at[name], 1), name if len(name) < 20 else f"{name[:18]}…")
        for name in names[:MOST_NAMED]
    )
    return Scale(ticks, np.array([at[value_text(value)] for value in values]))


def _order(value: Any) -> tuple[bool, float]:
    return (True, value) if _is_number(value) else (False, 0.0)


def _smooth(x: Floats, y: Floats) -> str:
    """Return a path through points (k,) that crosses every axis at a right angle."""
    parts = [f"M{x[0]:.1f} {y[0]:.1f}"]
    for i in range(1, len(x)):
        middle = (x[i - 1] + x[i]) / 2
        parts.append(f"C{middle:.1f} {y[i - 1]:.1f} {middle:.1f} {y[i]:.1f} {x[i]:.1f} {y[i]:.1f}")
    return " ".join(parts)


def plot(value: Column, result: Column, runs: Sequence[int], ranks: Sequence[float]) -> Plot:
    """Lay out a result over a value; runs whose result has no place are left out."""
    across = _scale(value, charts.LEFT + MARGIN, charts.RIGHT - MARGIN)
    up = _scale(result, charts.BOTTOM - MARGIN, charts.TOP + MARGIN)
    spots = [
        Spot(run, round(float(x), 1), round(float(y), 1), rank)
        for run, x, y, rank in zip(runs, across.places, up.places, ranks, strict=True)
        if np.isfinite(x + y)
    ]
    return Plot(
        value.name, result.name, tuple(sorted(spots, key=lambda s: s.rank)), across.ticks, up.ticks
    )


def curves(
    histories: Sequence[tuple[Sequence[int], Floats]],
    runs: Sequence[int],
    ranks: Sequence[float],
    percent: bool,
) -> Curves | None:
    """Draw the epochs and values of many runs in their order; None where no value is finite."""
    last = max((max(epochs, default=0) for epochs, _ in histories), default=0)
    epochs, rows = np.arange(1.0, last + 1), np.full((len(histories), last), math.nan)
    for row, (own, values) in zip(rows, histories, strict=True):
        row[np.array(own, int) - 1] = values
    finite = rows[np.isfinite(rows)]
    if not percent and finite.size:
        rows[rows > MOST_TIMES * np.median(finite)] = math.nan
    lines = [(str(run), row) for run, row in zip(runs, rows, strict=True)]
    chart = charts.line_chart(epochs, lines, percent=percent)
    return None if chart is None else Curves(chart, tuple(ranks))
