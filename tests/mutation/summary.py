"""The summary of all trials, printed: rates, survivors, false alarms, other checkers, times."""

import sys
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .trial import Trial

KILL_BAR = 0.995
"""The share of the faults that the verifier must reject."""
NAME_BAR = 0.95
"""The share of those that it must call by a right name."""


class Summary:
    """The trials sorted by verdict."""

    def __init__(self, trials: Sequence[Trial]):
        self.trials = sorted(trials)
        self.faults = [t for t in self.trials if t.is_fault]
        self.kills = [t for t in self.faults if t.is_killed]
        self.survivors = [t for t in self.faults if t.is_survivor]
        self.right_names = [t for t in self.kills if t.is_named]
        self.equivalents = [t for t in self.trials if t.operator and not t.is_fault]
        self.correct = [t for t in self.trials if not t.operator and not t.unsupported]
        self.false_alarms = [t for t in self.trials if t.is_false_alarm]

    @property
    def ok(self) -> bool:
        """Whether the bars are met and there is no false alarm."""
        return (
            len(self.kills) >= KILL_BAR * len(self.faults)
            and len(self.right_names) >= NAME_BAR * len(self.kills)
            and not self.false_alarms
        )

    @property
    def verdict(self) -> str:
        """The summary in one line."""
        return (
            f"{len(self.faults):,} mutants, {len(self.equivalents):,} more that are equivalent: "
            f"{_percent(len(self.kills), len(self.faults))} killed (bar {100 * KILL_BAR} %), "
            f"{_percent(len(self.right_names), len(self.kills))} of these by a right name "
            f"(bar {100 * NAME_BAR} %); correct rules, {len(self.correct):,} runs: "
            f"{len(self.false_alarms):,} false alarms: {'ok' if self.ok else 'FAILED'}"
        )

    def show(self, jobs: int) -> None:
        """Print everything, the verdict last."""
        self._show_operators()
        _list("survivors", [_with_error(t, t.name) for t in self.survivors])
        _list(
            "killed under another name",
            [
                f"{t.name}: {', '.join(t.defects)}; it is {' or '.join(sorted(t.right_names))}"
                for t in self.kills
                if not t.is_named
            ],
        )
        _list("equivalent: no fault", [f"{t.name}: {t.equivalence}" for t in self.equivalents])
        _list("false alarms", [_with_error(t, f"{t.name} {t.report}") for t in self.false_alarms])
        _list(
            "not verified, for the definition itself fails",
            [f"{t.name}: {t.unsupported}" for t in self.trials if t.unsupported],
        )
        _show_rivals("mutants killed, by checker", "defects", self.faults, lambda t: t.group)
        _show_rivals("correct rules rejected", "dtype", self.correct, lambda t: t.dtype)
        self._show_seconds(jobs)
        print(self.verdict)

    def _show_operators(self) -> None:
        rows = []
        for operator, trials in _by(lambda t: t.operator, self.faults).items():
            kills, names = sum(t.is_killed for t in trials), sum(t.is_named for t in trials)
            rows.append((operator, trials[0].group, f"{kills}", f"{len(trials)}", f"{names}"))
        _table("mutants by operator", ("operator", "defects", "killed", "of", "right name"), rows)

    def _show_seconds(self, jobs: int) -> None:
        timed = [t.seconds for t in self.correct if len(t.seconds) == 2]
        times = {
            "a rule, cold": [cold for cold, _ in timed],
            "a rule, warm": [warm for _, warm in timed],
            "a mutant": [sum(t.seconds) for t in self.trials if t.operator and t.seconds],
        }
        for name, seconds in times.items():
            if seconds:
                median, most = np.median(seconds), np.quantile(seconds, 0.95)
                print(f"{name}: median {median:.2f} s, 95 % within {most:.2f} s")
        if jobs > 1:
            print(f"(timed with {jobs} processes side by side)")


def _show_rivals(
    title: str, first: str, trials: Sequence[Trial], group: Callable[[Trial], str]
) -> None:
    """Print the share of the trials that each checker rejects, by group."""
    trials = [t for t in trials if t.rivals]
    rivals = tuple(trials[0].rivals) if trials else ()
    rows = []
    for name, members in [*_by(group, trials).items(), ("all", trials)] if trials else ():
        counts = [sum(t.is_killed for t in members)]
        counts += [sum(t.rivals[rival] for t in members) for rival in rivals]
        rows.append((name, f"{len(members):,}", *(_percent(n, len(members)) for n in counts)))
    _table(title, (first, "of", "fnn.verify", *rivals), rows)


def _by(key: Callable[[Trial], str], trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(key(trial), []).append(trial)
    return groups


def _percent(part: int, whole: int) -> str:
    """Return a share, never rounded up to the whole or down to nothing."""
    if not whole:
        return "–"
    share = int(1000 * part / whole) / 10
    return f"{share:.1f} %" if share or not part else "< 0.1 %"


def _with_error(trial: Trial, text: str) -> str:
    return f"{text} (error: {trial.error})" if trial.error else text


def _list(title: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"{title}: {len(lines):,}", *lines, sep="\n  ")


def _table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table, if it has rows."""
    if not rows:
        return
    table = Table()
    for column, name in enumerate(header):
        is_number = all(row[column][:1] in "–<0123456789" for row in rows)
        table.add_column(name, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    print(title)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
