"""How a run goes, on standard error: a bar in a terminal, now and then a line in a pipe."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from .trial import CleanTrial, Trial

LINES = 10
"""Lines that a whole run prints into a pipe, about, besides one a survivor or false alarm."""


class Progress:
    """What is done of all tasks, how many mutants fell, and by name what ought not to be."""

    def __init__(self, total: int):
        self.total = total
        self.done = self.killed = self.survived = self.alarms = 0
        self.start = time.perf_counter()
        console = Console(stderr=True)
        self.bar = Bar(
            *(TextColumn("{task.description}"), BarColumn()),
            *(TimeElapsedColumn(), TextColumn("gone"), TimeRemainingColumn(), TextColumn("left")),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def step(self, trials: Sequence[Trial | CleanTrial]) -> None:
        """One task more is done, with these trials."""
        self.done += 1
        for trial in trials:
            self._count(trial)
        self.bar.update(self.task, completed=self.done, description=str(self))
        if self.bar.disable and self.done % max(1, self.total // LINES) == 0:
            seconds = time.perf_counter() - self.start
            self._say(f"{self.done}/{self.total} tasks in {seconds:.0f} s: {self}")

    def _count(self, trial: Trial | CleanTrial) -> None:
        if isinstance(trial, CleanTrial):
            if trial.alarm:
                self.alarms += 1
                self._say(f"false alarm: {trial.rule}, {trial.dtype}, seed {trial.seed}")
        elif not trial.equivalent:
            self.killed += trial.killed
            self.survived += not trial.killed
            if not trial.killed:
                self._say(f"survived: {trial.name}")

    def _say(self, line: str) -> None:
        if self.bar.disable:
            print(line, file=sys.stderr, flush=True)
        else:
            self.bar.console.print(line, markup=False, highlight=False)

    def __str__(self) -> str:
        return f"{self.killed} killed, {self.survived} survived, {self.alarms} false alarms"
