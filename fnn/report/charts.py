"""The geometry of the page's line charts and scatter plots.

The template draws; this file says where. Colours come from the page's style sheet, so one SVG
reads well on white, on black and on paper, and nothing waits for a plotting library to load.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from . import words

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 480.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 468.0, 14.0, 246.0  # the edges of the plotting area
CLASS_COLOURS = 8  # the style sheet has this many; more classes share them
ALIKE = 4.0  # times one coordinate's span may be the other's, to be drawn to one scale
_DRAWN_POINTS = 400  # a line on a 414-unit wide plot shows no more than this


@dataclass(frozen=True)
class Axis:
    """Data from `low` to `high`, laid from `start` to `end` in SVG units."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, values: Floats) -> Floats:
        """Return where values (n,) lie, (n,)."""
        low, high = self._scaled(np.array([self.low, self.high]))
        fraction = (self._scaled(values) - low) / (high - low)
        return self.start + fraction * (self.end - self.start)

    def _scaled(self, values: Floats) -> Floats:
        return np.log10(values) if self.log else values


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A curve: an SVG path, and the lone points that a path cannot show."""

    name: str
    path: str
    points: tuple[tuple[float, float], ...]
    last: str


@dataclass(frozen=True)
class Mark:
    """A point worth a word."""

    x: float
    y: float
    label: str
    anchor: str  # SVG text-anchor


@dataclass(frozen=True)
class Chart:
    """A line chart over epochs."""

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    log: bool
    mark: Mark | None = None


def nice_step(span: float, most: int) -> float:
    """Return the smallest of 1, 2, 5, 10, … × 10ᵏ that cuts `span` into at most `most` pieces."""
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers within [low, high]."""
    step = nice_step(high - low, most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return decades within [low, high], with 2 and 5 between them where they are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / 6))
    within = math.log10(high / low)
    factors = (1, 2, 5) if within < 2 else (1,)
    ticks = [f * 10.0**k for k in range(first, last + 1, stride) for f in factors]
    return [t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]


def spans_decades(values: Floats) -> bool:
    """Whether finite values (n,) are all positive and cover a factor of ten or more."""
    return bool(values.size and values.min() > 0 and values.max() >= 10 * values.min())


def loss_chart(epochs: Floats, losses: Sequence[tuple[str, Floats]]) -> Chart | None:
    """Draw named losses, each (n,), over epochs (n,); None where no loss is finite."""
    everything = np.concatenate([values for _, values in losses])
    known = everything[np.isfinite(everything)]
    if not known.size:
        return None
    log = spans_decades(known)
    low, high = float(known.min()), float(known.max())
    if log:
        low, high = low * (high / low) ** -0.05, high * (high / low) ** 0.05
        y, ticks = Axis(low, high, BOTTOM, TOP, log=True), log_ticks(low, high)
    else:
        # Ticks closer than 1 % would share their three digits.
        low, high = _padded(low, high, 0.06, 0.05 * max(abs(low), abs(high)) or 1.0)
        y, ticks = Axis(low, high, BOTTOM, TOP), linear_ticks(low, high)
    x = _epoch_axis(epochs)
    return Chart(
        lines=tuple(_line(name, x, y, epochs, values) for name, values in losses),
        x_ticks=_epoch_ticks(x),
        y_ticks=_ticks(y, ticks, [words.number(t) for t in ticks]),
        log=log,
    )


def accuracy_chart(epochs: Floats, accuracy: Floats) -> Chart | None:
    """Draw accuracy (n,) over epochs (n,), its first maximum marked; None where none is finite."""
    known = accuracy[np.isfinite(accuracy)]
    if not known.size:
        return None
    low, high = _padded(float(known.min()), float(known.max()), 0.05, 0.02)
    # Head room for the mark's label; no tick stands above 100 %.
    y = Axis(max(low, -0.02), high + 0.12 * (high - low), BOTTOM, TOP)
    x = _epoch_axis(epochs)
    ticks = [t for t in linear_ticks(y.low, y.high) if t <= 1 + 1e-9]
    digits = 0 if len(ticks) < 2 or ticks[1] - ticks[0] > 0.0099 else 1
    best = int(np.nanargmax(accuracy))
    at = float(x.place(epochs)[best])
    return Chart(
        lines=(_line("test", x, y, epochs, accuracy, percent=True),),
        x_ticks=_epoch_ticks(x),
        y_ticks=_ticks(y, ticks, [words.percent(t, digits) for t in ticks]),
        log=False,
        mark=Mark(
            x=round(at, 1),
            y=round(float(y.place(accuracy)[best]), 1),
            label=f"best {words.percent(accuracy[best])}, epoch {epochs[best]:.0f}",
            anchor="end" if at > 0.7 * RIGHT else "start" if at < 0.3 * RIGHT else "middle",
        ),
    )


