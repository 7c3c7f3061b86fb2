"""The training loop: epochs of compiled steps, evaluation, and the run folder.

run = prepare(config)        everything is checked before anything is written
summary = train(run, folder)
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
import optax

from .. import config as configs
from ..config import Config
from ..data import Dataset
from ..errors import ConfigError, ShapeError
from ..layers import Layer
from ..loss import Loss
from . import folder as files
from .comparison import compare
from .evaluate import Evaluation, make_evaluate
from .plan import abstract_init, layer_table
from .step import TrainState, init, make_steps, make_update, order

STEPS_A_CALL = 256
"""Steps in one compiled call: enough to make its overhead vanish, few enough to see progress."""
WORST, WORST_POINTS = 24, 2000
"""Test examples of largest loss that a run folder keeps; points of the plane cost little."""


@dataclass(frozen=True)
class Run:
    """An experiment that is ready to start: what its config builds, and fits together."""

    config: Config
    data: Dataset
    model: Layer
    loss: Loss
    optimizer: optax.GradientTransformation
    batch_size: int

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of one batch."""
        return (self.batch_size, *self.data.x_shape)


class Progress(Protocol):
    """Who is told how training goes."""

    def start(self, epochs: int, steps_an_epoch: int) -> None: ...  # noqa: D102
    def steps(self, epoch: int, done: int, loss: float) -> None: ...  # noqa: D102
    def epoch(self, row: dict[str, Any]) -> None: ...  # noqa: D102


class Silent:
    """Tell nobody."""

    def start(self, epochs, steps_an_epoch): ...  # noqa: D102
    def steps(self, epoch, done, loss): ...  # noqa: D102
    def epoch(self, row): ...  # noqa: D102


def prepare(config: Config) -> Run:
    """Load the data and build model, loss and optimiser; check that they fit.

    Raises DataError, or ConfigError naming the line of the config.
    """
    data = config.load_dataset()
    model, loss = config.build_model(), config.build_loss()
    chosen = config.train.batch_size
    batch_size = len(data.x_train) if chosen == "full" else min(chosen, len(data.x_train))
    run = Run(config, data, model, loss, config.build_optimizer(), batch_size)
    try:
        _, y_shape = abstract_init(model, run.x_shape)
        loss.check(y_shape, len(data.classes))
    except ShapeError as error:
        raise ConfigError(f"{config.where_layer(error.path)}: {error}") from error
    return run


def train(
    run: Run, folder: Path, progress: Progress | None = None, started: float | None = None
) -> dict[str, Any]:
    """Train, and leave in `folder` all that the report shows; return its summary.

    Ctrl-C ends training after the compiled call under way, and what was done is kept. `started`
    (of `time.perf_counter`) is what the seconds of the summary count from.
    """
    started = time.perf_counter() if started is None else started
    progress = progress or Silent()
    files.write_text(folder / "config.yaml", configs.dump(run.config))
    files.write_json(folder / "environment.json", files.environment(run.config.seed))
    with _interruptible() as interrupted:
        fit = _fit(run, folder, progress, interrupted, started)
        _write_results(run, folder, fit)
        summary = _summary(run, fit)
        files.write_json(folder / "summary.json", summary)
        if not interrupted():
            x, labels = jnp.asarray(run.data.x_train), jnp.asarray(run.data.y_train)
            parts = (run.model, run.loss, run.optimizer, x, labels, run.batch_size)
            files.write_json(folder / "comparison.json", compare(*parts, run.config.seed))
        summary["seconds"] = time.perf_counter() - started
        files.write_json(folder / "summary.json", summary)
    return summary


class _Fit(NamedTuple):
    """What training came to."""

    state: TrainState
    evaluation: Evaluation  # on the test examples, after the last epoch
    rows: list[dict[str, Any]]  # of metrics.jsonl
    status: str
    seconds_to_first_step: float


