"""The verbs that take an experiment: run, resume, replay, compare, plan."""

import contextlib
import math
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import FnnError
from ..metrics import METRICS
from ..text import MISSING, shape
from .board import Board, check_tensorboard
from .command import START, AsJson, ConfigFile, Overrides, RunFolder, app
from .show import keep_libraries_off_stdout, print_json, print_table

TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write metrics for TensorBoard (an extra).")
]


@app.command(epilog="Example: fnn run configs/digits_mlp.yaml train.epochs=5 seed=1")
def run(
    file: ConfigFile,
    overrides: Overrides = None,
    runs: Annotated[Path, typer.Option(help="The folder for run folders.")] = Path("runs"),
    tensorboard: TensorBoard = False,
    as_json: AsJson = False,
) -> None:
    """Train an experiment, and write a run folder with a report."""
    from ..config import load
    from ..progress import progress
    from ..runs import folder
    from ..runs.fit import train
    from ..runs.prepare import prepare
    from ..runs.process import keep_compiled
    from ..train import distributed

    if tensorboard:
        check_tensorboard()
    config = load(file, overrides or ())
    keep_compiled(config)
    if config.distributed is not None:
        keep_libraries_off_stdout()
    with distributed.joined(config):
        experiment = prepare(config)
        first = distributed.is_first()
        name = str(folder.create(runs, config.name)) if first else ""
        where = Path(distributed.from_first(name))
        with progress() if first else contextlib.nullcontext() as bar:
            display = Board(bar, where) if tensorboard and first else bar
            summary = train(experiment, where, display, START)
    _finish(where, summary, first, as_json)


@app.command(epilog="Example: fnn resume runs/digits_mlp/20260131-120000 train.epochs=80")
def resume(
    run: RunFolder,
    overrides: Overrides = None,
    tensorboard: TensorBoard = False,
    as_json: AsJson = False,
) -> None:
    """Continue a run that was stopped, from its last checkpoint."""
    from ..config import load
    from ..progress import progress
    from ..report.find import find_run_or_sweep, is_sweep
    from ..runs.checkpoint import latest
    from ..runs.fit import resume as go_on
    from ..runs.prepare import prepare
    from ..runs.process import keep_compiled
    from ..runs.resume import changes
    from ..train import distributed

    run = find_run_or_sweep(run)
    if is_sweep(run):
        from .sweep import resume_sweep

        resume_sweep(run, overrides or (), as_json)
        return
    if is_sweep(whole := run.resolve().parent.parent):
        raise FnnError(
            f"{run} is a run of a sweep, whose checkpoints hold all its runs; continue with fnn "
            f"resume {whole}, or train it by itself: fnn run {run / 'config.yaml'}"
        )
    if tensorboard:
        check_tensorboard()
    config = load(run / "config.yaml", overrides or ())
    keep_compiled(config)
    if config.distributed is not None:
        keep_libraries_off_stdout()
    with distributed.joined(config):
        first, checkpoint = distributed.is_first(), latest(run / "checkpoints")
        if first and not checkpoint:
            print(f"fnn: no checkpoint in {run} yet: from the first step", file=sys.stderr)
        differences = changes(checkpoint, config) if first and checkpoint else ()
        for key, before, after, meaning in differences:
            print(f"fnn: {key}: {before} -> {after}: {meaning}", file=sys.stderr)
        with progress() if first else contextlib.nullcontext() as bar:
            display = Board(bar, run) if tensorboard and first else bar
            summary = go_on(prepare(config), run, display, START)
    _finish(run, summary, first, as_json)


@app.command(epilog="Example: fnn replay runs/digits_mlp/20260131-120000 --step 1234")
def replay(
    run: RunFolder,
    step: Annotated[int, typer.Option(help="The step; the first is 0.", min=0)],
    as_json: AsJson = False,
) -> None:
    """Repeat one step, and show the ranges of each layer's arrays, forward and backward."""
    from ..config import load
    from ..report.find import find_run
    from ..runs.prepare import prepare
    from ..runs.replay import replay as once_more

    run = find_run(run)
    result = once_more(prepare(load(run / "config.yaml")), run, step)
    if as_json:
        print_json(result._asdict() | {"arrays": [a.as_json() for a in result.arrays]})
        return
    print_table(
        f"step {step}, epoch {result.epoch}: loss {result.loss:.6g}",
        ("layer", "", "array", "forward", "∂loss/∂", "after the step"),
        [(a.path, a.layer, a.name, *map(_range, a[3:])) for a in result.arrays],
    )
    print(f"not finite first: {result.first}" if result.first else "everything is finite")


def _range(values: Any) -> str:
    if values is None:
        return ""
    text = f"{values.low:.3g} to {values.high:.3g}" if values.low <= values.high else "none finite"
    return f"{text}, {values.nonfinite} not finite" if values.nonfinite else text


def _finish(where: Path, summary: dict[str, Any], first: bool, as_json: bool) -> None:
    """Print in the first process how training ended; exit with the status for it."""
    if first:
        _print_results(where, summary, as_json)
    if summary["status"] == "diverged":
        nonfinite = summary["first_nonfinite"]
        raise FnnError(
            f"the training loss is no longer finite (epoch {summary['epochs']}); the first that "
            f"was not finite, in step {nonfinite['step']}, is {nonfinite['place'] or 'the loss'}; "
            f"lower the learning rate; the results are in {where}"
        )
    if summary["status"] == "interrupted":
        if first:
            print(f"continue with: fnn resume {where}", file=sys.stderr)
        sys.exit(128 + (summary["signal"] or signal.SIGTERM))  # 0 if another process got it


