"""The history of one run: its position, its rows of metrics, and why it ended."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Config
from ..config.training import Converge, EarlyStopping
from ..metrics import METRICS, measured
from ..train.distributed import is_first
from ..train.evaluate import Evaluation
from ..train.feed import Position
from . import folder as files

Rows = Sequence[Mapping[str, Any]]


@dataclass(eq=False)
class History:
    """The position of a run, its metrics so far, and its status."""

    config: Config
    folder: Path
    steps_per_epoch: int
    position: Position = field(default_factory=Position)
    rows: list[dict[str, Any]] = field(default_factory=list)  # of metrics.jsonl
    last: dict[str, Any] = field(default_factory=dict)  # the last evaluation
    status: str = "completed"  # so far, or why the run ended early

    @property
    def metrics(self) -> Path:
        """The file of the rows."""
        return self.folder / "metrics.jsonl"

    @property
    def step(self) -> int:
        """The number of steps done, including those that `on_nan` skipped."""
        return self.position.step(self.steps_per_epoch)

    @property
    def is_active(self) -> bool:
        """Whether the run has steps to take."""
        return self.status == "completed" and self.position.epoch <= self.config.train.epochs

    @property
    def is_evaluated(self) -> bool:
        """Whether the last evaluation is that of the present position."""
        return self.last.get("step") == self.step

    @property
    def score(self) -> float:
        """The last value of the metric that ranks checkpoints; smaller is better."""
        metric = self.config.checkpoint.metric
        return METRICS[metric].cost(self.last[metric])

    def record(self, evaluation: Evaluation, labels: np.ndarray, seconds: float) -> bool:
        """Record an evaluation; at an epoch's end, begin the next one and return True.

        An evaluation within an epoch becomes a row of metrics.jsonl only if the run diverged.
        """
        diverged = self.status == "diverged"
        self.last = {
            "epoch": self.position.epoch,
            "step": self.step,
            "train_loss": math.nan if diverged else self.position.mean(),
            **measured(evaluation, labels),
            "seconds": seconds,
        }
        is_end = self.position.done == self.steps_per_epoch
        if not is_end and not diverged:
            return False
        self.rows.append(self.last)
        files.append_metrics(self.metrics, self.last)
        if diverged:
            return False
        self.position = self.position.carry(self.steps_per_epoch)
        self.status = status_after(self.config, self.rows)
        return True

    def as_metadata(self) -> dict[str, Any]:
        """Return what a checkpoint needs to restore the history."""
        return {
            "position": self.position.as_json(),
            "status": "completed" if self.status == "interrupted" else self.status,
            "metrics_bytes": self.metrics.stat().st_size if self.rows and is_first() else 0,
        }

    def begin(self, metadata: Mapping[str, Any] | None) -> None:
        """Begin at the first step, or continue from the metadata of a checkpoint.

        Rows that the checkpoint does not know are cut off the file.
        """
        octets = 0
        if metadata is not None:
            self.position, octets = (
                Position.from_json(metadata["position"]),
                metadata["metrics_bytes"],
            )
        if octets:
            self.rows = files.read_metrics(self.metrics, octets)
            self.last = self.rows[-1]
        elif is_first():
            self.metrics.unlink(missing_ok=True)
        diverged = metadata is not None and metadata.get("status") == "diverged"
        self.status = "diverged" if diverged else status_after(self.config, self.rows)


def status_after(config: Config, rows: Rows) -> str:
    """Return `completed` if training may continue after these rows, or the reason to stop."""
    if rows and math.isnan(rows[-1]["train_loss"]):  # every step was left out
        return "diverged"
    if has_converged(rows, config.train.converge):
        return "converged"
    if stops_early(rows, config.train.early_stopping):
        return "early_stopped"
    return "completed"


def has_converged(rows: Rows, rule: Converge | None) -> bool:
    """Return whether the training loss changed by less than epsilon over the rule's window."""
    if rule is None or len(rows) <= rule.window:
        return False
    losses = [METRICS["train_loss"].cost(row["train_loss"]) for row in rows[-1 - rule.window :]]
    return abs(losses[-1] - losses[0]) < rule.epsilon


def stops_early(rows: Rows, rule: EarlyStopping | None) -> bool:
    """Return whether the last `patience` epochs were no better than the epochs before them."""
    if rule is None or len(rows) <= rule.patience:
        return False
    costs = [METRICS[rule.metric].cost(row[rule.metric]) for row in rows]
    return not min(costs[-rule.patience :]) < min(costs[: -rule.patience]) - rule.min_delta
