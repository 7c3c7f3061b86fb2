"""What a training leaves in its run folder once it has ended, however it ended."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from . import folder as files
from .fit import Fit
from .optimizer import evaluated_params
from .plan import layer_table

WORST, WORST_POINTS = 24, 2000
"""Test examples of largest loss that a run folder keeps; points of the plane cost little."""


def write_results(fit: Fit, folder: Path) -> None:
    """Write what was learnt, and what it says of the test examples."""
    learnt = evaluated_params(fit.state), fit.state.layers
    params, layers = fit.run.placement.whole(learnt)
    files.write_npz(folder / "parameters.npz", **files.named_arrays(params))
    if layers:
        files.write_npz(folder / "state.npz", **files.named_arrays(layers))
    data, found = fit.run.data, fit.evaluation
    assert found is not None
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


def summary(fit: Fit, started: float) -> dict[str, Any]:
    """Return what `summary.json` says; its seconds, counted from `started`, are yet to come."""
    run, last = fit.run, fit.last
    rows = layer_table(run.model, run.x_shape)
    return {
        "name": run.config.name,
        "status": fit.status,
        "epochs": last["epoch"],
        "steps": last["step"],
        **{key: last[key] for key in ("train_loss", "test_loss", "test_accuracy")},
        "seconds_to_first_step": fit.first_step_at - started,
        "seconds": math.nan,
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
