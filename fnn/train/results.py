"""What a training leaves in its run folder once it has ended, however it ended."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data import Dataset
from . import folder as files
from .evaluate import Evaluation
from .optimizer import evaluated_params
from .plan import layer_table
from .precision import widen
from .run import Experiment
from .step import TrainState

WORST, WORST_POINTS = 24, 2000
"""Test examples of largest loss that a run folder keeps; points of the plane cost little."""


class Learnt(NamedTuple):
    """What of a state is worth keeping once a training has ended."""

    params: Any
    layers: Any


def learnt(state: TrainState) -> Learnt:
    """Return the parameters to keep, in at least float32, and the layers' state."""
    return Learnt(widen(evaluated_params(state)), state.layers)


def write_results(folder: Path, data: Dataset, learnt: Learnt, found: Evaluation) -> None:
    """Write what was learnt, and what it says of the test examples."""
    params, layers = learnt
    files.write_npz(folder / "parameters.npz", **files.named_arrays(params))
    if layers:
        files.write_npz(folder / "state.npz", **files.named_arrays(layers))
    kept = WORST_POINTS if data.x_shape == (2,) else WORST
    worst = np.argsort(-found.losses, kind="stable")[:kept]
    files.write_npz(
        folder / "predictions.npz",
        y_true=data.y_test,
        y_pred=found.decisions,
        scores=found.scores,
        loss=found.losses,
        worst_index=worst,
        worst_x=data.x_test[worst],
    )


def summary(
    run: Experiment, last: dict[str, Any], status: str, skipped: int, to_first_step: float
) -> dict[str, Any]:
    """Return what `summary.json` says of a training that ended with `last`, a row of metrics."""
    rows = layer_table(run.model, run.x_shape)
    return {
        "name": run.config.name,
        "status": status,
        "epochs": last["epoch"],
        "steps": last["step"],
        "skipped_steps": skipped,
        **{key: last[key] for key in ("train_loss", "test_loss", "test_accuracy")},
        "seconds_to_first_step": to_first_step,
        "parameters": sum(row.parameters for row in rows),
        "gradient": run.config.gradient,
        "loss": run.config.loss.name,
        "batch_size": run.batch_size,
        "train_examples": len(run.data.x_train),
        "test_examples": len(run.data.x_test),
        "classes": list(run.data.classes),
        "x_shape": list(run.data.x_shape),
        "layers": [row._asdict() for row in rows],
    }
