"""The geometry of a sweep's figures: parallel coordinates, a result over a value, many curves.

As in `charts.py`, the template draws, and this file says where. A run's colour is its `rank`: from
1, the best, to 0, the worst; the style sheet makes a colour of it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from . import charts, words
from .charts import Axis, Chart, Floats, Tick

WIDTH, HEIGHT = 1020.0, 372.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 960.0, 62.0, 330.0
BELOW = 26.0
"""How far below its axis a result stands that has no place on it."""
MARGIN = 16.0
"""Within a plot, what its dots keep away from the edges."""
MOST_TIMES = 100.0
"""A loss is drawn up to so many times the median."""
MOST_NAMED = 14
"""Values that are no numbers, which an axis names."""


@dataclass(frozen=True)
class Scale:
    """Where the values of one column stand: `places` (n,), NaN for those without one."""

    ticks: tuple[Tick, ...]
    places: Floats


@dataclass(frozen=True)
class Coordinate:
    """One vertical axis of the parallel coordinates."""

    name: str
    x: float
    ticks: tuple[Tick, ...]
    lost: bool  # whether some runs have no place there


@dataclass(frozen=True)
class Thread:
    """One run's line through all axes."""

    run: int
    path: str
    rank: float
    lost: bool  # without a place on some axis


@dataclass(frozen=True)
class Parallel:
    """Parallel coordinates; threads are drawn from the worst to the best."""

    axes: tuple[Coordinate, ...]
    threads: tuple[Thread, ...]


@dataclass(frozen=True)
class Spot:
    """One run in a plot of a result over a value."""

    run: int
    x: float
    y: float
    rank: float


