"""Training a sweep in its folder: points are proposed, gathered into programs, and trained.

config.yaml       the config of all runs       sweep.yaml       the axes, and how they are tried
results.jsonl     the result of each run       environment.json versions, device, commit
runs/003/         a run folder per run         checkpoints/     of programs that have not ended

A run that diverges or stands still keeps its state while the others continue. Its folder holds
the files that `fnn run` would have left there.
"""

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml

from .. import config as configs
from ..metrics import METRICS
from ..runs import checkpoint as checkpoints
from ..runs import folder as files
from ..runs.checkpoint import Checkpoints
from ..runs.history import History
from ..runs.loop import Loop, Progress, Silent
from ..runs.process import stoppable
from ..runs.results import model_arrays, write_results
from ..train.evaluate import Evaluation
from ..train.feed import Chunk, Position
from .axes import Point
from .groups import Group, SweepRun, make_groups, make_rows
from .points import Plan
from .program import Program

RESULT = ("status", "epochs", "steps", *METRICS)
"""The fields of a run's summary.json that the sweep's results repeat."""


class Ready:
    """A sweep that is ready to start: its first runs are checked, and their data loaded."""

    groups: list[Group]

    def __init__(self, plan: Plan) -> None:
        """Raise ConfigError or DataError for a mistake in one of the runs."""
        self.plan, self.axes, self.config = plan, plan.axes, plan.base.config()
        self.proposals = plan.proposals()
        self._gather(next(self.proposals), 0)

    def advance(self, results: list[dict[str, Any]]) -> bool:
        """Propose the next runs, given all results so far; return whether there are any."""
        scores = [self.plan.score(result) for result in results[-len(self.rows) :]]
        try:
            self._gather(self.proposals.send(scores), len(results))
        except StopIteration:
            return False
        return True

    def _gather(self, points: list[Point], first: int) -> None:
        self.rows = make_rows(self.plan.base, self.axes, points, first)
        self.groups = make_groups(self.rows)


def sweep(
    ready: Ready, folder: Path, progress: Progress | None = None, started: float | None = None
) -> dict[str, Any]:
    """Train all runs, and leave in `folder` all that the report shows; return a summary.

    Runs that the folder already holds are not repeated: a sweep that was stopped continues from
    its last checkpoint, with the numbers of an uninterrupted one.

    Raises FnnError if another process trains the sweep, or the folder cannot be written in.
    """
    started = time.perf_counter() if started is None else started
    plan = ready.plan
    results: list[dict[str, Any]] = []
    programs, earlier = 0, 0.0
    with files.locked(folder), stoppable() as stop_requested:
        if not (folder / "environment.json").exists():  # the last file of the plan
            fields = {"axes": list(plan.words), "random": plan.random, "optuna": plan.optuna}
            text = yaml.safe_dump({**fields, "by": plan.by}, sort_keys=False)
            files.write_text(folder / "sweep.yaml", text)
            files.write_text(folder / "config.yaml", configs.dump(ready.config))
            files.write_json(folder / "environment.json", files.environment(ready.config.seed))
        while True:
            new: list[dict[str, Any]] = []
            for group in ready.groups:
                if not stop_requested():
                    observer = progress or Silent()
                    earlier += _train(group, folder, observer, stop_requested, started)
                    programs += 1
                new = _results(folder, ready.rows)
                lines = [json.dumps(result) + "\n" for result in results + new]
                files.write_text(folder / "results.jsonl", "".join(lines))
            results += new
            if stop_requested() or not ready.advance(results):
                break
        good = [result for result in results if math.isfinite(plan.score(result))]
        summary = {
            "name": ready.config.name,
            "status": "interrupted" if stop_requested() else "completed",
            "runs": len(results),
            "programs": programs,
            "diverged": sum(result["status"] == "diverged" for result in results),
            "by": plan.by,
            "best": min(good, key=plan.score, default=None),
            "seconds": earlier + time.perf_counter() - started,
        }
        files.write_json(folder / "summary.json", summary)
        return summary | {"signal": stop_requested()}


