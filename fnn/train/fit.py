"""A training under way: compiled calls of steps, evaluations, checkpoints, and what can go wrong.

    fit = Fit(run, folder, saved, found, progress, asked)
    fit.train()
    fit.state, fit.rows, fit.status

Everything that the numbers depend on is in `fit.state`, `fit.at` and `fit.rows`, and all three go
into a checkpoint (the rows as the length of metrics.jsonl).
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from .. import config as configs
from ..config import Config
from ..data import Streamed
from . import checkpoint as checkpoints
from . import distributed
from . import folder as files
from .changes import same_since
from .checkpoint import Checkpoint, Checkpoints
from .evaluate import Evaluation, make_evaluate
from .optimizer import evaluated_params
from .position import Position, cut_epoch
from .replay import first_nonfinite
from .run import Experiment
from .step import TrainState, order
from .stopping import has_converged, stops_early

ROLL_BACKS = 10
"""Times that a training goes back to a checkpoint, before it counts as diverged."""


class Progress(Protocol):
    """Who is told how training goes."""

    def start(self, epochs: int, steps_per_epoch: int, step: int) -> None: ...  # noqa: D102
    def steps(self, epoch: int, done: int, loss: float) -> None: ...  # noqa: D102
    def epoch(self, row: dict[str, Any]) -> None: ...  # noqa: D102


class Silent:
    """Tell nobody."""

    def start(self, epochs, steps_per_epoch, step): ...  # noqa: D102
    def steps(self, epoch, done, loss): ...  # noqa: D102
    def epoch(self, row): ...  # noqa: D102


class Fit:
    """A training under way, from its first step or from a checkpoint."""

    state: TrainState
    at: Position
    rows: list[dict[str, Any]]  # of metrics.jsonl
    status: str  # `completed`, so far, or why it ended before
    evaluation: Evaluation | None  # the last one on the test examples
    nonfinite: dict[str, Any] | None  # what was not finite first: `step`, `epoch`, `place`

    def __init__(
        self,
        run: Experiment,
        folder: Path,
        saved: Checkpoints,
        found: Checkpoint | None,
        progress: Progress,
        asked: Callable[[], int],
    ) -> None:
        self.run, self.saved, self.progress, self.asked = run, saved, progress, asked
        data, config = run.data, run.config
        self.feed, self.steps = run.feed(), run.steps()
        streamed = isinstance(data.x_test, Streamed)
        x_test = data.x_test if streamed else run.placement.resident(data.x_test)
        self.test = x_test, data.y_test
        self.evaluate = make_evaluate(run.model, run.loss, config.precision, run.placement)
        self.longest = run.steps_per_call
        text = configs.dump(config)
        self.told = {  # in every checkpoint
            "config": text,
            "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "steps_an_epoch": run.steps_per_epoch,
            "same_since": same_since(found, config),
        }
        self.folder, self.metrics = folder, folder / "metrics.jsonl"
        self.state, self.at, self.rows = run.initial_state(), Position(), []
        self.evaluation = None
        self.roll_backs, self.nonfinite, self.before = 0, None, 0.0
        if found is not None:
            self._restore(found)
        if not self.rows and distributed.is_first():
            self.metrics.unlink(missing_ok=True)
        self.status = status_after(config, self.rows)
        self.begun = self.saved_at = time.perf_counter()
        self.saved_step = self.step
        self.first_step_at = math.nan  # of time.perf_counter

    @property
    def step(self) -> int:
        """How many steps were taken, or passed over."""
        return self.at.step(self.run.steps_per_epoch)

    @property
    def seconds(self) -> float:
        """How long training has taken, before it was resumed and since."""
        return self.before + time.perf_counter() - self.begun

    def train(self) -> None:
        """Train until it is done, stands still, diverges or is told to stop; save where it is."""
        epochs = self.run.config.train.epochs
        self.progress.start(epochs, self.run.steps_per_epoch, self.step)
        while self.status == "completed" and self.at.epoch <= epochs:
            if self._steps():
                self._end_of_epoch()
        if self.at.done or not self.rows:  # it ended within an epoch
            self.last = self._evaluated()
            if self.status == "diverged":
                files.append_metrics(self.metrics, self.last)
        elif self.evaluation is None:  # it had ended when it was resumed
            self._evaluated()
        if self.status != "diverged" and self.step != self.saved_step:
            self._save()
        self.saved.wait()

    def _steps(self) -> bool:
        """Take the steps of the present epoch; return whether it came to its end."""
        run = self.run
        examples = np.asarray(order(run.config.seed, self.at.epoch, len(run.data.x_train)))
        cuts = cut_epoch(examples, run.batch_size, self.at.done, self.longest)
        for batches, *data, indices in self.feed.chunks(cuts):
            if distributed.any_process(bool(self.asked())):
                self.status = "interrupted"
                return False
            self.state, found = self.steps(self.state, *data, indices)
            losses = np.asarray(found)
            if math.isnan(self.first_step_at):
                self.first_step_at = time.perf_counter()
            if not np.isfinite(losses).all() and not self._goes_on(batches, losses):
                return False
            self.at = self.at.after(batches, losses)
            self.progress.steps(self.at.epoch, self.at.done, self.at.mean())
            if self._is_due() and self.at.done < run.steps_per_epoch:
                self._save()
        return True

    def _goes_on(self, batches: np.ndarray, losses: np.ndarray) -> bool:
        """Do what the config says of losses that are not finite; say if the epoch goes on."""
        first = int(np.argmin(np.isfinite(losses)))
        if self.nonfinite is None:
            self.saved.wait()
            self.nonfinite = first_nonfinite(self.run, self.folder, self.step + first)
        policy = self.run.config.train.on_nan
        if policy == "skip":
            return True
        if policy == "roll_back" and self.roll_backs < ROLL_BACKS:
            self._roll_back(first)
        else:
            self.at = self.at.after(batches, losses)
            self.status = "diverged"
        return False

    def _roll_back(self, first: int) -> None:
        """Take the last finite checkpoint; go on after the `first` step of the call."""
        self.saved.wait()
        older = (checkpoints.restore(c, self.state) for c in checkpoints.newest(self.saved.folder))
        state = next(filter(_is_finite, older), None) or self.run.initial_state()
        self.at = dataclasses.replace(self.at, done=self.at.done + first + 1)
        step = self.run.placement.resident(np.asarray(self.step, state.step.dtype))
        self.state = state._replace(step=step)
        self.roll_backs += 1
        self._save()

    def _end_of_epoch(self) -> None:
        """Evaluate, note the metrics, and begin the next epoch."""
        config = self.run.config
        self.last = self._evaluated()
        self.rows.append(self.last)
        files.append_metrics(self.metrics, self.last)
        self.progress.epoch(self.last)
        self.at = Position(self.at.epoch + 1)
        self.status = status_after(config, self.rows)
        score = self.last[config.checkpoint.metric]
        score = -score if config.checkpoint.metric == "test_accuracy" else score
        if self._is_due() or self.saved.is_among_best(score):
            self._save(score)

    def _evaluated(self) -> dict[str, Any]:
        """Evaluate the model as it is; return the row of metrics."""
        params = evaluated_params(self.state)
        self.evaluation = self.evaluate(params, self.state.layers, *self.test)
        return {
            "epoch": self.at.epoch,
            "step": self.step,
            "train_loss": math.nan if self.status == "diverged" else self.at.mean(),
            "test_loss": self.evaluation.loss(),
            "test_accuracy": self.evaluation.accuracy(self.run.data.y_test),
            "seconds": self.seconds,
        }

    def _is_due(self) -> bool:
        rule, seconds = self.run.config.checkpoint, time.perf_counter() - self.saved_at
        return distributed.any_process(rule.is_due(self.step, self.saved_step, seconds))

    def _save(self, score: float | None = None) -> None:
        written = (self.metrics,) if self.rows and distributed.is_first() else ()
        meta = {
            "position": self.at.as_json(),
            "metrics_bytes": sum(path.stat().st_size for path in written),
            "seconds": self.seconds,
            "roll_backs": self.roll_backs,
            "first_nonfinite": self.nonfinite,
            **self.told,
        }
        self.saved.save(self.state, self.step, meta, score, written)
        self.saved_step, self.saved_at = self.step, time.perf_counter()

    def _restore(self, found: Checkpoint) -> None:
        self.state = checkpoints.restore(found, self.state)
        self.at = Position(**found.metadata["position"])
        if octets := found.metadata["metrics_bytes"]:
            self.rows = files.read_metrics(self.metrics, octets)
            self.last = self.rows[-1]
        self.roll_backs, self.before = found.metadata["roll_backs"], found.metadata["seconds"]
        self.nonfinite = found.metadata["first_nonfinite"]


def _is_finite(state: TrainState) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


def status_after(config: Config, rows: list[dict[str, Any]]) -> str:
    """Say whether to go on after an epoch (`completed`, so far) or why to stop."""
    if rows and math.isnan(rows[-1]["train_loss"]):  # every step was left out
        return "diverged"
    if has_converged(rows, config.train.converge):
        return "converged"
    if stops_early(rows, config.train.early_stopping):
        return "early_stopped"
    return "completed"
