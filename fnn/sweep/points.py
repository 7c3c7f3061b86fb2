"""The plan of a sweep, and the points it tries: all, some by chance, or those optuna proposes.

Proposals are a generator. It yields points that are trained together, and is sent their results;
for the same axes, number, seed and results it yields the same points.
"""

import math
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from ..config import Config, parse
from ..config.source import read_file, read_yaml
from ..errors import ConfigError, FnnError
from ..metrics import METRICS, MetricName
from .axes import Axes, Axis, Point, Range, Value, draw, grid, split_words

BATCH = 8
"""Points that optuna proposes at once; it learns their results together."""

Proposals = Generator[list[Point], list[float], None]


class Base(NamedTuple):
    """The part that the configs of all runs share: a config's text, and overrides."""

    text: str
    filename: str
    overrides: tuple[str, ...] = ()

    def config(self, point: Sequence[str] = ()) -> Config:
        """Return the config with one more override per axis.

        Raises ConfigError as `fnn.config.load` does.
        """
        return parse(self.text, self.filename, (*self.overrides, *point))


@dataclass(frozen=True)
class Plan:
    """The contents of a sweep's folder from which the sweep is resumed."""

    base: Base
    words: tuple[str, ...]  # the axes, as they were written
    random: int = 0  # points to draw
    optuna: int = 0  # points that optuna proposes
    by: MetricName = "test_loss"  # ranks the runs

    @property
    def axes(self) -> Axes:
        """The axes."""
        return split_words(self.words)[1]

    def proposals(self) -> Proposals:
        """Yield the points: the grid, or those drawn or proposed with the config's own seed."""
        seed = self.base.config().seed
        if self.optuna:
            yield from optuna_points(self.axes, self.optuna, seed)
        else:
            yield draw(self.axes, self.random, seed) if self.random else grid(self.axes)

    def score(self, result: dict[str, Any]) -> float:
        """Return a number that is smaller for a better run, and infinite for a diverged one."""
        diverged = result["status"] == "diverged"
        return math.inf if diverged else METRICS[self.by].cost(result[self.by])


def plan_sweep(
    config: Path | str,
    words: Sequence[str],
    random: int = 0,
    optuna: int = 0,
    by: str = "test_loss",
) -> Plan:
    """Return the plan of a command line: a config, and `KEY=VALUES`.

    Raises ConfigError, and FnnError for an unknown metric.
    """
    if by not in METRICS:
        raise FnnError(f"--by {by}: expected one of {', '.join(METRICS)}")
    if random and optuna:
        raise FnnError("--random and --optuna are two ways to choose points; use one")
    overrides, axes = split_words(words)
    keys = {axis.key for axis in axes}
    several = tuple(word for word in words if word.partition("=")[0].strip() in keys)
    base = Base(read_file(config), str(config), tuple(overrides))
    return Plan(base, several, random, optuna, cast(MetricName, by))


def read_plan(folder: Path) -> Plan:
    """Return the plan of a sweep from its folder, to resume it.

    Raises ConfigError if a file is missing or damaged.
    """
    file = folder / "sweep.yaml"
    fields, _ = read_yaml(read_file(file), str(file))
    try:
        rest = (tuple(fields["axes"]), fields["random"], fields["optuna"], fields["by"])
    except (KeyError, TypeError):
        raise ConfigError(f"{file}: damaged: expected the keys axes, random, optuna, by") from None
    config = folder / "config.yaml"
    return Plan(Base(read_file(config), str(config)), *rest)


def optuna_points(axes: Axes, count: int, seed: int) -> Proposals:
    """Yield the proposals of optuna's tree-structured Parzen estimator, which minimises.

    Results that are not finite count as failed.

    Raises FnnError if optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise FnnError(
            "--optuna needs the package optuna: pip install 'fnn[optuna]', or use --random N"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():  # of options that optuna calls experimental
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    while count > 0:
        trials = [study.ask() for _ in range(min(BATCH, count))]
        count -= len(trials)
        losses = yield [tuple(_suggest(trial, axis) for axis in axes) for trial in trials]
        for trial, loss in zip(trials, losses, strict=True):
            failed = None if math.isfinite(loss) else optuna.trial.TrialState.FAIL
            study.tell(trial, loss if failed is None else None, failed)


def _suggest(trial: Any, axis: Axis | Range) -> Value:
    if isinstance(axis, Axis):
        texts = [value.text for value in axis.values]
        return axis.values[texts.index(trial.suggest_categorical(axis.key, texts))]
    if axis.integer:
        number = trial.suggest_int(axis.key, int(axis.low), int(axis.high), log=axis.log)
    else:
        number = trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)
    return axis.as_value(number)
