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
from .board import Board, check_tensorboard
from .command import START, AsJson, ConfigFile, Overrides, RunFolder, app
from .show import keep_libraries_off_stdout, print_json, print_table, shape

TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write metrics for TensorBoard as well (an extra).")
]


@app.command(epilog="Example: fnn run configs/digits_mlp.yaml train.epochs=5 seed=1")
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    tensorboard: TensorBoard = False,
    as_json: AsJson = False,
) -> None:
    """Train an experiment; leave a run folder with its report."""
    from ..config import load
    from ..progress import progress
    from ..runs import folder
    from ..runs.fit import train
    from ..runs.prepare import prepare
    from ..runs.process import keep_compiled
    from ..train import distributed

    if tensorboard:
        check_tensorboard()
    checked = load(config, overrides or ())
    keep_compiled(checked)
    if checked.distributed is not None:
        keep_libraries_off_stdout()
    with distributed.joined(checked):
        ready = prepare(checked)
        first = distributed.is_first()
        made = str(folder.create(runs, checked.name)) if first else ""
        where = Path(distributed.from_first(made))
        with progress() if first else contextlib.nullcontext() as shown:
            told = Board(shown, where) if tensorboard and first else shown
            summary = train(ready, where, told, START)
    _finish(where, summary, first, as_json)


