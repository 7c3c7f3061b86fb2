"""Training one experiment in a run folder: from the first step, or from a checkpoint.

experiment = prepare(config)              everything is checked before anything is written
summary = train(experiment, folder)
summary = resume(experiment, folder)      after an interruption: the same numbers as without it
"""

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import config as configs
from ..data import Streamed
from ..errors import FnnError
from ..train.distributed import is_first
from ..train.evaluate import Evaluation, make_evaluate
from ..train.feed import Chunk
from ..train.optimizer import evaluated_params
from ..train.step import TrainState
from . import checkpoint as checkpoints
from . import folder as files
from .checkpoint import Checkpoint, Checkpoints
from .compare import compare_experiment
from .history import History
from .loop import Loop, Progress, Silent
from .prepare import Experiment
from .process import stoppable
from .replay import first_nonfinite
from .results import model_arrays, write_results
from .resume import check_position, same_since

ROLL_BACKS = 10
"""After this many returns to a checkpoint, the next loss that is not finite ends the run."""


def train(
    experiment: Experiment,
    folder: Path,
    progress: Progress | None = None,
    started: float | None = None,
) -> dict[str, Any]:
    """Train, and leave in `folder` all that the report shows; return its summary.

    Ctrl-C and SIGTERM end training after the present chunk, with a checkpoint. The seconds of the
    summary count from `started` (of `time.perf_counter`).

    Raises FnnError if another process trains in the folder, if the folder cannot be written in, or
    if it has the checkpoints of a training.
    """
    with files.locked(folder):
        if (checkpoint := checkpoints.latest(folder / "checkpoints")) is not None:
            raise FnnError(
                f"{folder} holds a training that has come to step {checkpoint.step}; resume it, or "
                "train in another folder"
            )
        files.write_json(folder / "environment.json", files.environment(experiment.config.seed))
        return _train(experiment, folder, None, progress, started)


def resume(
    experiment: Experiment,
    folder: Path,
    progress: Progress | None = None,
    started: float | None = None,
) -> dict[str, Any]:
    """Continue from the last checkpoint in `folder`, or from the first step without one.

    On one machine the result is bitwise identical to an uninterrupted training. See `train`.

    Raises FnnError if a checkpoint is damaged, or holds the state of another model.
    """
    with files.locked(folder):
        checkpoint = checkpoints.latest(folder / "checkpoints")
        if checkpoint is not None:
            check_position(experiment, checkpoint)
        return _train(experiment, folder, checkpoint, progress, started)


def _train(
    experiment: Experiment,
    folder: Path,
    checkpoint: Checkpoint | None,
    progress: Progress | None,
    started: float | None,
) -> dict[str, Any]:
    started = time.perf_counter() if started is None else started
    config, rule = experiment.config, experiment.config.checkpoint
    writer = Checkpoints(folder / "checkpoints", rule.keep_last, rule.keep_best)
    with stoppable() as stop_requested, contextlib.closing(writer):
        fit = Fit(experiment, folder, writer, checkpoint, progress or Silent(), stop_requested)
        # Only now: a state that does not fit the config is refused before it replaces the old one.
        files.write_text(folder / "config.yaml", configs.dump(config))
        fit.train()
        assert fit.evaluation is not None
        (history,) = fit.histories
        outcome: dict[str, Any] = {
            "skipped_steps": int(fit.state.skipped),
            "seconds_to_first_step": fit.first_step_at - started,
            "seconds": fit.earlier_seconds + time.perf_counter() - started,
        }
        if fit.nonfinite is not None:
            outcome["first_nonfinite"] = fit.nonfinite
        arrays = experiment.placement.whole(model_arrays(fit.state)), fit.evaluation.of_run(0)
        summary = write_results(experiment, history, *arrays, outcome)
        if config.compare and history.status != "interrupted" and is_first():
            files.write_json(folder / "comparison.json", compare_experiment(experiment))
    return summary | {"signal": stop_requested()}


class Fit(Loop):
    """The training of one run."""

    nonfinite: dict[str, Any] | None  # the first array that was not finite: step, epoch, place

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        writer: Checkpoints,
        checkpoint: Checkpoint | None,
        progress: Progress,
        stop_requested: Callable[[], int],
    ) -> None:
        config, data, place = experiment.config, experiment.data, experiment.placement
        history = History(config, folder, experiment.steps_per_epoch)
        super().__init__(experiment, [history], writer, progress, stop_requested)
        streamed = isinstance(data.x_test, Streamed)
        self.chunks = experiment.chunks
        self._test = data.x_test if streamed else place.resident(data.x_test), data.y_test
        self._evaluate_all = make_evaluate(
            experiment.model, experiment.loss, config.precision, place
        )
        self.roll_backs, self.nonfinite = 0, None
        if checkpoint is not None:
            self.roll_backs = checkpoint.metadata["roll_backs"]
            self.nonfinite = checkpoint.metadata["first_nonfinite"]
        text = configs.dump(config)
        self._description = {
            "config": text,
            "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "steps_an_epoch": experiment.steps_per_epoch,
            "same_since": same_since(checkpoint, config),
        }
        self.begin(experiment.initial_state(), checkpoint)

    def take(self, chunk: Chunk, active: Sequence[History]) -> jax.Array:
        """Take the steps of a chunk; return the losses (1, steps)."""
        del active
        _, *data = chunk
        self.state, losses = self.experiment.steps(self.state, *data)
        return losses[None]

    def evaluate(self) -> Evaluation:
        """Evaluate the present state on the test examples: arrays (1, n, ...)."""
        params = evaluated_params(self.state)
        evaluation = self._evaluate_all(params, self.state.layers, *self._test)
        return Evaluation(*(array[None] for array in evaluation))

    def metadata(self) -> dict[str, Any]:
        """Return the plain JSON that goes into a checkpoint."""
        return {
            **self.histories[0].as_metadata(),
            "seconds": self.seconds,
            "roll_backs": self.roll_backs,
            "first_nonfinite": self.nonfinite,
            **self._description,
        }

    def handle_nonfinite(self, history: History, losses: np.ndarray) -> bool:
        """Apply `on_nan` to a chunk's losses; return whether training rolled back."""
        first = int(np.argmin(np.isfinite(losses)))
        if self.nonfinite is None:
            self.checkpoints.wait()
            self.nonfinite = first_nonfinite(self.experiment, history.folder, self.step + first)
        policy = self.experiment.config.train.on_nan
        if policy != "roll_back" or self.roll_backs == ROLL_BACKS:
            return super().handle_nonfinite(history, losses)
        self._roll_back(history, first)
        return True

    def _roll_back(self, history: History, first: int) -> None:
        """Restore the last finite checkpoint; continue after step `first` of the chunk."""
        self.checkpoints.wait()
        newest = checkpoints.newest(self.checkpoints.folder)
        states = (checkpoints.restore(checkpoint, self.state) for checkpoint in newest)
        state = next(filter(_is_finite, states), None) or self.experiment.initial_state()
        done = history.position.done + first + 1
        history.position = dataclasses.replace(history.position, done=done)
        step = np.asarray(history.step, state.step.dtype)
        self.state = state._replace(step=self.experiment.placement.resident(step))
        self.roll_backs += 1
        self.save()


def _is_finite(state: TrainState) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))