@dataclass(frozen=True)
class Plot:
    """A result over the values of one key."""

    key: str
    result: str
    spots: tuple[Spot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Curves:
    """One metric of many runs over their epochs; a line's name is the run's number."""

    chart: Chart
    ranks: tuple[float, ...]


@dataclass(frozen=True)
class Column:
    """A value of each run; as a result, it may be missing, and is good if small or if large."""

    name: str
    values: Sequence[Any]
    result: Literal["", "small", "large"] = ""

    @property
    def percent(self) -> bool:
        """Whether it is a part of one."""
        return self.result == "large"


def is_number(value: Any) -> bool:
    """Whether a value has a place on a scale."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def text(value: Any) -> str:
    """Return a value as a config writes it."""
    if isinstance(value, str):
        return value
    if is_number(value):
        return words.number(value, 4)
    return json.dumps(value, ensure_ascii=False).replace('"', "")


def parallel(columns: Sequence[Column], runs: Sequence[int], ranks: Sequence[float]) -> Parallel:
    """Lay runs out over columns; good results are up."""
    across = np.linspace(LEFT, RIGHT, len(columns))
    scales = [
        _scale(c, *((TOP, BOTTOM) if c.result == "small" else (BOTTOM, TOP))) for c in columns
    ]
    heights = np.array([s.places for s in scales])  # (columns, runs)
    lost = np.isnan(heights)
    heights[lost] = BOTTOM + BELOW
    axes = []
    for column, scale, x, gone in zip(columns, scales, across.tolist(), lost, strict=True):
        axes.append(Coordinate(column.name, round(x, 1), scale.ticks, bool(gone.any())))
    threads = [
        Thread(run, _smooth(across, heights[:, i]), ranks[i], bool(lost[:, i].any()))
        for i, run in enumerate(runs)
    ]
    return Parallel(tuple(axes), tuple(sorted(threads, key=lambda thread: thread.rank)))


def short(key: str) -> str:
    """Return the end of a key by which a reader knows it: `learning_rate`, `model.2`."""
    parts = key.split(".")
    return ".".join(parts[-2 if parts[-1].isdigit() else -1 :])


def _scale(column: Column, start: float, end: float) -> Scale:
    """Lay values out from `start` to `end`: numbers to scale, by decades where they span some.

    A loss of many times the median has no place: a run on its way to infinity is not worth the
    height of all others.
    """
    values = column.values
    if not all(is_number(value) or (column.result and value is None) for value in values):
        return _named(values, start, end)
    numbers = np.array([math.nan if value is None else value for value in values], float)
    finite = np.isfinite(numbers)
    if column.result and finite.any():
        finite[finite] = numbers[finite] <= MOST_TIMES * abs(np.median(numbers[finite]))
    known = np.unique(numbers[finite])
    if not known.size:
        return Scale((), np.full(len(values), math.nan))
    low, high = float(known[0]), float(known[-1])
    log = charts.spans_decades(known) and not column.percent
    if low == high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    axis = Axis(low, high, start, end, log=log)
    ticks = charts.log_ticks(low, high) if log else charts.linear_ticks(low, high)
    if known.size <= len(ticks) or len(ticks) < 2:  # few, each of which was chosen
        ticks = known.tolist()
    places = np.full(len(values), math.nan)
    places[finite] = axis.place(numbers[finite])
    whole = 0 if all(abs(100 * t - round(100 * t)) < 1e-9 for t in ticks) else 1
    labels = [words.percent(t, whole) if column.percent else words.number(t) for t in ticks]
    at = axis.place(np.array(ticks)).round(1).tolist()
    return Scale(tuple(map(Tick, at, labels)), places)


def _named(values: Sequence[Any], start: float, end: float) -> Scale:
    """Give each value a place: numbers by their size, after the others."""
    kinds = sorted({text(v): v for v in values}.items(), key=lambda pair: _order(pair[1]))
    spread = np.linspace(start, end, len(kinds)) if len(kinds) > 1 else [(start + end) / 2]
    at = {name: float(place) for (name, _), place in zip(kinds, spread, strict=True)}
    short = {name: name if len(name) < 20 else f"{name[:18]}…" for name in at}
    ticks = [Tick(round(at[name], 1), short[name]) for name in list(at)[:MOST_NAMED]]
    return Scale(tuple(ticks), np.array([at[text(value)] for value in values]))


def _order(value: Any) -> tuple[bool, float]:
    return (True, value) if is_number(value) else (False, 0.0)


def _smooth(x: Floats, y: Floats) -> str:
    """Return a path through points (k,) that crosses every axis at a right angle."""
    parts = [f"M{x[0]:.1f} {y[0]:.1f}"]
    for i in range(1, len(x)):
        middle = (x[i - 1] + x[i]) / 2
        parts.append(f"C{middle:.1f} {y[i - 1]:.1f} {middle:.1f} {y[i]:.1f} {x[i]:.1f} {y[i]:.1f}")
    return " ".join(parts)


def plot(value: Column, result: Column, runs: Sequence[int], ranks: Sequence[float]) -> Plot:
    """Lay a result out over a value; runs whose result has no place are left out."""
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
    """Draw one metric of many runs, each its epochs and values, in the order given.

    None where no value is finite.
    """
    last = max((max(epochs, default=0) for epochs, _ in histories), default=0)
    epochs, rows = np.arange(1.0, last + 1), np.full((len(histories), last), math.nan)
    for row, (own, values) in zip(rows, histories, strict=True):
        row[np.array(own, int) - 1] = values
    known = rows[np.isfinite(rows)]
    if not known.size:
        return None
    if not percent:
        rows[rows > MOST_TIMES * np.median(known)] = math.nan
    lines = [(str(run), row) for run, row in zip(runs, rows, strict=True)]
    chart = _accuracies(epochs, lines) if percent else charts.loss_chart(epochs, lines)
    return None if chart is None else Curves(chart, tuple(ranks))


def _accuracies(epochs: Floats, lines: Sequence[tuple[str, Floats]]) -> Chart:
    everything = np.concatenate([values for _, values in lines])
    known = everything[np.isfinite(everything)]
    low, high = charts._padded(float(known.min()), float(known.max()), 0.05, 0.02)
    x, y = charts._epoch_axis(epochs), Axis(max(low, -0.02), high, charts.BOTTOM, charts.TOP)
    ticks = [t for t in charts.linear_ticks(y.low, y.high) if t <= 1 + 1e-9]
    digits = 0 if len(ticks) < 2 or ticks[1] - ticks[0] > 0.0099 else 1
    return Chart(
        lines=tuple(charts._line(name, x, y, epochs, v, percent=True) for name, v in lines),
        x_ticks=charts._epoch_ticks(x),
        y_ticks=charts._ticks(y, ticks, [words.percent(t, digits) for t in ticks]),
        log=False,
    )
