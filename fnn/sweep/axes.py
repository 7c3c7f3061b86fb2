"""The axes of a sweep, as on the command line, and the points that they span.

optimizer.sgd.learning_rate=1e-3,1e-2,1e-1     values, each as YAML
seed=0..7                                      integers, both ends included
optimizer.sgd.momentum=0.5..0.9:5              five numbers at equal distances
optimizer.sgd.learning_rate=1e-4..1e-1:log:8   eight numbers at equal ratios
optimizer.sgd.learning_rate=1e-4..1e-1:log     a range, to draw from
"""

import collections
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..config.source import PlainLoader, read_argument, read_yaml
from ..errors import ConfigError, FnnError

MAX_RUNS = 10_000
"""Runs of one sweep, at most; more are a mistake in a range."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(:log)?(?::(\d+))?")
_INTEGER = re.compile(r"[-+]?\d+")
_FORMS = "write values (1e-3,1e-2) or a range (0..7, 0.5..0.9:5, 1e-4..1e-1:log:8)"


class Value(NamedTuple):
    """One value of an axis: its text, and the value that YAML reads."""

    text: str
    value: Any


@dataclass(frozen=True)
class Axis:
    """A key of the config, and its values."""

    key: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Range:
    """A key of the config, and the range of its values."""

    key: str
    low: float
    high: float
    log: bool
    integer: bool

    def value(self, fraction: float) -> Value:
        """Return the number at a fraction (0 to 1) of the way from `low` to `high`."""
        if self.log:
            return self.as_value(self.low * (self.high / self.low) ** fraction)
        return self.as_value(self.low + (self.high - self.low) * fraction)

    def as_value(self, number: float) -> Value:
        """Return a number with at most four digits."""
        text = str(round(number)) if self.integer else f"{number:.4g}"
        return Value(text, read_yaml(text, "")[0])


Axes = Sequence[Axis | Range]
Point = tuple[Value, ...]
"""One value per axis, for one run."""


def split_words(words: Sequence[str]) -> tuple[list[str], list[Axis | Range]]:
    """Split `KEY=VALUES`... into overrides, which have one value, and axes.

    Raises ConfigError for a word that is neither, and for a key with two axes.
    """
    overrides: list[str] = []
    axes: list[Axis | Range] = []
    for word in words:
        axis = parse_axis(word)
        if isinstance(axis, Axis) and len(axis.values) == 1:
            overrides.append(word)
        elif any(axis.key == other.key for other in axes):
            raise ConfigError(f"sweep {word}: {axis.key} has an axis already; write all its values")
        else:
            axes.append(axis)
    if not axes:
        raise ConfigError(f"sweep: expected a key with several values; {_FORMS}")
    return overrides, axes


def parse_axis(word: str) -> Axis | Range:
    """Read `KEY=VALUES`.

    Raises ConfigError for a text that is no axis, and for a value that it has twice.
    """
    key, equals, text = word.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"sweep {word}: expected key=values, e.g. seed=0..7")
    items = _items(word, text)
    if not items:
        raise ConfigError(f"sweep {word}: expected values, got none; {_FORMS}")
    values: list[Value] = []
    for item in items:
        part = _expand(word, key, item)
        if not isinstance(part, Range):
            values += part
        elif len(items) == 1:
            return part
        else:
            text = item.text
            raise ConfigError(f"sweep {word}: {text}: say how many values, e.g. {text}:5")
    counts = collections.Counter(repr(value.value) for value in values)
    if twice := next((value.text for value in values if counts[repr(value.value)] > 1), None):
        raise ConfigError(f"sweep {word}: {twice} stands in it twice; leave one out")
    return Axis(key, tuple(values))


def _items(word: str, text: str) -> list[Value]:
    """Split a text at the commas outside brackets and quotes, as YAML does."""
    listed = f"[{text}]"
    try:
        values = read_argument(listed, f"sweep {word}")
    except ConfigError as error:
        raise ConfigError(f"{error}; {_FORMS}") from None
    loader: Any = PlainLoader(listed)
    nodes = loader.get_single_node().value
    texts = [listed[node.start_mark.index : node.end_mark.index] for node in nodes]
    return [Value(*pair) for pair in zip(texts, values, strict=True)]


def _expand(word: str, key: str, item: Value) -> tuple[Value, ...] | Range:
    """Return an item's values: itself, those of a range with a number of values, or the range."""
    match = _RANGE.fullmatch(item.text)
    if match is None:
        return (item,)
    low, high = float(match[1]), float(match[2])
    log, count = match[3] is not None, match[4]
    integer = all(_INTEGER.fullmatch(end) for end in match.group(1, 2))
    if not low < high or not math.isfinite(high - low):
        raise ConfigError(f"sweep {word}: expected a range from a lower to a higher number")
    if log and low <= 0:
        raise ConfigError(f"sweep {word}: a logarithmic range begins above 0, got {match[1]}")
    whole = Range(key, low, high, log, integer)
    if count is None and (log or not integer):
        return whole
    number = int(high - low + 1 if count is None else count)
    if number < 2:
        raise ConfigError(f"sweep {word}: expected 2 values or more, got {count}")
    if number > MAX_RUNS:
        raise ConfigError(f"sweep {word}: {number} values, more than {MAX_RUNS}")
    if count is None:
        return tuple(whole.as_value(n) for n in range(int(low), int(high) + 1))
    return tuple(dict.fromkeys(whole.value(f) for f in np.linspace(0, 1, number).tolist()))


def grid(axes: Axes) -> list[Point]:
    """Return every combination of values, the last axis changing fastest.

    Raises FnnError if an axis is a range without a number of values.
    """
    values = []
    for axis in axes:
        if isinstance(axis, Range):
            raise FnnError(
                f"sweep {axis.key}: a grid needs to know how many values, e.g. "
                f"{axis.low:g}..{axis.high:g}{':log' if axis.log else ''}:8; "
                "or draw from the range with --random N"
            )
        values.append(axis.values)
    if (count := math.prod(map(len, values))) > MAX_RUNS:
        raise FnnError(f"sweep: {count} runs, more than {MAX_RUNS}; draw some with --random N")
    return list(itertools.product(*values))


def draw(axes: Axes, count: int, seed: int) -> list[Point]:
    """Return `count` different combinations of values, drawn from a seed; fewer if that is all."""
    possible = math.prod(len(axis.values) if isinstance(axis, Axis) else math.inf for axis in axes)
    if possible <= count:
        return grid(axes)
    rng, points = np.random.default_rng(seed), dict[tuple[str, ...], Point]()
    for _ in range(100 * count):  # a range of few integers has fewer
        point = tuple(_draw(axis, float(rng.random())) for axis in axes)
        points[tuple(value.text for value in point)] = point
        if len(points) == count:
            break
    return list(points.values())


def _draw(axis: Axis | Range, fraction: float) -> Value:
    if isinstance(axis, Range):
        return axis.value(fraction)
    return axis.values[int(fraction * len(axis.values))]