def _padded(low: float, high: float, share: float, least: float) -> tuple[float, float]:
    """Widen [low, high] to a span of at least `least`, then by a share of that at each end."""
    span = max(high - low, least)
    half, middle = (0.5 + share) * span, low + 0.5 * (high - low)
    return middle - half, middle + half


def _epoch_axis(epochs: Floats) -> Axis:
    low, high = float(epochs.min()), float(epochs.max())
    return Axis(low, high, LEFT, RIGHT) if high > low else Axis(low - 0.5, low + 0.5, LEFT, RIGHT)


def _epoch_ticks(x: Axis) -> tuple[Tick, ...]:
    step = max(1.0, nice_step(x.high - x.low, 8))
    first, last = math.ceil(x.low / step), math.floor(x.high / step)
    ticks = [k * step for k in range(first, last + 1)]
    return _ticks(x, ticks, [words.count(t) for t in ticks])


def _ticks(axis: Axis, values: Sequence[float], labels: Sequence[str]) -> tuple[Tick, ...]:
    positions = axis.place(np.array(values, dtype=float))
    return tuple(
        Tick(round(float(at), 1), label) for at, label in zip(positions, labels, strict=True)
    )


def _line(
    name: str, x: Axis, y: Axis, epochs: Floats, values: Floats, percent: bool = False
) -> Line:
    """Lay a curve out, broken where a value is not finite."""
    finite = np.isfinite(values)
    last = float(values[finite][-1]) if finite.any() else None
    kept = _thinned(values)
    across, up = x.place(epochs[kept]), y.place(values[kept])
    runs = _runs(np.isfinite(up))
    pairs = [[f"{across[i]:.1f} {up[i]:.1f}" for i in run] for run in runs]
    return Line(
        name=name,
        path=" ".join("M" + " L".join(pair) for pair in pairs if len(pair) > 1),
        points=tuple(
            (round(float(across[run[0]]), 1), round(float(up[run[0]]), 1))
            for run in runs
            if len(run) == 1
        ),
        last=words.percent(last) if percent else words.number(last),
    )


def _runs(present: NDArray[np.bool_]) -> list[range]:
    """Return the stretches of consecutive True in present (n,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(int)))
    return [range(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _thinned(values: Floats) -> NDArray[np.intp]:
    """Return which of values (n,) to draw: the extremes of each stretch, and the ends.

    Peaks and gaps survive, which plain striding would lose.
    """
    n = len(values)
    if n <= _DRAWN_POINTS:
        return np.arange(n)
    kept = {0, n - 1}
    for stretch in np.array_split(np.arange(n), _DRAWN_POINTS // 2):
        part = values[stretch]
        if np.isfinite(part).all():
            kept |= {int(stretch[part.argmin()]), int(stretch[part.argmax()])}
        else:
            kept.add(int(stretch[~np.isfinite(part)][0]))
    return np.array(sorted(kept))


@dataclass(frozen=True)
class Dot:
    """One example of a scatter plot; colours are numbers of classes in the style sheet."""

    x: float
    y: float
    true: int
    predicted: int
    label: str

    @property
    def wrong(self) -> bool:
        """Whether the network took the example for another class."""
        return self.true != self.predicted


@dataclass(frozen=True)
class Scatter:
    """Examples in the plane."""

    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def scatter(
    points: Floats, true: Sequence[int], predicted: Sequence[int], labels: Sequence[str]
) -> Scatter:
    """Lay points (m, 2), m > 0, out by their two coordinates, labelled (m,)."""
    x, y = _same_scale(
        *(
            Axis(*_padded(float(p.min()), float(p.max()), 0.06, 1e-9), start, end)
            for p, start, end in ((points[:, 0], LEFT, RIGHT), (points[:, 1], BOTTOM, TOP))
        )
    )
    across, up = x.place(points[:, 0]).round(1).tolist(), y.place(points[:, 1]).round(1).tolist()
    ticks = [linear_ticks(axis.low, axis.high) for axis in (x, y)]
    return Scatter(
        dots=tuple(map(Dot, across, up, true, predicted, labels)),
        x_ticks=_ticks(x, ticks[0], [words.number(t) for t in ticks[0]]),
        y_ticks=_ticks(y, ticks[1], [words.number(t) for t in ticks[1]]),
    )


def _same_scale(x: Axis, y: Axis) -> tuple[Axis, Axis]:
    """Widen one axis so that a unit is as long across as up, and a circle is round.

    Coordinates whose spans differ by more than ALIKE are not of a kind, and keep their axes.
    """
    spans = x.high - x.low, y.high - y.low
    if max(spans) > ALIKE * min(spans):
        return x, y
    unit = max((a.high - a.low) / abs(a.end - a.start) for a in (x, y))

    def widened(axis: Axis) -> Axis:
        middle, half = (axis.low + axis.high) / 2, unit * abs(axis.end - axis.start) / 2
        return replace(axis, low=middle - half, high=middle + half)

    return widened(x), widened(y)
