"""What every study does: run the arms of a claim over seeds, judge the numbers, write it down.

A study is one short file: a claim, the arms that test it (a config and what each arm changes in
it), and a verdict computed from the numbers. It leaves in its folder

    runs/         a run folder of fnn for every arm and seed
    result.json   the claim, the verdict, every number it rests on, the environment
    result.md     the same for a reader          figure.svg, figure.png

The verdict must be able to come out "fails", and is written down whichever way it does.
"""

import json
import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fnn.config import load
from fnn.data import Dataset
from fnn.data.split import split_dataset
from fnn.errors import FnnError
from fnn.runs import folder
from fnn.runs.fit import train
from fnn.runs.prepare import prepare

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe & Ito: told apart by every eye
SHARE = Fraction(4, 5)
"""Part of the seeds in which a claim must hold, pair by pair: four of five."""

Rows = list[dict[str, Any]]
"""What metrics.jsonl says of one run, an object an epoch."""


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a name, and what it changes in the base config."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One inequality of a claim, with the numbers it is read from: an entry a seed and arm."""

    statement: str
    values: dict[str, list[float]]  # the arm that should win, and the one that should lose
    wins: int
    needed: int
    medians: dict[str, float]
    holds: bool


def judge(statement: str, values: dict[str, list[float]], *, larger: bool) -> Part:
    """Judge whether the first arm wins against the second: in the median, and in 4 of 5 pairs.

    `values` has an entry a seed for either arm; the larger wins, or the smaller; a tie does not.
    """
    wins_over = operator.gt if larger else operator.lt
    medians = {name: statistics.median(numbers) for name, numbers in values.items()}
    pairs = list(zip(*values.values(), strict=True))
    wins, needed = sum(wins_over(a, b) for a, b in pairs), ceil(SHARE * len(pairs))
    holds = wins_over(*medians.values()) and wins >= needed
    return Part(statement, values, wins, needed, medians, holds)


def held_out(data: Dataset) -> Dataset:
    """Return the training split alone, a quarter of it in the test split's place."""
    x, y = data.x_train, data.y_train
    return split_dataset(data.name, x, y, data.classes, test_fraction=0.25, seed=1)


def run_arm(
    config: Path,
    arm: Arm,
    seeds: int,
    runs: Path,
    *,
    overrides: Sequence[str] = (),
    data: Callable[[Dataset], Dataset] = lambda data: data,
) -> list[Rows]:
    """Train an arm once a seed, on `data` of the config's dataset; return the rows of each run.

    Raises FnnError for a run that did not go through all its epochs.
    """
    rows = []
    for seed in range(seeds):
        run = prepare(load(config, (*arm.overrides, *overrides, f"seed={seed}", "compare=false")))
        where = folder.create(runs, f"{arm.name}_{seed}")
        summary = train(replace(run, data=data(run.data)), where)
        if summary["status"] != "completed":
            raise FnnError(
                f"{where}: the run ended as {summary['status']}; a study needs every epoch"
            )
        lines = (where / "metrics.jsonl").read_text().splitlines()
        rows.append([json.loads(line) for line in lines])
        print(f"{arm.name}, seed {seed}: accuracy {summary['test_accuracy']:.2%}", flush=True)
    return rows


def column(runs: Sequence[Rows], key: str) -> np.ndarray:
    """Return one number of every epoch of every run, (seeds, epochs)."""
    return np.array([[row[key] for row in rows] for rows in runs])


def draw_curves(axes: Any, curves: dict[str, np.ndarray]) -> None:
    """Draw, for each arm, the median over seeds at every epoch, and the range around it."""
    for colour, (name, values) in zip(COLOURS, curves.items(), strict=False):
        epochs = np.arange(1, values.shape[1] + 1)
        axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
        axes.plot(epochs, np.median(values, 0), color=colour, lw=1.8, label=name)


def draw_pairs(axes: Any, values: dict[str, list[float]]) -> None:
    """Draw each arm's number of each seed, the two of a seed joined, and the medians as bars."""
    seeds = len(next(iter(values.values())))
    aside = 0.08 * (np.arange(seeds) - (seeds - 1) / 2)  # so that equal numbers are all seen
    places = np.arange(len(values))[:, None] + aside  # (arms, seeds)
    axes.plot(places, list(values.values()), color="0.8", lw=1, zorder=1)
    for i, (colour, numbers) in enumerate(zip(COLOURS, values.values(), strict=False)):
        axes.scatter(places[i], numbers, s=24, color=colour, zorder=2)
        axes.hlines(statistics.median(numbers), i - 0.25, i + 0.25, color=colour, lw=2)
    axes.set_xticks(range(len(values)), values)
    axes.set_xlim(-0.5, len(values) - 0.5)


def verdict(parts: Sequence[Part]) -> str:
    """Return `holds` if every part of the claim does, else `fails`."""
    return "holds" if all(part.holds for part in parts) else "fails"


def write(
    out: Path, claim: str, arms: Sequence[Arm], parts: Sequence[Part], figure: Figure
) -> None:
    """Write the result and its figure."""
    for name in ("figure.svg", "figure.png"):
        figure.savefig(out / name, dpi=150)
    result = {
        "claim": claim,
        "verdict": verdict(parts),
        "parts": [asdict(part) for part in parts],
        "arms": [asdict(arm) for arm in arms],
        "environment": folder.environment(seed=0),
    }
    folder.write_json(out / "result.json", result)
    folder.write_text(out / "result.md", _as_text(claim, arms, parts))


def _as_text(claim: str, arms: Sequence[Arm], parts: Sequence[Part]) -> str:
    lines = [f"**Claim.** {claim}", "", f"**Verdict: {verdict(parts)}.**", ""]
    for part in parts:
        seeds = len(next(iter(part.values.values())))
        lines.append(
            f"- {part.statement}: {'holds' if part.holds else 'fails'} "
            f"({part.wins} of {seeds} seeds, {part.needed} needed)"
        )
        for name, values in part.values.items():
            each = ", ".join(f"{value:.4g}" for value in values)
            lines.append(f"    - {name}: median {part.medians[name]:.4g} of {each}")
    lines += ["", "![figure](figure.svg)", ""]
    for arm in arms:
        lines += [f"{arm.name}:", "", *(f"    {text}" for text in arm.overrides), ""]
    return "\n".join(lines)
