"""Runs that differ in numbers alone make one program; others make programs of their own."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...config import Config, parse
from ...config.choice import plain
from ...config.origin import split
from ...errors import ConfigError
from ..run import Experiment, prepare
from .axes import Axes, Point, Value
from .traced import argument_dtype, is_traceable, keeps_types


class Row(NamedTuple):
    """One run of a sweep."""

    number: int
    values: Mapping[str, Value]  # by key of the config
    config: Config


@dataclass(frozen=True)
class Group:
    """Runs that one program trains together."""

    run: Experiment  # the first of them
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
        values = {axis.key: value for axis, value in zip(axes, point, strict=True)}
        words = {key: f"{key}={value.text}" for key, value in values.items()}
        config = base.config(tuple(words.values()))
        said = plain(config.model_dump())
        for key, word in words.items():
            if not _holds(said, key) or config.where(key) != f"override {word}":
                raise ConfigError(
                    f"sweep: {word} has no effect beside {' '.join({*words.values()} - {word})}; "
                    "leave one of them out, or name the wider key first"
                )
        rows.append(Row(number, values, config))
    return rows


def _holds(said: Any, key: str) -> bool:
    """Whether there is something at this key of a config; a name may stand without arguments."""
    for part in split(key):
        if said == part:
            return True
        try:
            said = said[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def make_groups(rows: Sequence[Row]) -> list[Group]:
    """Gather the runs into as few programs as there can be; load their data, check that all fit.

    Raises DataError and ConfigError as `prepare` does.
    """
    dtypes = {
        key: dtype
        for key in rows[0].values
        if (dtype := argument_dtype(key, [row.values[key].value for row in rows])) is not None
    }

    def shape(row: Row) -> tuple[str, ...]:
        """What must be alike in a program: all but the numbers."""
        return tuple(
            "a number" if key in dtypes and _is_number(value.value) else value.text
            for key, value in row.values.items()
        )

    groups: list[Group] = []
    for alike in _gathered(rows, shape):
        run = _prepared(alike[0].config, groups)
        traced: dict[str, np.ndarray] = {}
        for key, dtype in dtypes.items():
            values = [row.values[key].value for row in alike]
            if len(set(values)) > 1 and keeps_types(run.config.precision, key):
                tried = {**traced, key: np.array(values, dtype)}
                if is_traceable(run, {key: column[0] for key, column in tried.items()}):
                    traced = tried
        groups += _split(alike, run, traced)
    return groups


def _split(rows: list[Row], run: Experiment, traced: Mapping[str, np.ndarray]) -> list[Group]:
    """Make a group for each combination of those values that the program cannot take."""

    def constants(row: Row) -> tuple[str, ...]:
        return tuple(value.text for key, value in row.values.items() if key not in traced)

    groups: list[Group] = []
    places = {row.number: place for place, row in enumerate(rows)}
    for alike in _gathered(rows, constants):
        chosen = [places[row.number] for row in alike]
        columns = {key: column[chosen] for key, column in traced.items()}
        first = run if alike[0] is rows[0] else replace(_prepared(alike[0].config), data=run.data)
        groups.append(Group(first, tuple(alike), columns))
    return groups


def _gathered(rows: Sequence[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return list(found.values())


def _prepared(config: Config, groups: Sequence[Group] = ()) -> Experiment:
    """Prepare a run; where one of the groups has the same data, they share it."""
    if config.train.on_nan == "roll_back":
        raise ConfigError(
            f"{config.where('train.on_nan')}: train.on_nan: the runs of a sweep go on together, "
            "and cannot roll back one by one; use stop or skip"
        )
    for section in ("mesh", "distributed"):
        if getattr(config, section) is not None:
            raise ConfigError(
                f"{config.where(section)}: {section}: a sweep shares its runs out over the devices "
                f"of one process by itself; take {section} out"
            )
    run = prepare(config)
    if not run.data.resident:
        raise ConfigError(
            f"{config.where('data')}: data: the runs of a sweep share data that lie in memory, and "
            "these are streamed; sweep a smaller part, or start the runs one by one with fnn run"
        )
    same = (group.run.data for group in groups if group.run.config.data == config.data)
    return replace(run, data=next(itertools.chain(same, [run.data])))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
