"""A sweep's folder as one page: the best run, parallel coordinates, learning curves of all.

As on a run's page, a missing or damaged file leaves its part empty.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from .. import text
from ..errors import FnnError
from ..metrics import METRICS
from . import sections, sweep_charts
from .page import write_page, yaml_tokens
from .run import Epoch, Record, RunFolder, Scores, metric_text, read_epochs, read_run
from .sections import Fact, present
from .sweep_charts import Column

MOST_CURVES, MOST_THREADS, MOST_ROWS, MOST_PLOTS = 128, 1024, 256, 6
"""The best runs on the page, by figure, and the keys that have a plot, at most."""


class Result(Scores):
    """One line of results.jsonl: a run, its values, and how it ended."""

    run: int
    folder: str = ""
    values: Mapping[str, Any] = Field(default_factory=dict)
    status: str | None = None
    epochs: int | None = None


class Summary(Record):
    """summary.json of a sweep."""

    programs: int | None = None
    by: str = "test_loss"


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep's folder in memory; results are from the best to the worst."""

    folder: RunFolder  # the shared config, the environment, how it ended
    summary: Summary
    results: tuple[Result, ...]
    epochs: Mapping[int, tuple[Epoch, ...]]  # by run

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that have several values."""
        return tuple(self.results[0].values)

    @property
    def finite(self) -> int:
        """How many runs have a finite result."""
        return sum(math.isfinite(score(result, self.summary.by)) for result in self.results)

    @property
    def ranks(self) -> list[float]:
        """For each result, from 1, the best, to 0, the worst that is finite."""
        last = max(1, self.finite - 1)
        return [round(max(0.0, 1 - i / last), 3) for i in range(len(self.results))]


def score(result: Result, by: str) -> float:
    """Return a number that is smaller for a better run, and infinite without a finite result."""
    if by not in METRICS or result.status == "diverged":
        return math.inf
    return METRICS[by].cost(result.scores[by])


def read_sweep(folder: Path) -> Sweep:
    """Read the folder of a sweep, whole or cut short.

    Raises FnnError where it holds no results.
    """
    try:
        lines = (folder / "results.jsonl").read_bytes().splitlines()
        results = [Result.model_validate_json(line) for line in lines]
    except (OSError, ValueError) as error:
        raise FnnError(f"{folder}: results.jsonl cannot be read: {error}") from error
    if not results:
        raise FnnError(f"{folder}: the sweep has no result yet; fnn resume {folder} continues")
    summary = Summary()
    if (file := folder / "summary.json").is_file():
        summary = Summary.model_validate_json(file.read_bytes())
    results.sort(key=lambda result: score(result, summary.by))
    epochs = {result.run: _epochs(folder / result.folder) for result in results}
    return Sweep(read_run(folder), summary, tuple(results), epochs)


def _epochs(run: Path) -> tuple[Epoch, ...]:
    try:
        return read_epochs(run / "metrics.jsonl")
    except (OSError, ValueError):
        return ()


def write_sweep_report(folder: Path) -> Path:
    """Write FOLDER/report.html, one page that needs no other file, and return its path.

    Raises FnnError where the folder holds no results, or cannot be written in.
    """
    return write_page(folder / "report.html", "sweep.html.jinja", page_content(read_sweep(folder)))


def page_content(sweep: Sweep) -> dict[str, object]:
    """Return the content of a sweep's template."""
    by, best = sweep.summary.by, sweep.results[0] if sweep.finite else None
    return {
        "sweep": sweep,
        "run": sweep.folder,
        "status": sweep.folder.summary.status or "unfinished",
        "best": best,
        "measure": METRICS[by].label if by in METRICS else by,
        "headline": metric_text(by, best.scores[by]) if best else text.MISSING,
        "facts": _facts(sweep),
        "coordinates": _coordinates(sweep),
        "plots": _plots(sweep),
        "curves": {m.label: _curves(sweep, m.name) for m in METRICS.values() if m.measure},
        "rows": sweep.results[:MOST_ROWS],
        "config": list(yaml_tokens(sweep.folder.config)),
        "environment": sections.environment(sweep.folder),
        "sweep_charts": sweep_charts,
    }


def _facts(sweep: Sweep) -> tuple[Fact, ...]:
    programs, seconds = sweep.summary.programs, sweep.folder.summary.seconds
    runs, lost = len(sweep.results), len(sweep.results) - sweep.finite
    best = sweep.results[0]
    return present(
        *(
            Fact(metric.label.capitalize(), metric_text(name, best.scores[name]), "of this run")
            for name, metric in METRICS.items()
            if name != sweep.summary.by
        ),
        Fact(
            "Runs", text.count(runs), f"in {text.plural(programs, 'program')}" if programs else ""
        ),
        Fact("Diverged", text.count(lost), "left as they were" if lost else ""),
        Fact(
            "Time",
            text.duration(seconds),
            f"{text.duration(seconds / runs)} per run" if text.finite(seconds) else "",
        ),
        Fact("Device", str(sweep.folder.environment.get("device", text.MISSING))),
    )


def _coordinates(sweep: Sweep) -> sweep_charts.Parallel:
    results = sweep.results[:MOST_THREADS]
    columns = [Column(key, [r.values.get(key) for r in results]) for key in sweep.keys]
    columns += [_column(results, name) for name in METRICS]
    return sweep_charts.parallel(columns, [r.run for r in results], sweep.ranks)


def _column(results: Sequence[Result], name: str) -> Column:
    metric = METRICS[name]
    return Column(metric.label, [result.scores[name] for result in results], metric)


def _plots(sweep: Sweep) -> list[sweep_charts.Plot]:
    """Return one plot per key, of the metric that ranks the runs; a single key has two plots."""
    by, runs = sweep.summary.by, [r.run for r in sweep.results]
    other = "test_loss" if by == "test_accuracy" else "test_accuracy"
    pairs = [(key, by) for key in sweep.keys[:MOST_PLOTS]]
    if len(pairs) == 1:
        pairs.append((sweep.keys[0], other))
    return [
        sweep_charts.plot(
            Column(key, [r.values.get(key) for r in sweep.results]),
            _column(sweep.results, name),
            runs,
            sweep.ranks,
        )
        for key, name in pairs
    ]


def _curves(sweep: Sweep, name: str) -> sweep_charts.Curves | None:
    """Return a metric's curves, the worst first, so that the best lies on top."""
    runs = [result.run for result in sweep.results[:MOST_CURVES]][::-1]
    ranks = sweep.ranks[:MOST_CURVES][::-1]
    histories = [
        (
            [epoch.epoch for epoch in sweep.epochs[run]],
            np.array([epoch.scores[name] for epoch in sweep.epochs[run]], float),
        )
        for run in runs
    ]
    return sweep_charts.curves(histories, runs, ranks, METRICS[name].percent)