def _fit(
    run: Run,
    folder: Path,
    progress: Progress,
    interrupted: Callable[[], bool],
    started: float,
) -> _Fit:
    config, data = run.config, run.data
    x, labels = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
    x_test, labels_test = jnp.asarray(data.x_test), jnp.asarray(data.y_test)
    steps = make_steps(make_update(run.model, run.loss, run.optimizer, config.gradient))
    evaluate = make_evaluate(run.model, run.loss)
    state = init(run.model, run.optimizer, run.x_shape, config.seed)
    progress.start(config.train.epochs, -(-len(x) // run.batch_size))
    rows: list[dict[str, Any]] = []
    begin, to_first_step = time.perf_counter(), math.nan
    for epoch in range(1, config.train.epochs + 1):
        total, seen, done = 0.0, 0, 0
        for batches in _calls(np.asarray(order(config.seed, epoch, len(x))), run.batch_size):
            state, mean = steps(state, x, labels, batches)
            total, seen = total + float(mean) * batches.size, seen + batches.size
            done += len(batches)
            if math.isnan(to_first_step):
                to_first_step = time.perf_counter() - started
            progress.steps(epoch, done, total / seen)
            if interrupted():
                break
        evaluation = evaluate(state.params, state.layers, x_test, labels_test)
        row = {
            "epoch": epoch,
            "step": int(state.step),
            "train_loss": total / seen,
            "test_loss": evaluation.loss(),
            "test_accuracy": evaluation.accuracy(data.y_test),
            "seconds": time.perf_counter() - begin,
        }
        rows.append(row)
        files.append_metrics(folder / "metrics.jsonl", row)
        progress.epoch(row)
        status = _status(config, rows, interrupted())
        if status != "completed":
            break
    return _Fit(state, evaluation, rows, status, to_first_step)


def _calls(examples: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Cut an epoch's order into calls of (steps, batch size); what is left over is a small batch.

    Every example is used once an epoch, so the last batch may be smaller than the others.
    """
    whole = len(examples) // batch_size * batch_size
    batches = examples[:whole].reshape(-1, batch_size)
    for i in range(0, len(batches), STEPS_A_CALL):
        yield batches[i : i + STEPS_A_CALL]
    if whole < len(examples):
        yield examples[None, whole:]


def _status(config: Config, rows: list[dict[str, Any]], interrupted: bool) -> str:
    """Say whether to go on (`completed`, so far) or why to stop."""
    losses = [row["train_loss"] for row in rows]
    if not math.isfinite(losses[-1]):
        return "diverged"
    if interrupted:
        return "interrupted"
    rule = config.train.converge
    if (
        rule is not None
        and len(losses) > rule.window
        and abs(losses[-1] - losses[-1 - rule.window]) < rule.epsilon
    ):
        return "converged"
    return "completed"


def _write_results(run: Run, folder: Path, fit: _Fit) -> None:
    files.write_npz(folder / "parameters.npz", **files.named_arrays(fit.state.params))
    if fit.state.layers:
        files.write_npz(folder / "state.npz", **files.named_arrays(fit.state.layers))
    found = fit.evaluation
    kept = WORST_POINTS if run.data.x_shape == (2,) else WORST
    worst = np.argsort(-found.losses, kind="stable")[:kept]
    files.write_npz(
        folder / "predictions.npz",
        y_true=run.data.y_test,
        y_pred=found.decisions,
        scores=found.scores,
        loss=found.losses,
        worst_index=worst,
        worst_x=run.data.x_test[worst],
    )


def _summary(run: Run, fit: _Fit) -> dict[str, Any]:
    config, data, last = run.config, run.data, fit.rows[-1]
    rows = layer_table(run.model, run.x_shape)
    return {
        "name": config.name,
        "status": fit.status,
        "epochs": last["epoch"],
        "steps": last["step"],
        **{key: last[key] for key in ("train_loss", "test_loss", "test_accuracy")},
        "seconds_to_first_step": fit.seconds_to_first_step,
        "seconds": math.nan,
        "parameters": sum(row.parameters for row in rows),
        "gradient": config.gradient,
        "loss": config.loss.name,
        "batch_size": run.batch_size,
        "train_examples": len(data.x_train),
        "test_examples": len(data.x_test),
        "classes": list(data.classes),
        "x_shape": list(data.x_shape),
        "layers": [row._asdict() for row in rows],
    }


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag, so that no state is lost; a second one interrupts."""
    pressed = False

    def note(number, frame):
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread, which alone may handle signals
        yield lambda: False
        return
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
