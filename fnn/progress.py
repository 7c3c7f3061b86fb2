"""How work goes, on standard error: a bar in a terminal; in a pipe, lines of a training."""

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

LINES = 10
"""Lines that a whole training prints into a pipe, about."""
SILENCE = 60.0
"""Seconds after which a long epoch says where it stands."""


class Bar:
    """A bar over all steps, with the loss as it is and the accuracy of the last evaluation."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}  test accuracy {task.fields[accuracy]}"),
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
        """Draw the bar, from `step` on."""
        self._per_epoch = steps_per_epoch
        self._task = self._progress.add_task(
            "",
            total=epochs * steps_per_epoch,
            completed=step,
            epoch=step // steps_per_epoch,
            epochs=epochs,
            loss="–",
            accuracy="–",
        )

    def steps(self, epoch: int, done: int, loss: float) -> None:
        """Move the bar: `done` steps of this epoch, with this mean loss."""
        completed = (epoch - 1) * self._per_epoch + done
        self._progress.update(self._task, completed=completed, epoch=epoch, loss=f"{loss:.4f}")

    def epoch(self, row: dict[str, Any]) -> None:
        """Show an epoch's evaluation."""
        self._progress.update(self._task, accuracy=f"{row['test_accuracy']:.2%}")


class Lines:
    """Now and then one plain line."""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *exception: object) -> None: ...

    def start(self, epochs: int, steps_per_epoch: int, step: int) -> None:
        """Note how much there is to do, and say where it begins, if not at the first step."""
        self._epochs, self._every = epochs, max(1, epochs // LINES)
        self._per_epoch, self._printed = steps_per_epoch, time.perf_counter()
        if step:
            self._print(f"from step {step} of {epochs * steps_per_epoch}")

    def steps(self, epoch: int, done: int, loss: float) -> None:
        """Print where a long epoch stands."""
        if time.perf_counter() - self._printed > SILENCE:
            self._print(
                f"epoch {epoch}/{self._epochs}  step {done}/{self._per_epoch}  "
                f"train loss {loss:.4f}"
            )

    def epoch(self, row: dict[str, Any]) -> None:
        """Print the epoch's line, if it is one of the few."""
        if row["epoch"] % self._every == 0 or row["epoch"] == self._epochs:
            left = row["seconds"] / row["epoch"] * (self._epochs - row["epoch"])
            self._print(
                f"epoch {row['epoch']}/{self._epochs}  train loss {row['train_loss']:.4f}  "
                f"test loss {row['test_loss']:.4f}  test accuracy {row['test_accuracy']:.2%}  "
                f"{left:.0f} s left"
            )

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        self._printed = time.perf_counter()


def progress() -> Bar | Lines:
    """Return what suits standard error."""
    return Bar() if sys.stderr.isatty() else Lines()


def each(names: Collection[str], doing: str) -> Iterator[str]:
    """Yield names, with a bar that says which is being done: `verifying relu`, 3/18."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as shown:
        task = shown.add_task(doing, total=len(names))
        for name in names:
            shown.update(task, description=f"{doing} {name}")
            yield name
            shown.advance(task)
