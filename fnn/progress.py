"""Progress on standard error: a bar in a terminal, lines in a pipe."""

import sys
import time
from collections.abc import Collection, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .metrics import METRICS

LINES = 10
"""The approximate number of lines that a run prints into a pipe."""
SILENCE = 60.0
"""Seconds without a line after which a long epoch prints its position."""


class Bar:
    """A bar over all steps, with the current loss and the accuracy of the last evaluation."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[accuracy]}"),
            TimeElapsedColumn(),
            TextColumn("gone"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(stderr=True),
        )

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def start(self, epochs: int, steps_per_epoch: int, step: int) -> None:
        """Draw the bar, which starts at `step`."""
        self._per_epoch = steps_per_epoch
        self._task = self._progress.add_task(
            "",
            total=epochs * steps_per_epoch,
            completed=step,
            epoch=step // steps_per_epoch,
            epochs=epochs,
            loss="–",
            accuracy=f"{METRICS['test_accuracy'].label} –",
        )

    def steps(self, epoch: int, done: int, loss: float) -> None:
        """Move the bar: `done` steps of this epoch have this mean loss."""
        completed = (epoch - 1) * self._per_epoch + done
        self._progress.update(self._task, completed=completed, epoch=epoch, loss=f"{loss:.4f}")

    def epoch(self, row: dict[str, Any]) -> None:
        """Show an epoch's evaluation."""
        accuracy = METRICS["test_accuracy"].text(row["test_accuracy"])
        self._progress.update(self._task, accuracy=accuracy)


class Lines:
    """A plain line from time to time."""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *exception: object) -> None: ...

    def start(self, epochs: int, steps_per_epoch: int, step: int) -> None:
        """Record the length of the run; print the first step if it is not 0."""
        self._epochs, self._every = epochs, max(1, epochs // LINES)
        self._per_epoch, self._last_line_at = steps_per_epoch, time.perf_counter()
        if step:
            self._print(f"from step {step} of {epochs * steps_per_epoch}")

    def steps(self, epoch: int, done: int, loss: float) -> None:
        """Print the position in a long epoch."""
        if time.perf_counter() - self._last_line_at > SILENCE:
            self._print(
                f"epoch {epoch}/{self._epochs}  step {done}/{self._per_epoch}  "
                f"{METRICS['train_loss'].text(loss)}"
            )

    def epoch(self, row: dict[str, Any]) -> None:
        """Print the line of an epoch, if it has one."""
        if row["epoch"] % self._every == 0 or row["epoch"] == self._epochs:
            seconds = row["seconds"] / row["epoch"] * (self._epochs - row["epoch"])
            self._print(
                f"epoch {row['epoch']}/{self._epochs}  "
                + "".join(f"{metric.text(row[name])}  " for name, metric in METRICS.items())
                + f"{seconds:.0f} s left"
            )

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        self._last_line_at = time.perf_counter()


def progress() -> Bar | Lines:
    """Return a bar for a terminal, and lines for anything else."""
    return Bar() if sys.stderr.isatty() else Lines()


def each(names: Collection[str], doing: str) -> Iterator[str]:
    """Yield the names, with a bar that shows the current one: `verifying relu`, 3/18."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task(doing, total=len(names))
        for name in names:
            bar.update(task, description=f"{doing} {name}")
            yield name
            bar.advance(task)
