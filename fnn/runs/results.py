"""The files that a training leaves in its run folder once it has ended."""

from typing import Any

import numpy as np

from ..metrics import METRICS
from ..train.evaluate import Evaluation
from ..train.optimizer import evaluated_params
from ..train.precision import widen
from ..train.step import TrainState
from . import folder as files
from .history import History
from .prepare import Experiment

WORST, WORST_POINTS = 24, 2000
"""Test examples of largest loss in a run folder; points of the plane cost little."""


def model_arrays(state: TrainState) -> tuple[Any, Any]:
    """Return the parameters to save, in at least float32, and the layers' state."""
    return widen(evaluated_params(state)), state.layers


def write_results(
    experiment: Experiment,
    history: History,
    arrays: tuple[Any, Any],
    evaluation: Evaluation,
    outcome: dict[str, Any],
) -> dict[str, Any]:
    """Write parameters, predictions and, last, summary.json with `outcome`; return the summary."""
    params, layers = arrays
    folder, data, config = history.folder, experiment.data, history.config
    files.write_npz(folder / "parameters.npz", **files.named_arrays(params))
    if layers:
        files.write_npz(folder / "state.npz", **files.named_arrays(layers))
    count = WORST_POINTS if data.x_shape == (2,) else WORST
    worst = np.argsort(-evaluation.losses, kind="stable")[:count]
    files.write_npz(
        folder / "predictions.npz",
        y_true=data.y_test,
        y_pred=evaluation.decisions,
        scores=evaluation.scores,
        loss=evaluation.losses,
        worst_index=worst,
        worst_x=data.x_test[worst],
    )
    last = history.last
    summary = {
        "name": config.name,
        "status": history.status,
        "epochs": last["epoch"],
        "steps": last["step"],
        **{key: last[key] for key in METRICS},
        **outcome,
        "parameters": sum(row.parameters for row in experiment.layers),
        "gradient": config.gradient,
        "loss": config.loss.name,
        "batch_size": experiment.batch_size,
        "train_examples": len(data.x_train),
        "test_examples": len(data.x_test),
        "classes": list(data.classes),
        "x_shape": list(data.x_shape),
        "layers": [row._asdict() for row in experiment.layers],
    }
    files.write_json(folder / "summary.json", summary)
    return summary
