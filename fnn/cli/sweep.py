"""The verb that tries many values: sweep."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .command import START, AsJson, ConfigFile, app
from .show import print_json, print_table


@app.command(
    epilog="Example: fnn sweep configs/digits_mlp.yaml optimizer.sgd.learning_rate=1e-3,1e-2,1e-1 "
    "seed=0..7"
)
def sweep(
    config: ConfigFile,
    words: Annotated[
        list[str],
        typer.Argument(
            help="Axes: seed=0..7, optimizer.sgd.learning_rate=1e-3,1e-2 or =1e-4..1e-1:log:8; "
            "a key with one value is an override.",
            metavar="KEY=VALUES...",
        ),
    ],
    random: Annotated[
        int, typer.Option(help="Draw N points, within ranges such as 1e-4..1e-1:log.", min=1)
    ] = 0,
    optuna: Annotated[int, typer.Option(help="Ask optuna for N points.", min=1)] = 0,
    by: Annotated[
        str, typer.Option(help="Best by test_loss, test_accuracy or train_loss.")
    ] = "test_loss",
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Train an experiment with many values, in as few programs as there can be.

    Values that are numbers (a learning rate, the seed) are arguments of one compiled program;
    others make programs of their own. Each run has its folder, and all have one report.
    """
    _ask_for_devices()
    from ..progress import progress
    from ..report.sweep import write_sweep_report
    from ..train import folder
    from ..train.sweep import Ready, plan_sweep
    from ..train.sweep import sweep as train

    ready = Ready(plan_sweep(config, words, random, optuna, by))
    where = folder.create(runs, f"{ready.config.name}-sweep")
    with progress() as shown:
        summary = train(ready, where, shown, START)