def _print_results(where: Path, summary: dict[str, Any], as_json: bool) -> None:
    """Write the report, and print the results."""
    from ..report import write_report

    report = write_report(where)
    seconds = time.perf_counter() - START
    if as_json:
        keys = ("status", "test_accuracy", "test_loss", "epochs", "steps", "seconds_to_first_step")
        print_json({"run": str(where), **{key: summary[key] for key in keys}, "seconds": seconds})
    else:
        skipped, to_first_step = summary["skipped_steps"], summary["seconds_to_first_step"]
        print(
            f"{summary['name']}: {METRICS['test_accuracy'].text(summary['test_accuracy'])} "
            f"after {summary['epochs']} epochs ({summary['status']}), "
            + (f"{skipped:,} steps skipped as not finite, " if skipped else "")
            + ("" if math.isnan(to_first_step) else f"first step after {to_first_step:.1f} s, ")
            + f"{seconds:.1f} s in all\nreport: {report}"
        )


@app.command(epilog="Example: fnn compare configs/digits_mlp.yaml --json")
def compare(
    experiment: Annotated[
        Path,
        typer.Argument(
            help="A YAML file, or a run folder, which gets comparison.json and a new report.",
            metavar="CONFIG|RUN",
        ),
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Compare hand-written rules and jax.grad on an experiment."""
    from ..config import load
    from ..report import write_report
    from ..report.find import find_run
    from ..runs.compare import compare_experiment
    from ..runs.folder import write_json
    from ..runs.prepare import prepare

    run = find_run(experiment) if experiment.is_dir() else None
    if run and overrides:
        raise FnnError(
            f"{run} is a run, whose config is fixed; leave out {' '.join(overrides)}, or compare "
            f"its config: fnn compare {run / 'config.yaml'} {' '.join(overrides)}"
        )
    ready = prepare(load(run / "config.yaml" if run else experiment, overrides or ()))
    comparison = compare_experiment(ready)
    if run:
        write_json(run / "comparison.json", comparison)
        write_report(run)
    if as_json:
        print_json({"name": ready.config.name, **comparison})
        return
    print_table(
        f"{ready.config.name}: gradients by hand against jax.grad, one batch",
        ("parameter", "shape", "largest relative difference"),
        [
            (p["path"], shape(p["shape"]), f"{p['max_relative_difference']:.1e}")
            for p in comparison["parameters"]
        ],
    )
    times, temporary = comparison["step_time_us"], comparison["temp_bytes"]
    print_table(
        "one training step; above 1 the hand-written rules win",
        ("", "by hand", "autodiff", "autodiff / by hand"),
        [
            ("µs", *(f"{times[g]:,.1f}" for g in times), f"{comparison['step_time_ratio']:.2f}"),
            (
                "temporary bytes",
                *("–" if temporary[g] is None else f"{temporary[g]:,}" for g in temporary),
                "–" if found["temp_ratio"] is None else f"{found['temp_ratio']:.2f}",
            ),
        ],
    )
    print(f"the losses differ by {found['loss_relative_difference']:.1e} relative")


@app.command(epilog="Example: fnn plan configs/mnist_784_15_10.yaml")
def plan(file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show the layers of an experiment, and the memory of a step."""
    from ..config import load
    from ..runs.prepare import prepare
    from ..train import step_memory

    experiment = prepare(load(file, overrides or ()))
    rows = experiment.layers
    parts = experiment.model, experiment.loss, experiment.optimizer, experiment.x_shape
    memory = step_memory(*parts, experiment.config.gradient, experiment.config.precision)
    steps = experiment.steps_per_epoch
    totals = {
        "parameters": sum(row.parameters for row in rows),
        "multiply_adds": sum(row.multiply_adds for row in rows),
        "train_examples": len(experiment.data.x_train),
        "test_examples": len(experiment.data.x_test),
        "batch_size": experiment.batch_size,
        "steps_per_epoch": steps,
        "epochs": experiment.config.train.epochs,
        "step_memory_bytes": memory._asdict() if memory else None,
    }
    if as_json:
        layers = [row._asdict() for row in rows]
        x_shape = list(experiment.data.x_shape)
        print_json({"name": experiment.config.name, "x_shape": x_shape, "layers": layers, **totals})
        return
    print_table(
        f"{experiment.config.name}: one example, input {shape(experiment.data.x_shape)}",
        ("layer", "", "output", "receptive field", "parameters", "multiply-adds"),
        [
            *(
                (
                    r.path,
                    r.layer,
                    *(shape(s, scalar=MISSING) for s in r[2:4]),
                    *map("{:,}".format, r[4:]),
                )
                for r in rows
            ),
            ("total", "", "", "", f"{totals['parameters']:,}", f"{totals['multiply_adds']:,}"),
        ],
    )
    print(
        f"{totals['train_examples']} training examples, {totals['test_examples']} for testing; "
        f"batches of {experiment.batch_size}: {steps} steps per epoch, {totals['epochs']} epochs"
    )
    if memory:
        print(
            f"a compiled step: {memory.arguments:,} bytes of arguments, {memory.outputs:,} of "
            f"outputs (in the arguments' place where donated), {memory.temporary:,} temporary"
        )
