"""The verb that tries many values: sweep."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import FnnError
from ..metrics import METRICS
from .command import START, AsJson, ConfigFile, app, ask_for_devices
from .show import print_json, print_table

BEST = 10
"""The number of runs that the terminal lists; the report lists all."""


@app.command(
    epilog="Example: fnn sweep configs/digits_mlp.yaml optimizer.sgd.learning_rate=1e-3,1e-2,1e-1 "
    "seed=0..7"
)
def sweep(
    config: ConfigFile,
    words: Annotated[
        list[str],
        typer.Argument(
            help="Values to try: seed=0..7, optimizer.sgd.learning_rate=1e-3,1e-2 or "
            "1e-4..1e-1:log:8. A key with one value is a change to all runs.",
            metavar="KEY=VALUES...",
        ),
    ],
    random: Annotated[
        int,
        typer.Option(
            help="Draw N random points; a range such as 1e-4..1e-1:log is allowed.", min=0
        ),
    ] = 0,
    optuna: Annotated[int, typer.Option(help="Let optuna choose N points.", min=0)] = 0,
    by: Annotated[
        str, typer.Option(help=f"The metric that ranks the runs: {', '.join(METRICS)}.")
    ] = "test_loss",
    runs: Annotated[Path, typer.Option(help="The folder for run folders.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Train an experiment with many values, in as few programs as possible.

    Numbers, such as a learning rate or the seed, are arguments of one compiled program; other
    values need a program each. Each run has its folder, and the sweep has one report.
    """
    ask_for_devices(os.cpu_count() or 1)
    from ..runs import folder
    from ..sweep import Ready, plan_sweep

    ready = Ready(plan_sweep(config, words, random, optuna, by))
    go_on(ready, folder.create(runs, f"{ready.config.name}-sweep"), as_json)


def go_on(ready: Any, where: Path, as_json: bool) -> None:
    """Train the runs that the folder lacks, write the reports, and print the results."""
    from ..progress import progress
    from ..report import write_report, write_sweep_report
    from ..sweep import sweep as train

    with progress() as display:
        summary = train(ready, where, display, START)
    best = summary["best"]
    if best:
        write_report(where / best["folder"])
    report = write_sweep_report(where)
    seconds = time.perf_counter() - START
    if as_json:
        print_json({"run": str(where), **summary, "seconds": seconds})
    else:
        _show(ready, where, summary)
        print(f"{seconds:.1f} s in all\nreport: {report}")
    if summary["runs"] and summary["diverged"] == summary["runs"]:
        raise FnnError(f"all {summary['runs']} runs diverged; try smaller learning rates")
    if summary["status"] == "interrupted":
        print(f"continue with: fnn resume {where}", file=sys.stderr)
        sys.exit(128 + summary["signal"])


def _show(ready: Any, where: Path, summary: dict[str, Any]) -> None:
    """Print the best runs and a line about all of them."""
    from ..config.section import quote
    from ..sweep import read_results

    plan = ready.plan
    results = sorted(read_results(where), key=plan.score)
    print_table(
        f"{summary['name']}: {summary['runs']} runs in {summary['programs']} programs, "
        f"{summary['diverged']} diverged; best by {plan.by}",
        ("run", *(axis.key for axis in ready.axes), *METRICS),
        [
            (
                f"{row['run']:03}",
                *map(quote, row["values"].values()),
                *("–" if row[name] is None else f"{row[name]:.4g}" for name in METRICS),
            )
            for row in results[:BEST]
        ],
    )


def resume_sweep(where: Path, overrides: Sequence[str], as_json: bool) -> None:
    """Continue a sweep that was stopped, without changes."""
    ask_for_devices(os.cpu_count() or 1)
    from ..sweep import Ready, read_plan

    if overrides:
        raise FnnError(
            f"{where} is a sweep, which continues without changes; leave out "
            f"{' '.join(overrides)}, or start another sweep"
        )
    go_on(Ready(read_plan(where)), where, as_json)
