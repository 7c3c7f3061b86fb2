"""Runs that differ in numbers alone make one program; others make programs of their own."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...config import Config, parse
from ...errors import ConfigError
from ..run import Run, prepare
from .axes import Axes, Point
from .traced import is_traceable, kind


class Row(NamedTuple):
    """One run of a sweep."""

    number: int
    point: Point
    config: Config


@dataclass(frozen=True)
class Group:
    """Runs that one program trains together."""

    run: Run  # the first of them
    rows: tuple[Row, ...]
    traced: dict[str, np.ndarray]  # by key of the config: a value for each run (runs,)


class Base(NamedTuple):
    """What all runs of a sweep begin with: a config's text, and overrides."""

    text: str
    filename: str
    overrides: tuple[str, ...] = ()

    def config(self, point: Sequence[str] = ()) -> Config:
        """Return the config with one more override for each axis.

        Raises ConfigError as `fnn.config.load` does.
        """
        return parse(self.text, self.filename, (*self.overrides, *point))


def make_rows(base: Base, axes: Axes, points: Sequence[Point], first: int = 0) -> list[Row]:
    """Return a run for each point, numbered from `first`, its config checked.

    Raises ConfigError as a config with these overrides does, and for an axis that another axis
    leaves without effect.
    """
    rows = []
    for number, point in enumerate(points, first):
        words = [f"{axis.key}={value.text}" for axis, value in zip(axes, point, strict=True)]
        config = base.config(words)
        for axis, word in zip(axes, words, strict=True):
            if (place := config.where(axis.key.strip())) != f"override {word}":
                raise ConfigError(
                    f"sweep: {word} has no effect beside {place}; sweep one of them, or name "
                    "the wider key first"
                )
        rows.append(Row(number, point, config))
    return rows


def make_groups(axes: Axes, rows: Sequence[Row]) -> list[Group]:
    """Gather the runs into as few programs as there can be; load their data, check that all fit.

    Raises DataError and ConfigError as `prepare` does.
    """
    columns = list(zip(*(row.point for row in rows), strict=True))
    kinds = [
        kind(axis.key, [value.value for value in column])
        for axis, column in zip(axes, columns, strict=True)
    ]

    def shape(row: Row) -> tuple[Any, ...]:
        """What must be alike in a program: all but the numbers."""
        return tuple(
            "a number" if kind and _is_number(value.value) else value.text
            for kind, value in zip(kinds, row.point, strict=True)
        )

    groups: list[Group] = []
    for alike in _gathered(rows, shape):
        run = _prepared(alike[0].config, groups)
        traced: dict[int, np.ndarray] = {}
        for i, dtype in enumerate(kinds):
            values = [row.point[i].value for row in alike]
            if dtype is not None and _is_number(values[0]) and len(set(values)) > 1:
                tried = {**traced, i: np.array(values, dtype)}
                if is_traceable(run, {axes[j].key: column[0] for j, column in tried.items()}):
                    traced = tried
        groups += _split(axes, alike, run, traced)
    return groups


def _split(axes: Axes, rows: list[Row], run: Run, traced: dict[int, np.ndarray]) -> list[Group]:
    """Make a group for each combination of those values that the program cannot take."""

    def constants(row: Row) -> tuple[str, ...]:
        return tuple(value.text for i, value in enumerate(row.point) if i not in traced)

    groups: list[Group] = []
    position = {row.number: at for at, row in enumerate(rows)}
    for alike in _gathered(rows, constants):
        at = [position[row.number] for row in alike]
        columns = {axes[i].key: column[at] for i, column in traced.items()}
        first = run if alike[0] is rows[0] else _prepared(alike[0].config, [*groups])
        groups.append(Group(first, tuple(alike), columns))
    return groups


def _gathered(rows: Sequence[Row], key: Any) -> list[list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return list(found.values())


def _prepared(config: Config, groups: Sequence[Group]) -> Run:
    """Prepare a run; where one of the groups has the same data, they share it."""
    run = prepare(config)
    same = (group.run.data for group in groups if group.run.config.data == config.data)
    return replace(run, data=next(itertools.chain(same, [run.data])))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
