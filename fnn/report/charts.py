"""The geometry of the page's line charts and scatter plots.

The template draws; this file returns positions. Colours come from the page's style sheet, so one
SVG reads well on white, on black and on paper, and no plotting library has to load.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import text

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 480.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 468.0, 14.0, 246.0  # the edges of the plotting area
CLASS_COLOURS = 8  # the style sheet has this many; more classes share them
ALIKE = 4.0  # two coordinates share a scale if one spans at most this times the other
_DRAWN_POINTS = 400  # per line; a plot 414 units wide shows no more


class Tick(NamedTuple):
    """A labelled position on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """Data from `low` to `high`, laid from `start` to `end` in SVG units."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, values: Floats) -> Floats:
        """Return the positions of values (n,), (n,)."""
        low, high = self._scaled(np.array([self.low, self.high]))
        fraction = (self._scaled(values) - low) / (high - low)
        return self.start + fraction * (self.end - self.start)

    def _scaled(self, values: Floats) -> Floats:
        return np.log10(values) if self.log else values

    def round_values(self) -> list[float]:
        """Return round values within the axis."""
        ticks = text.log_ticks if self.log else text.linear_ticks
        return ticks(self.low, self.high)

    def ticks(
        self, values: Sequence[float], write: Callable[[float], str] = text.number
    ) -> tuple[Tick, ...]:
        """Return a tick per value, labelled by `write`."""
        places = self.place(np.array(values, float)).round(1).tolist()
        return tuple(Tick(at, write(value)) for at, value in zip(places, values, strict=True))


class Line(NamedTuple):
    """A curve: an SVG path, and the lone points that a path cannot show."""

    name: str
    path: str
    points: tuple[tuple[float, float], ...]
    last: str


class Mark(NamedTuple):
    """A labelled point."""

    x: float
    y: float
    label: str
    anchor: str  # SVG text-anchor


class Chart(NamedTuple):
    """A line chart over epochs."""

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    log: bool
    mark: Mark | None = None


def spans_decades(values: Floats) -> bool:
    """Return whether finite values (n,) are all positive and cover a factor of ten or more."""
    return bool(values.size and values.min() > 0 and values.max() >= 10 * values.min())


def line_chart(
    epochs: Floats,
    lines: Sequence[tuple[str, Floats]],
    *,
    percent: bool = False,
    mark: bool = False,
) -> Chart | None:
    """Draw named values, each (n,), over epochs (n,); None where no value is finite.

    Fractions are drawn as percentages; with `mark` the first maximum of the first line is marked.
    """
    finite = np.concatenate([values for _, values in lines])
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    x, write = _epoch_axis(epochs), text.number
    if percent:
        low, high = _padded(low, high, 0.05, 0.02)
        # Head room for the mark's label; no tick stands above 100 %.
        y = Axis(max(low, -0.02), high + 0.12 * (high - low) * mark, BOTTOM, TOP)
        ticks = [t for t in y.round_values() if t <= 1 + 1e-9]
        digits = 0 if len(ticks) < 2 or ticks[1] - ticks[0] > 0.0099 else 1
        write = partial(text.percent, digits=digits)
    elif spans_decades(finite):
        y = Axis(low * (high / low) ** -0.05, high * (high / low) ** 0.05, BOTTOM, TOP, log=True)
        ticks = y.round_values()
    else:
        # Ticks closer than 1 % would share their three digits.
        y = Axis(*_padded(low, high, 0.06, 0.05 * max(abs(low), abs(high)) or 1.0), BOTTOM, TOP)
        ticks = y.round_values()
    step = max(1.0, text.nice_step(x.high - x.low, 8))
    x_ticks = [k * step for k in range(math.ceil(x.low / step), math.floor(x.high / step) + 1)]
    return Chart(
        lines=tuple(_line(name, x, y, epochs, values, percent) for name, values in lines),
        x_ticks=x.ticks(x_ticks, text.count),
        y_ticks=y.ticks(ticks, write),
        log=y.log,
        mark=_mark(x, y, epochs, lines[0][1]) if mark else None,
    )


def _mark(x: Axis, y: Axis, epochs: Floats, values: Floats) -> Mark:
    best = int(np.nanargmax(values))
    at = float(x.place(epochs)[best])
    return Mark(
        x=round(at, 1),
        y=round(float(y.place(values)[best]), 1),
        label=f"best {text.percent(values[best])}, epoch {epochs[best]:.0f}",
        anchor="end" if at > 0.7 * RIGHT else "start" if at < 0.3 * RIGHT else "middle",
    )


def _padded(low: float, high: float, share: float, least: float) -> tuple[float, float]:
    """Widen [low, high] to a span of at least `least`, then by a share of that at each end."""
    span = max(high - low, least)
    half, middle = (0.5 + share) * span, low + 0.5 * (high - low)
    return middle - half, middle + half


def _epoch_axis(epochs: Floats) -> Axis:
    low, high = float(epochs.min()), float(epochs.max())
    return Axis(low, high, LEFT, RIGHT) if high > low else Axis(low - 0.5, low + 0.5, LEFT, RIGHT)


def _line(name: str, x: Axis, y: Axis, epochs: Floats, values: Floats, percent: bool) -> Line:
    """Lay out a curve, broken where a value is not finite."""
    finite = np.isfinite(values)
    last = float(values[finite][-1]) if finite.any() else None
    places = _thinned(values)
    across, up = x.place(epochs[places]), y.place(values[places])
    stretches = _stretches(np.isfinite(up))
    pairs = [[f"{across[i]:.1f} {up[i]:.1f}" for i in stretch] for stretch in stretches]
    return Line(
        name=name,
        path=" ".join("M" + " L".join(pair) for pair in pairs if len(pair) > 1),
        points=tuple(
            (round(float(across[i[0]]), 1), round(float(up[i[0]]), 1))
            for i in stretches
            if len(i) == 1
        ),
        last=text.percent(last) if percent else text.number(last),
    )


def _stretches(present: NDArray[np.bool_]) -> list[range]:
    """Return the stretches of consecutive True in present (n,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(int)))
    return [range(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _thinned(values: Floats) -> NDArray[np.intp]:
    """Return the indices of values (n,) to draw: the ends, and the extremes of each stretch.

    Plain striding would lose peaks and gaps.
    """
    n = len(values)
    if n <= _DRAWN_POINTS:
        return np.arange(n)
    places = {0, n - 1}
    for stretch in np.array_split(np.arange(n), _DRAWN_POINTS // 2):
        part = values[stretch]
        if np.isfinite(part).all():
            places |= {int(stretch[part.argmin()]), int(stretch[part.argmax()])}
        else:
            places.add(int(stretch[~np.isfinite(part)][0]))
    return np.array(sorted(places))


class Dot(NamedTuple):
    """One example of a scatter plot; colours are numbers of classes in the style sheet."""

    x: float
    y: float
    true: int
    predicted: int
    label: str

    @property
    def wrong(self) -> bool:
        """Whether the prediction is another class."""
        return self.true != self.predicted


class Scatter(NamedTuple):
    """Examples in the plane."""

    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def scatter(
    points: Floats, true: Sequence[int], predicted: Sequence[int], labels: Sequence[str]
) -> Scatter:
    """Lay out points (m, 2), m > 0, by their two coordinates, labelled (m,)."""
    x, y = _same_scale(
        *(
            Axis(*_padded(float(p.min()), float(p.max()), 0.06, 1e-9), start, end)
            for p, start, end in ((points[:, 0], LEFT, RIGHT), (points[:, 1], BOTTOM, TOP))
        )
    )
    across, up = x.place(points[:, 0]).round(1).tolist(), y.place(points[:, 1]).round(1).tolist()
    return Scatter(
        dots=tuple(map(Dot, across, up, true, predicted, labels)),
        x_ticks=x.ticks(x.round_values()),
        y_ticks=y.ticks(y.round_values()),
    )


def _same_scale(x: Axis, y: Axis) -> tuple[Axis, Axis]:
    """Widen one axis so that a unit has one length on both, and a circle is round.

    Coordinates whose spans differ by a factor above ALIKE keep their axes.
    """
    spans = x.high - x.low, y.high - y.low
    if max(spans) > ALIKE * min(spans):
        return x, y
    unit = max((a.high - a.low) / abs(a.end - a.start) for a in (x, y))

    def widened(axis: Axis) -> Axis:
        middle, half = (axis.low + axis.high) / 2, unit * abs(axis.end - axis.start) / 2
        return replace(axis, low=middle - half, high=middle + half)

    return widened(x), widened(y)