@app.command(epilog="Example: fnn resume runs/digits_mlp/20260131-120000 train.epochs=80")
def resume(
    run: RunFolder,
    overrides: Overrides = None,
    tensorboard: TensorBoard = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped, from its last checkpoint."""
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
            f"{run} is a run of a sweep, whose checkpoints hold all its runs; go on with fnn "
            f"resume {whole}, or train it by itself: fnn run {run / 'config.yaml'}"
        )
    if tensorboard:
        check_tensorboard()
    checked = load(run / "config.yaml", overrides or ())
    keep_compiled(checked)
    if checked.distributed is not None:
        keep_libraries_off_stdout()
    with distributed.joined(checked):
        first, found = distributed.is_first(), latest(run / "checkpoints")
        if first and not found:
            print(f"fnn: no checkpoint in {run} yet: from the first step", file=sys.stderr)
        for key, before, after, meaning in changes(found, checked) if first and found else ():
            print(f"fnn: {key}: {before} -> {after}: {meaning}", file=sys.stderr)
        with progress() if first else contextlib.nullcontext() as shown:
            told = Board(shown, run) if tensorboard and first else shown
            summary = go_on(prepare(checked), run, told, START)
    _finish(run, summary, first, as_json)


@app.command(epilog="Example: fnn replay runs/digits_mlp/20260131-120000 --step 1234")
def replay(
    run: RunFolder,
    step: Annotated[int, typer.Option(help="Which step; the first is 0.", min=0)],
    as_json: AsJson = False,
) -> None:
    """Run one step once more; show each layer's ranges both ways."""
    from ..config import load
    from ..report.find import find_run
    from ..runs.prepare import prepare
    from ..runs.replay import replay as once_more

    run = find_run(run)
    found = once_more(prepare(load(run / "config.yaml")), run, step)
    if as_json:
        print_json(found._asdict() | {"arrays": [a.as_json() for a in found.arrays]})
        return
    print_table(
        f"step {step}, epoch {found.epoch}: loss {found.loss:.6g}",
        ("layer", "", "array", "forward", "∂loss/∂", "after the step"),
        [(a.path, a.layer, a.name, *map(_range, a[3:])) for a in found.arrays],
    )
    print(f"not finite first: {found.first}" if found.first else "everything is finite")


def _range(found: Any) -> str:
    if found is None:
        return ""
    text = f"{found.low:.3g} to {found.high:.3g}" if found.low <= found.high else "none finite"
    return f"{text}, {found.nonfinite} not finite" if found.nonfinite else text


def _finish(where: Path, summary: dict[str, Any], first: bool, as_json: bool) -> None:
    """Have the first process say how training ended; exit with a status that says it too."""
    if first:
        _tell(where, summary, as_json)
    if summary["status"] == "diverged":
        found = summary["first_nonfinite"]
        raise FnnError(
            f"the training loss is no longer finite (epoch {summary['epochs']}); the first that "
            f"was not finite, in step {found['step']}, is {found['place'] or 'the loss'}; "
            f"lower the learning rate; what was done is in {where}"
        )
    if summary["status"] == "interrupted":
        if first:
            print(f"go on with: fnn resume {where}", file=sys.stderr)
        sys.exit(128 + (summary["signal"] or signal.SIGTERM))  # 0 where another process was asked


def _tell(where: Path, summary: dict[str, Any], as_json: bool) -> None:
    """Write the report, and say what it comes to."""
    from ..report import write_report

    report = write_report(where)
    seconds = time.perf_counter() - START
    if as_json:
        keys = ("status", "test_accuracy", "test_loss", "epochs", "steps", "seconds_to_first_step")
        print_json({"run": str(where), **{key: summary[key] for key in keys}, "seconds": seconds})
    else:
        skipped, to_first_step = summary["skipped_steps"], summary["seconds_to_first_step"]
        print(
            f"{summary['name']}: test accuracy {summary['test_accuracy']:.2%} "
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
    found = compare_experiment(ready)
    if run:
        write_json(run / "comparison.json", found)
        write_report(run)
    if as_json:
        print_json({"name": ready.config.name, **found})
        return
    print_table(
        f"{ready.config.name}: gradients by hand against jax.grad, one batch",
        ("parameter", "shape", "largest relative difference"),
        [
            (p["path"], shape(p["shape"]), f"{p['max_relative_difference']:.1e}")
            for p in found["parameters"]
        ],
    )
    times, temporary = found["step_time_us"], found["temp_bytes"]
    print_table(
        "one training step; above 1 the hand-written rules win",
        ("", "by hand", "autodiff", "autodiff / by hand"),
        [
            ("µs", *(f"{times[g]:,.1f}" for g in times), f"{found['step_time_ratio']:.2f}"),
            (
                "temporary bytes",
                *("–" if temporary[g] is None else f"{temporary[g]:,}" for g in temporary),
                "–" if found["temp_ratio"] is None else f"{found['temp_ratio']:.2f}",
            ),
        ],
    )
    print(f"the losses differ by {found['loss_relative_difference']:.1e} relative")


@app.command(epilog="Example: fnn plan configs/mnist_784_15_10.yaml")
def plan(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show an experiment's layers and what a step takes."""
    from ..config import load
    from ..runs.prepare import prepare
    from ..train import step_memory

    ready = prepare(load(config, overrides or ()))
    rows = ready.layers
    parts = ready.model, ready.loss, ready.optimizer, ready.x_shape
    memory = step_memory(*parts, ready.config.gradient, ready.config.precision)
    steps = ready.steps_per_epoch
    totals = {
        "parameters": sum(row.parameters for row in rows),
        "multiply_adds": sum(row.multiply_adds for row in rows),
        "train_examples": len(ready.data.x_train),
        "test_examples": len(ready.data.x_test),
        "batch_size": ready.batch_size,
        "steps_per_epoch": steps,
        "epochs": ready.config.train.epochs,
        "step_memory_bytes": memory._asdict() if memory else None,
    }
    if as_json:
        layers = [row._asdict() for row in rows]
        x_shape = list(ready.data.x_shape)
        print_json({"name": ready.config.name, "x_shape": x_shape, "layers": layers, **totals})
        return
    print_table(
        f"{ready.config.name}: one example, input {shape(ready.data.x_shape)}",
        ("layer", "", "output", "receptive field", "parameters", "multiply-adds"),
        [
            *((r.path, r.layer, *map(shape, r[2:4]), *map("{:,}".format, r[4:])) for r in rows),
            ("total", "", "", "", f"{totals['parameters']:,}", f"{totals['multiply_adds']:,}"),
        ],
    )
    print(
        f"{totals['train_examples']} training examples, {totals['test_examples']} for testing; "
        f"batches of {ready.batch_size}: {steps} steps an epoch, {totals['epochs']} epochs"
    )
    if memory:
        print(
            f"a compiled step: {memory.arguments:,} bytes of arguments, {memory.outputs:,} of "
            f"outputs (in the arguments' place where donated), {memory.temporary:,} temporary"
        )
