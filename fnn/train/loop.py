"""Training in a run folder: from the first step, or from where it was stopped.

run = prepare(config)              everything is checked before anything is written
summary = train(run, folder)
summary = resume(run, folder)      after whatever ended it: the same numbers as without
"""

import contextlib
import time
from pathlib import Path
from typing import Any

from .. import config as configs
from ..errors import FnnError
from . import checkpoint as checkpoints
from . import distributed
from . import folder as files
from .changes import check_position
from .checkpoint import Checkpoint, Checkpoints
from .comparison import compare_run
from .fit import Fit, Progress, Silent
from .results import learnt, summary, write_results
from .run import Experiment
from .signals import stoppable


def train(
    run: Experiment, folder: Path, progress: Progress | None = None, started: float | None = None
) -> dict[str, Any]:
    """Train, and leave in `folder` all that the report shows; return its summary.

    Ctrl-C and SIGTERM end training after the compiled call under way, with a checkpoint. `started`
    (of `time.perf_counter`) is what the seconds of the summary count from.

    Raises FnnError where another process trains in the folder, or it cannot be written in, or
    where it has the checkpoints of a training.
    """
    with files.locked(folder):
        if (found := checkpoints.latest(folder / "checkpoints")) is not None:
            raise FnnError(
                f"{folder} holds a training that has come to step {found.step}; resume it, or "
                "train in another folder"
            )
        files.write_json(folder / "environment.json", files.environment(run.config.seed))
        return _train(run, folder, None, progress, started)


def resume(
    run: Experiment, folder: Path, progress: Progress | None = None, started: float | None = None
) -> dict[str, Any]:
    """Go on from the last checkpoint in `folder`, or from the first step where there is none.

    On one machine, all numbers to come are those of a training that was never stopped. See `train`.

    Raises FnnError where a checkpoint is damaged, or holds the state of another model.
    """
    with files.locked(folder):
        found = checkpoints.latest(folder / "checkpoints")
        if found is not None:
            check_position(run, found)
        return _train(run, folder, found, progress, started)


def _train(
    run: Experiment,
    folder: Path,
    saved: Checkpoint | None,
    progress: Progress | None,
    started: float | None,
) -> dict[str, Any]:
    started = time.perf_counter() if started is None else started
    rule = run.config.checkpoint
    written = Checkpoints(folder / "checkpoints", rule.keep_last, rule.keep_best)
    with stoppable() as asked, contextlib.closing(written):
        if saved is None:
            files.write_text(folder / "config.yaml", configs.dump(run.config))
        fit = Fit(run, folder, written, saved, progress or Silent(), asked)
        if saved is not None:  # and its state fits the config, which may have changed
            files.write_text(folder / "config.yaml", configs.dump(run.config))
        fit.train()
        assert fit.evaluation is not None
        write_results(folder, run.data, run.placement.whole(learnt(fit.state)), fit.evaluation)
        skipped, to_first_step = int(fit.state.skipped), fit.first_step_at - started
        result = summary(run, fit.last, fit.status, skipped, to_first_step)
        result["seconds"] = fit.before + time.perf_counter() - started
        if fit.nonfinite is not None:
            result["first_nonfinite"] = fit.nonfinite
        files.write_json(folder / "summary.json", result)
        if run.config.compare and fit.status != "interrupted" and distributed.is_first():
            files.write_json(folder / "comparison.json", compare_run(run))
    return result | {"signal": asked()}
