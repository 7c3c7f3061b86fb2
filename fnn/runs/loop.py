"""The training loop: chunks of steps, evaluations, checkpoints, for one run or several that advance
together.

`Fit` of fnn.runs takes the steps of one run, `SweepFit` of fnn.sweep those of many in one program.
All that the numbers depend on is in `state` and `histories`, and both go into every checkpoint.
"""

import math
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from ..train import distributed
from ..train.evaluate import Evaluation
from ..train.feed import Chunk, Position
from ..train.step import TrainState
from . import checkpoint as checkpoints
from .checkpoint import Checkpoint, Checkpoints
from .history import History
from .prepare import Experiment


class Progress(Protocol):
    """An observer of training."""

    def start(self, epochs: int, steps_per_epoch: int, step: int) -> None: ...  # noqa: D102
    def steps(self, epoch: int, done: int, loss: float) -> None: ...  # noqa: D102
    def epoch(self, row: dict[str, Any]) -> None: ...  # noqa: D102


class Silent:
    """An observer that shows nothing."""

    def start(self, epochs, steps_per_epoch, step): ...  # noqa: D102
    def steps(self, epoch, done, loss): ...  # noqa: D102
    def epoch(self, row): ...  # noqa: D102


class Loop:
    """The training of runs that take their steps together, from step 0 or from a checkpoint.

    Arrays of several runs have an axis of runs first. A subclass provides the way to step.
    """

    state: TrainState
    chunks: Callable[[Position], Generator[Chunk]]  # from a position on
    take: Callable[[Chunk, Sequence[History]], jax.Array]  # steps the state; losses (runs, steps)
    evaluate: Callable[[], Evaluation]  # of the present state, on the test examples
    metadata: Callable[[], dict[str, Any]]  # plain JSON for a checkpoint

    def __init__(
        self,
        experiment: Experiment,
        histories: Sequence[History],
        store: Checkpoints,
        progress: Progress,
        stop_requested: Callable[[], int],
    ) -> None:
        self.experiment, self.histories, self.checkpoints = experiment, histories, store
        self.progress, self.stop_requested = progress, stop_requested
        self.evaluation: Evaluation | None = None  # the last one, of all runs
        self.earlier_seconds, self.first_step_at = 0.0, math.nan

    def begin(self, state: TrainState, checkpoint: Checkpoint | None) -> None:
        """Begin with the initial state, or with that of a checkpoint, laid out alike."""
        self.state, runs = state, [None] * len(self.histories)
        if checkpoint is not None:
            self.state = checkpoints.restore(checkpoint, state)
            runs = checkpoint.metadata.get("runs", [checkpoint.metadata])
            self.earlier_seconds = checkpoint.metadata["seconds"]
        for history, metadata in zip(self.histories, runs, strict=True):
            history.begin(metadata)
        self._start = self._saved_at = time.perf_counter()
        self._saved_step = self.step

    @property
    def step(self) -> int:
        """The number of steps done, including those that `on_nan` skipped."""
        return max(history.step for history in self.histories)

    @property
    def seconds(self) -> float:
        """The seconds that training has taken, in earlier processes and this one."""
        return self.earlier_seconds + time.perf_counter() - self._start

    def train(self) -> None:
        """Train until all runs have ended or a stop is requested; save the last state."""
        per_epoch = self.experiment.steps_per_epoch
        self.progress.start(self.experiment.config.train.epochs, per_epoch, self.step)
        self._chunks: Generator[Chunk] | None = None
        try:
            while active := self._active():  # these have the same position
                if active[0].position.done == per_epoch:
                    self._end_epoch()
                elif distributed.any_process(bool(self.stop_requested())):
                    break
                else:
                    self._take_chunk(active)
        finally:
            self._leave_chunks()
        if self.evaluation is None or not all(h.is_evaluated for h in self.histories):
            self._evaluate()
        for history in self._active():
            history.status = "interrupted"
        diverged = all(history.status == "diverged" for history in self.histories)
        if self.step != self._saved_step and not diverged:
            self.save()
        self.checkpoints.wait()

    def _take_chunk(self, active: list[History]) -> None:
        """Take the steps of the next chunk; save if a checkpoint is due within the epoch."""
        if self._chunks is None:
            self._chunks = self.chunks(active[0].position)
        chunk = next(self._chunks)
        losses = np.asarray(self.take(chunk, active))
        if math.isnan(self.first_step_at):
            self.first_step_at = time.perf_counter()
        for history in active:
            own = losses[self.histories.index(history)]
            if not np.isfinite(own).all() and self.handle_nonfinite(history, own):
                self._leave_chunks()
                return
            history.position = history.position.after(chunk.batches, own)
        active = [history for history in active if history.is_active]
        if not active:
            return
        position = active[0].position
        means = [h.position.mean() for h in active if h.position.examples]
        self.progress.steps(position.epoch, position.done, min(means, default=math.nan))
        if position.done < self.experiment.steps_per_epoch and self._is_due():
            self.save()

    def handle_nonfinite(self, history: History, losses: np.ndarray) -> bool:
        """Apply `on_nan` to a chunk's losses; return whether training rolled back."""
        del losses
        if self.experiment.config.train.on_nan != "skip":
            history.status = "diverged"
        return False

    def _end_epoch(self) -> None:
        """Evaluate, record the metrics, begin the next epoch; save if a checkpoint is due."""
        self._evaluate()
        score = self.histories[0].score if len(self.histories) == 1 else None
        if self._is_due() or self.checkpoints.is_among_best(score):
            self.save(score)

    def _evaluate(self) -> None:
        """Evaluate all runs; record the metrics of those that have moved."""
        self.evaluation = Evaluation(*map(np.asarray, self.evaluate()))
        labels, rows = self.experiment.data.y_test, []
        for i, history in enumerate(self.histories):
            own = self.evaluation.of_run(i)
            if not history.is_evaluated and history.record(own, labels, self.seconds):
                rows.append(history.last)
        if rows:
            self.progress.epoch(min(rows, key=_loss))

    def _active(self) -> list[History]:
        return [history for history in self.histories if history.is_active]

    def _leave_chunks(self) -> None:
        if self._chunks is not None:
            self._chunks.close()
            self._chunks = None

    def _is_due(self) -> bool:
        rule, seconds = self.experiment.config.checkpoint, time.perf_counter() - self._saved_at
        return distributed.any_process(rule.is_due(self.step, self._saved_step, seconds))

    def save(self, score: float | None = None) -> None:
        """Write a checkpoint of the present state."""
        flush = tuple(h.metrics for h in self.histories if h.rows and distributed.is_first())
        self.checkpoints.save(self.state, self.step, self.metadata(), score, flush)
        self._saved_step, self._saved_at = self.step, time.perf_counter()


def _loss(row: dict[str, Any]) -> float:
    return math.inf if math.isnan(row["test_loss"]) else row["test_loss"]
