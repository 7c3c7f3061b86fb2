"""The runs of one program under way: compiled calls of steps, evaluations, a checkpoint of all.

A run that diverges or stands still is left as it is, and the others go on. Each leaves in a folder
of its own what `fnn run` would have left there.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ... import config as configs
from .. import checkpoint as checkpoints
from .. import folder as files
from ..checkpoint import Checkpoint, Checkpoints
from ..evaluate import Evaluation
from ..fit import Progress, status_after
from ..position import Position, cut_epoch
from ..results import learnt, summary, write_results
from .groups import Group, Row
from .program import Program

RESULT = ("status", "epochs", "steps", "train_loss", "test_loss", "test_accuracy")
"""Of a run's summary.json, what the sweep's results repeat."""


@dataclasses.dataclass
class Log:
    """What is known of one run: where it stands, its metrics, and how it ended."""

    row: Row
    folder: Path
    at: Position = dataclasses.field(default_factory=Position)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # of metrics.jsonl
    last: dict[str, Any] = dataclasses.field(default_factory=dict)  # the last evaluation
    status: str = "completed"  # so far

    @property
    def metrics(self) -> Path:
        """The file that the rows go into."""
        return self.folder / "metrics.jsonl"


class SweepFit:
    """The training of one group, from its first step or from a checkpoint."""

    def __init__(
        self,
        group: Group,
        folder: Path,
        saved: Checkpoints,
        progress: Progress,
        asked: Callable[[], int],
    ) -> None:
        """Compile nothing yet; take up the checkpoint in the folder, if there is one."""
        self.run, self.saved, self.progress, self.asked = group.run, saved, progress, asked
        self.longest = group.run.steps_per_call
        self.logs = [Log(row, run_folder(folder, row)) for row in group.rows]
        self.program = Program(group)
        self.state, self.before = self.program.init(), 0.0
        self.evaluation: Evaluation | None = None
        found = checkpoints.latest(saved.folder)
        if found is None:
            for log in self.logs:
                log.folder.mkdir(parents=True, exist_ok=True)
                files.write_text(log.folder / "config.yaml", configs.dump(log.row.config))
                log.metrics.unlink(missing_ok=True)
        else:
            self._restore(found)
        self.begun = self.saved_at = time.perf_counter()
        self.saved_step, self.first_step_at = self.step, math.nan

    @property
    def going(self) -> list[Log]:
        """The runs that have not ended. All have taken the same steps."""
        epochs = self.run.config.train.epochs
        return [log for log in self.logs if log.status == "completed" and log.at.epoch <= epochs]

    @property
    def step(self) -> int:
        """How many steps were taken."""
        return max(log.at.step(self.run.steps_per_epoch) for log in self.logs)

    @property
    def seconds(self) -> float:
        """How long training has taken, before it was resumed and since."""
        return self.before + time.perf_counter() - self.begun

    def train(self) -> None:
        """Train until every run has ended, or until told to stop; save where they are."""
        config = self.run.config
        self.progress.start(config.train.epochs, self.run.steps_per_epoch, self.step)
        while (going := self.going) and not self.asked():
            self._steps(going)
            self._evaluate()
            if self._is_due():
                self._save()
        if self.evaluation is None:  # all had ended when it was resumed, or it was stopped at once
            self._evaluate()
        for log in self.going:
            log.status = "interrupted"
        if self.step != self.saved_step:
            self._save()
        self.saved.wait()

    def _steps(self, going: list[Log]) -> None:
        """Take the steps that are left of the present epoch, or as many as are wanted."""
        at, run = going[0].at, self.run
        orders = self.program.orders(at.epoch)
        places = np.arange(orders.shape[1])
        for cut in cut_epoch(places, run.batch_size, at.done, self.longest):
            going = [log for log in going if log.status == "completed"]
            if not going or self.asked():
                return
            batches = orders[:, cut]
            self.state, found = self.program.steps(self.state, self._active(going), batches)
            losses = np.asarray(found)
            if math.isnan(self.first_step_at):
                self.first_step_at = time.perf_counter()
            for log in going:
                own = losses[self.logs.index(log)]
                log.at = log.at.after(cut, own)
                if run.config.train.on_nan == "stop" and not np.isfinite(own).all():
                    log.status = "diverged"
            best = min((log.at.mean() for log in going if log.at.seen), default=math.nan)
            self.progress.steps(at.epoch, going[0].at.done, best)
            if self._is_due() and going[0].at.done < run.steps_per_epoch:
                self._save()

    def _active(self, logs: list[Log]) -> np.ndarray:
        """Which places (places,) hold one of these runs."""
        active = np.zeros(self.program.places, bool)
        active[[self.logs.index(log) for log in logs]] = True
        return active

    def _evaluate(self) -> None:
        """Evaluate all as they are; note the metrics of those that took steps since the last."""
        an_epoch = self.run.steps_per_epoch
        moved = [log for log in self.logs if log.last.get("step") != log.at.step(an_epoch)]
        self.evaluation = self.program.evaluate(self.state)
        losses, decisions = map(np.asarray, self.evaluation[1:])
        for log in moved:
            i = self.logs.index(log)
            found = Evaluation(losses[i], losses[i], decisions[i])
            log.last = {
                "epoch": log.at.epoch,
                "step": log.at.step(an_epoch),
                "train_loss": math.nan if log.status == "diverged" else log.at.mean(),
                "test_loss": found.loss(),
                "test_accuracy": found.accuracy(self.run.data.y_test),
                "seconds": self.seconds,
            }
            if log.status == "completed" and log.at.done < an_epoch:
                continue  # told to stop
            log.rows.append(log.last)
            files.append_metrics(log.metrics, log.last)
            if log.status == "completed":
                log.at = Position(log.at.epoch + 1)
                log.status = status_after(self.run.config, log.rows)
        shown = [log.last for log in moved if math.isfinite(log.last["test_loss"])]
        if shown:
            self.progress.epoch(min(shown, key=lambda row: row["test_loss"]))

    def write(self, started: float) -> None:
        """Write what each run has come to; its summary, which says that it is whole, last."""
        assert self.evaluation is not None
        environment = files.environment(self.run.config.seed)
        everything = jax.device_get((learnt(self.state), self.evaluation, self.state.skipped))
        for i, log in enumerate(self.logs):
            own, evaluation, skipped = jax.tree.map(lambda a, i=i: a[i], everything)
            run = dataclasses.replace(self.run, config=log.row.config)
            write_results(log.folder, run.data, own, evaluation)
            files.write_json(
                log.folder / "environment.json", environment | {"seed": run.config.seed}
            )
            to_first_step = self.first_step_at - started
            found = summary(run, log.last, log.status, int(skipped), to_first_step)
            found["seconds"] = self.seconds
            files.write_json(log.folder / "summary.json", found)

    def _is_due(self) -> bool:
        rule, seconds = self.run.config.checkpoint, time.perf_counter() - self.saved_at
        return rule.is_due(self.step, self.saved_step, seconds)

    def _save(self) -> None:
        runs = [
            {
                "position": log.at.as_json(),
                "status": "completed" if log.status == "interrupted" else log.status,
                "metrics_bytes": log.metrics.stat().st_size if log.rows else 0,
            }
            for log in self.logs
        ]
        written = tuple(log.metrics for log in self.logs if log.rows)
        meta = {"runs": runs, "seconds": self.seconds}
        self.saved.save(self.state, self.step, meta, flush=written)
        self.saved_step, self.saved_at = self.step, time.perf_counter()

    def _restore(self, found: Checkpoint) -> None:
        self.state = checkpoints.restore(found, self.state)
        for log, told in zip(self.logs, found.metadata["runs"], strict=True):
            log.at, log.status = Position(**told["position"]), told["status"]
            if octets := told["metrics_bytes"]:
                log.rows = files.read_metrics(log.metrics, octets)
                log.last = log.rows[-1]
            else:
                log.metrics.unlink(missing_ok=True)
        self.before = found.metadata["seconds"]


def run_folder(folder: Path, row: Row) -> Path:
    """Return the folder of one run of a sweep."""
    return folder / "runs" / f"{row.number:03}"


def checkpoint_folder(folder: Path, group: Group) -> Path:
    """Return the folder of a group's checkpoints, which is there until all its runs have ended."""
    return folder / "checkpoints" / f"{group.rows[0].number:03}"


def results(folder: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return what these runs have come to: of those that were not started, nothing."""
    found = []
    for row in rows:
        where = run_folder(folder, row)
        try:
            told = json.loads((where / "summary.json").read_bytes())
        except (FileNotFoundError, ValueError):  # ValueError: damaged, so trained again
            continue
        said = {key: value.value for key, value in row.values.items()}
        ended = {key: told[key] for key in RESULT}
        found.append({"run": row.number, "folder": f"runs/{where.name}", "values": said, **ended})
    return found
