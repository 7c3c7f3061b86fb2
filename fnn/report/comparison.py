"""The hand-written gradient against automatic differentiation: differences, time and memory."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .. import text
from .run import Comparison, Difference, Sides

_MOST_PARAMETERS = 40
_TIMING_NOISE = 0.03  # the uncertainty of a ratio of two timings
_MEMORY_NOISE = 0.005  # the compiler's figure is exact; two decimals show this much
_ROUNDINGS = 1000  # sums over a batch and a few layers reach this; more is a fault


class Bar(NamedTuple):
    """One parameter's largest relative difference, on a log scale of 0 to 100."""

    path: str
    shape: str
    value: str
    length: float


class Agreement(NamedTuple):
    """The two gradients side by side, the parameter with the largest difference first."""

    bars: tuple[Bar, ...]
    left_out: int
    rounding_at: float  # where one rounding of the parameters' dtype lies, 0 to 100
    ends: tuple[str, str]
    largest: str
    sentence: str
    sound: bool  # whether rounding explains the largest difference


class Price(NamedTuple):
    """One cost of a training step under both rules."""

    value: str  # autodiff over manual
    sentence: str
    better: bool


def agreement(comparison: Comparison, dtype: str) -> Agreement | None:
    """Lay out the differences for parameters of a floating dtype; None where there are none."""
    rows = sorted(comparison.parameters, key=_size, reverse=True)
    if not rows:
        return None
    rounding = float(np.finfo(dtype).eps)
    sizes = [rounding, *(size for size in map(_size, rows) if 0 < size < math.inf)]
    low, high = math.floor(math.log10(min(sizes))) - 1, math.ceil(math.log10(max(sizes))) + 1

    def length(size: float) -> float:
        if not 0 < size < math.inf:
            return 0.0 if size == 0 else 100.0
        return round(100 * (math.log10(size) - low) / (high - low), 2)

    largest = _size(rows[0])
    sound = largest <= _ROUNDINGS * rounding
    return Agreement(
        bars=tuple(
            Bar(r.path, text.shape(r.shape, " × "), _exactly(_size(r)), length(_size(r)))
            for r in rows[:_MOST_PARAMETERS]
        ),
        left_out=len(rows[_MOST_PARAMETERS:]),
        rounding_at=length(rounding),
        ends=(text.scientific(10.0**low), text.scientific(10.0**high)),
        largest=_exactly(largest),
        sentence=_agreement_sentence(largest, rounding, dtype, sound),
        sound=sound,
    )


def _size(row: Difference) -> float:
    """Return the difference, infinite where it is unknown, which sorts it as the worst."""
    value = row.max_relative_difference
    return abs(value) if value is not None and math.isfinite(value) else math.inf


def _exactly(size: float) -> str:
    if size == 0:
        return "0"
    return text.scientific(size) if math.isfinite(size) else "not known"


def _agreement_sentence(largest: float, rounding: float, dtype: str, sound: bool) -> str:
    if largest == 0:
        return "The two gradients are equal bit for bit."
    if not math.isfinite(largest):
        return "At least one difference is not known, so the two gradients cannot be called equal."
    times = f"{text.number(largest / rounding, 2)} times"
    roundings = f"{times} one {dtype} rounding ({text.scientific(rounding)})"
    if sound:
        return f"The two gradients are equal to rounding: the largest difference is {roundings}."
    return (
        f"The two gradients differ by {roundings}, more than rounding explains: "
        "run fnn verify to find the rule that is wrong."
    )


def step_time(comparison: Comparison) -> Price | None:
    """Compare the time of a training step; None where it was not measured."""
    ratio, sides = comparison.step_time_ratio, comparison.step_time_us
    return _price(ratio, sides, "time", _TIMING_NOISE, _microseconds)


def temporary_memory(comparison: Comparison) -> Price | None:
    """Compare the compiled step's temporary memory; None where it is not known."""
    ratio, sides = comparison.temp_ratio, comparison.temp_bytes
    return _price(ratio, sides, "temporary memory", _MEMORY_NOISE, text.size)


def _price(
    ratio: float | None,
    sides: Sides | None,
    cost: str,
    noise: float,
    write: Callable[[float], str],
) -> Price | None:
    if ratio is None or not math.isfinite(ratio) or ratio <= 0:
        return None
    share = text.percent(1 - 1 / ratio if ratio > 1 else 1 / ratio - 1, 0)
    if abs(ratio - 1) <= noise:
        sentence = f"A training step takes the same {cost} either way"
    elif ratio > 1:
        sentence = f"The hand-written rules need {share} less {cost} per training step"
    else:
        sentence = (
            "Here automatic differentiation does better: "
            f"the hand-written rules need {share} more {cost} per training step"
        )
    if sides and text.finite(sides.manual) and text.finite(sides.autodiff):
        sentence += f" ({write(sides.manual)} by hand, {write(sides.autodiff)} by autodiff)"
    return Price(f"{ratio:.2f}×", sentence + ".", better=ratio > 1 + noise)


def _microseconds(us: float) -> str:
    return text.short_duration(us / 1e6)
