"""Rounds of timings, their ratios, and the cores they had: what the step benchmarks share."""

import os
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any

Timer = Callable[[], float]
"""Takes some steps, and returns seconds a step."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def interleave(timers: dict[str, Timer], rounds: int) -> dict[str, list[float]]:
    """Time every variant once a round, in random order."""
    shuffle = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name in shuffle.sample(list(timers), len(timers)):
            seconds[name].append(timers[name]())
    return seconds


def ratio(seconds: dict[str, list[float]], other: str, ours: str) -> dict[str, Any]:
    """Return median and quartiles of the rounds' ratios of times, `other` over `ours`."""
    each = [a / b for a, b in zip(seconds[other], seconds[ours], strict=True)]
    low, middle, high = statistics.quantiles(each, n=4)
    return {"other": other, "ours": ours, "median": middle, "quartiles": [low, high]}


def show_ratios(rows: Sequence[dict[str, Any]], width: int, digits: int) -> None:
    """Print each ratio with its quartiles and, where there is one, its bar."""
    for row in rows:
        low, high = row["quartiles"]
        bar = f"   bar {row['bar']}: {'met' if row['met'] else 'NOT MET'}" if "bar" in row else ""
        name, median = f"{row['other']} / {row['ours']}", row["median"]
        print(f"  {name:{width}}{median:7.{digits}f}  [{low:.{digits}f}, {high:.{digits}f}]{bar}")
