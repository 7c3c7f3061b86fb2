"""Times that are comparable on a shared machine.

All programs run in one process. Each round times every program once, in a new random order, so that
noise affects all alike. Compared is the ratio of two programs' times in the same round. Its median
over the rounds has an interval; rounds end when it is narrow or the time is up.
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
"""The least seconds of one timing; a shorter call is repeated."""
FEWEST, FEW = 7, 3
"""The least rounds; and the rounds of a hopeless form, whose ratio need not be precise."""
PRECISION = 0.01
"""Rounds end when half of a ratio's interval is at most this part of its median."""
HOPELESS = 2.0
"""A form that takes more than this times the fastest is not timed further."""

Times = dict[str, list[float]]
"""Seconds per call, by program and round."""


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
        """Whether the interval is narrow enough."""
        return self.half_width <= PRECISION * self.median


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Return the ratio of two programs' times in the same rounds.

    A ratio is above or below the true median with equal probability, so the count of those above
    is binomial for any noise. The interval therefore lies between two of the ordered ratios.
    """
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    n = len(ratios)
    outside = max(0, math.floor(n / 2 - 0.98 * math.sqrt(n)))
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(middle, (ratios[outside], ratios[n - 1 - outside]), (low, high))


def trial(program: Callable[..., Any], *inputs: Any) -> float:
    """Warm up a program; return its approximate seconds per call."""
    return min(_seconds(program, inputs, 1) for _ in range(3))


def calls(fastest: float) -> int:
    """Return the calls per timing, from the seconds of the fastest program."""
    return max(1, math.ceil(SAMPLE / fastest))


def hopeful(trials: Mapping[str, float]) -> list[str]:
    """Return the names of the programs that may be the fastest."""
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
    """Time all programs on the same inputs, until `settled(times)` or the time is up."""
    shuffle = random.Random(0)
    times: Times = {name: [] for name in programs}
    end, count = time.perf_counter() + seconds, 0
    while count < fewest or (time.perf_counter() < end and not settled(times)):
        for name in shuffle.sample(list(programs), len(programs)):
            times[name].append(_seconds(programs[name], inputs, repeats))
        count += 1
    return times


def _seconds(program: Callable[..., Any], inputs: Sequence[Any], repeats: int) -> float:
    """Return the seconds per call over some calls, each finished before the next begins."""
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(program(*inputs))
    return (time.perf_counter() - start) / repeats
