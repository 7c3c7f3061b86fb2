"""Times that can be compared on a machine that others use as well.

All programs run in one process, in rounds: in each round every program is timed once, in a new
random order, so that a noisy moment meets them all. What is compared is the ratio of two programs'
times in the same round; its median over the rounds has an interval, and rounds go on until that
interval is narrow or the time is up.
"""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

SAMPLE = 2e-3
"""Seconds that one timing shall last at least; a shorter call is repeated."""
FEWEST, FEW = 7, 3
"""Rounds, however long they take; and of a hopeless form, whose ratio need not be precise."""
PRECISION = 0.01
"""How wide, relative to the median, half of a ratio's interval may be at the end."""
HOPELESS = 2.0
"""A form that takes so many times what the fastest takes is not timed much further."""

Times = dict[str, list[float]]
"""Seconds a call, round by round, of each program by name."""


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' own ratios, its 95 % interval, and the quartiles of the ratios."""

    median: float
    interval: tuple[float, float]
    quartiles: tuple[float, float]

    @property
    def half_width(self) -> float:
        """Half of the interval: the number after ±."""
        return (self.interval[1] - self.interval[0]) / 2

    @property
    def settled(self) -> bool:
        """Whether more rounds would say little more."""
        return self.half_width <= PRECISION * self.median


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Compare two programs' times in the same rounds.

    The interval lies between two of the ordered ratios: each ratio is above the true median or
    below it with the same probability, so the count of those above is binomial, whatever the
    noise is like.
    """
    each = sorted(a / b for a, b in zip(above, below, strict=True))
    n = len(each)
    outside = max(0, math.floor(n / 2 - 0.98 * math.sqrt(n)))
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return Ratio(middle, (each[outside], each[n - 1 - outside]), (low, high))


def trial(program: Callable[..., Any], *inputs: Any) -> float:
    """Warm a program up; return about how many seconds a call takes."""
    return min(_seconds(program, inputs, 1) for _ in range(3))


def calls(fastest: float) -> int:
    """Return how many calls of the fastest program, one after another, make a sample."""
    return max(1, math.ceil(SAMPLE / fastest))


def hopeful(trials: Mapping[str, float]) -> list[str]:
    """Return the names of those programs that may turn out the fastest."""
    limit = HOPELESS * min(trials.values())
    return [name for name, seconds in trials.items() if seconds <= limit]


def rounds(
    programs: Mapping[str, Callable[..., Any]],
    inputs: Sequence[Any],
    repeats: int,
    seconds: float = 0.0,
    settled: Callable[[Times], bool] = lambda times: False,
    fewest: int = FEWEST,
) -> Times:
    """Time all programs on the same inputs, until `settled(times)` or the seconds are over."""
    shuffle = random.Random(0)
    times: Times = {name: [] for name in programs}
    end = time.perf_counter() + seconds
    done = 0
    while done < fewest or (time.perf_counter() < end and not settled(times)):
        for name in shuffle.sample(list(programs), len(programs)):
            times[name].append(_seconds(programs[name], inputs, repeats))
        done += 1
    return times


def _seconds(program: Callable[..., Any], inputs: Sequence[Any], repeats: int) -> float:
    """Time some calls, each finished before the next begins; return seconds a call."""
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(program(*inputs))
    return (time.perf_counter() - start) / repeats