def _train(
    group: Group,
    folder: Path,
    progress: Progress,
    stop_requested: Callable[[], int],
    started: float,
) -> float:
    """Train a group's runs, or resume them, until they end or a stop is requested.

    Returns the seconds that they took in earlier processes.
    """
    ended = [r for r in _results(folder, group.rows) if r["status"] != "interrupted"]
    where = folder / "checkpoints" / f"{group.rows[0].number:03}"
    if len(ended) == len(group.rows):
        shutil.rmtree(where, ignore_errors=True)  # a kill may have come before its deletion
        first = _run_folder(folder, group.rows[0]) / "summary.json"
        return float(json.loads(first.read_bytes())["seconds"])
    where.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Checkpoints(where)) as writer:
        fit = SweepFit(group, folder, writer, progress, stop_requested)
        fit.train()
        fit.write(started)
    if not stop_requested():
        shutil.rmtree(where)
    return fit.earlier_seconds


class SweepFit(Loop):
    """The training of one group, from its first step or from a checkpoint."""

    def __init__(
        self,
        group: Group,
        folder: Path,
        writer: Checkpoints,
        progress: Progress,
        stop_requested: Callable[[], int],
    ) -> None:
        """Compile nothing yet; restore the checkpoint in the folder, if there is one."""
        per_epoch = group.experiment.steps_per_epoch
        histories = [History(row.config, _run_folder(folder, row), per_epoch) for row in group.rows]
        super().__init__(group.experiment, histories, writer, progress, stop_requested)
        self.program = Program(group)
        checkpoint = checkpoints.latest(writer.folder)
        if checkpoint is None:
            for history in histories:
                history.folder.mkdir(parents=True, exist_ok=True)
                files.write_text(history.folder / "config.yaml", configs.dump(history.config))
        self.begin(self.program.init(), checkpoint)

    def chunks(self, start: Position) -> Generator[Chunk]:
        """Return an iterator over the chunks (1 or places, steps, batch size) from a position."""
        return self.program.feed.chunks(self.experiment.cuts(start, order=self.program.orders))

    def take(self, chunk: Chunk, active: Sequence[History]) -> jax.Array:
        """Take the steps of a chunk in the active runs; return the losses (places, steps)."""
        mask = np.zeros(self.program.places, bool)
        mask[[self.histories.index(history) for history in active]] = True
        self.state, losses = self.program.steps(self.state, mask, chunk.batches)
        return losses

    def evaluate(self) -> Evaluation:
        """Evaluate the present state of all runs: arrays (places, n, ...)."""
        return self.program.evaluate(self.state)

    def metadata(self) -> dict[str, Any]:
        """Return the plain JSON that goes into a checkpoint."""
        runs = [history.as_metadata() for history in self.histories]
        return {"runs": runs, "seconds": self.seconds}

    def write(self, started: float) -> None:
        """Write the results of each run; its summary, which marks it as complete, last."""
        assert self.evaluation is not None
        environment = files.environment(self.experiment.config.seed)
        arrays = jax.device_get((model_arrays(self.state), self.evaluation, self.state.skipped))
        for i, history in enumerate(self.histories):
            own, evaluation, skipped = jax.tree.map(lambda a, i=i: a[i], arrays)
            environment["seed"] = history.config.seed
            files.write_json(history.folder / "environment.json", environment)
            outcome = {
                "skipped_steps": int(skipped),
                "seconds_to_first_step": self.first_step_at - started,
                "seconds": self.seconds,
            }
            write_results(self.experiment, history, own, evaluation, outcome)


def _run_folder(folder: Path, row: SweepRun) -> Path:
    return folder / "runs" / f"{row.number:03}"


def _results(folder: Path, rows: Sequence[SweepRun]) -> list[dict[str, Any]]:
    """Return the results of these runs; runs that were not started have none."""
    results = []
    for row in rows:
        file = _run_folder(folder, row) / "summary.json"
        try:
            summary = json.loads(file.read_bytes())
        except (FileNotFoundError, ValueError):  # ValueError: damaged, so trained again
            continue
        values = {key: value.value for key, value in row.values.items()}
        place = {"run": row.number, "folder": f"runs/{file.parent.name}", "values": values}
        results.append(place | {key: summary[key] for key in RESULT})
    return results


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return one result per run that was started, in their order."""
    lines = (folder / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
