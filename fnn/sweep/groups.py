"""Groups of runs: those that differ in numbers alone share one program.

The numbers are arguments of the compiled program. A number cannot be one where something needs
its value: to check it, to choose by it, or to keep it as a hyperparameter of an op.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..config import Chain, Choice, Config
from ..config.choice import plain
from ..config.source import Key, parse_path
from ..config.training import Precision
from ..errors import ConfigError
from ..runs.prepare import Experiment, prepare
from ..runs.results import model_arrays
from ..train.evaluate import evaluate_batch
from .axes import Axes, Point, Value
from .points import Base

COMPUTED_IN = {"model": "compute", "loss": "reduce", "optimizer": "params"}
"""Sections whose numbers can be arguments: the part of `precision` that they are computed in."""


class SweepRun(NamedTuple):
    """One run of a sweep."""

    number: int
    values: Mapping[str, Value]  # by key of the config
    config: Config


@dataclass(frozen=True)
class Group:
    """Runs that one program trains together."""

    experiment: Experiment  # of the first of them
    rows: tuple[SweepRun, ...]
    arguments: dict[str, np.ndarray]  # by key of the config: one value per run (runs,)


def make_rows(base: Base, axes: Axes, points: Sequence[Point], first: int = 0) -> list[SweepRun]:
    """Return one run per point, numbered from `first`, its config checked.

    Raises ConfigError as a config with these overrides does, and for an axis that another axis
    leaves without effect.
    """
    rows = []
    for number, point in enumerate(points, first):
        values = {axis.key: value for axis, value in zip(axes, point, strict=True)}
        words = {key: f"{key}={value.text}" for key, value in values.items()}
        config = base.config(tuple(words.values()))
        resolved = plain(config.model_dump())
        for key, word in words.items():
            if not _holds(resolved, key) or config.where(key) != f"override {word}":
                raise ConfigError(
                    f"sweep: {word} has no effect beside {' '.join({*words.values()} - {word})}; "
                    "leave one of them out, or name the wider key first"
                )
        rows.append(SweepRun(number, values, config))
    return rows


def _holds(node: Any, key: str) -> bool:
    """Return whether a config has something at a key; a name may stand without arguments."""
    for part in parse_path(key):
        if node == part:
            return True
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def make_groups(rows: Sequence[SweepRun]) -> list[Group]:
    """Gather the runs into as few programs as possible; load their data, check that all fit.

    Raises DataError and ConfigError as `prepare` does.
    """
    dtypes = {
        key: dtype
        for key in rows[0].values
        if (dtype := _argument_dtype(key, [row.values[key].value for row in rows])) is not None
    }

    def shape(row: SweepRun) -> tuple[str, ...]:
        """Return all that must be alike in a program."""
        return tuple(
            "a number" if key in dtypes and _is_number(value.value) else value.text
            for key, value in row.values.items()
        )

    groups: list[Group] = []
    for alike in _gather(rows, shape):
        experiment = _prepare(alike[0].config, groups)
        arguments: dict[str, np.ndarray] = {}
        for key, dtype in dtypes.items():
            values = [row.values[key].value for row in alike]
            if len(set(values)) > 1 and _keeps_types(experiment.config.precision, key):
                more = {**arguments, key: np.array(values, dtype)}
                if _is_traceable(experiment, {key: column[0] for key, column in more.items()}):
                    arguments = more
        groups += _split(alike, experiment, arguments)
    return groups


def _split(
    rows: list[SweepRun], experiment: Experiment, arguments: Mapping[str, np.ndarray]
) -> list[Group]:
    """Make one group per combination of the values that are constants of the program."""

    def constants(row: SweepRun) -> tuple[str, ...]:
        return tuple(value.text for key, value in row.values.items() if key not in arguments)

    groups: list[Group] = []
    places = {row.number: place for place, row in enumerate(rows)}
    for alike in _gather(rows, constants):
        own = [places[row.number] for row in alike]
        columns = {key: column[own] for key, column in arguments.items()}
        same = alike[0] is rows[0]
        first = experiment if same else prepare(alike[0].config, experiment.data)
        groups.append(Group(first, tuple(alike), columns))
    return groups


def _gather(rows: Sequence[SweepRun], key: Callable[[SweepRun], Any]) -> list[list[SweepRun]]:
    lists: dict[Any, list[SweepRun]] = {}
    for row in rows:
        lists.setdefault(key(row), []).append(row)
    return list(lists.values())


def _prepare(config: Config, groups: Sequence[Group]) -> Experiment:
    """Prepare an experiment, with the data of a group that has the same."""
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
    experiments = (group.experiment for group in groups)
    same = (e.data for e in experiments if e.config.data == config.data)
    experiment = prepare(config, next(same, None))
    if not experiment.data.resident:
        raise ConfigError(
            f"{config.where('data')}: data: the runs of a sweep share data that lie in memory, and "
            "these are streamed; sweep a smaller part, or start the runs one by one with fnn run"
        )
    return experiment


def with_values(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """Return the experiment with these values in its config, unchecked: they may be tracers."""
    config = experiment.config
    for key, value in values.items():
        config = _replace(config, parse_path(key), value)
    return experiment.with_config(config)


def _replace(node: Any, path: tuple[Key, ...], value: Any) -> Any:
    if not path:
        return value
    key, *below = path
    match node:
        case Choice():  # the key is its name
            argument, *below = below
            new = _replace(node.arguments[str(argument)], tuple(below), value)
            return replace(node, arguments={**node.arguments, str(argument): new})
        case Chain():
            return Chain(_replace(node.parts, path, value))
        case list() | tuple():
            items = list(node)
            items[int(key)] = _replace(items[int(key)], tuple(below), value)
            return type(node)(items)
        case dict():
            return {**node, key: _replace(node[key], tuple(below), value)}
        case _:
            old = getattr(node, str(key))
            return node.model_copy(update={str(key): _replace(old, tuple(below), value)})


def _argument_dtype(key: str, values: Sequence[Any]) -> Any:
    """Return the dtype that the values of a key have as arguments of a program, or None.

    A number that may have a fraction changes no shape; an integer mostly counts something.
    """
    if key == "seed":
        return np.uint32
    is_inside = parse_path(key)[0] in COMPUTED_IN
    return np.float32 if is_inside and any(isinstance(v, float) for v in values) else None


def _keeps_types(precision: Precision, key: str) -> bool:
    """Return whether a float32 argument gives the numbers that a constant gives.

    A constant takes the type of the array that it meets; an argument would change the array's.
    """
    return key == "seed" or getattr(precision, COMPUTED_IN[str(parse_path(key)[0])]) == "float32"


def _is_traceable(experiment: Experiment, values: Mapping[str, Any]) -> bool:
    """Return whether an experiment can be compiled with these values as arguments."""

    def step(values):
        one = with_values(experiment, values)
        state = one.init()
        x = jnp.zeros(one.x_shape)
        labels = jnp.zeros(one.batch_size, one.data.y_train.dtype)
        state, D = one.update(state, x, labels)
        parts = one.model, one.loss, one.config.precision
        return state, D, evaluate_batch(*parts, *model_arrays(state), x, labels)

    try:
        jax.eval_shape(step, dict(values))
    except Exception:  # of any kind: with the values as constants it was built and checked
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
