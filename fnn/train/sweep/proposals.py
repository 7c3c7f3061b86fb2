"""Which points a sweep tries: all, some by chance, or those that optuna asks for.

A proposal is a generator. It yields points that are trained together, and is sent their results;
from the same axes, number and seed, and after the same results, it yields the same points.
"""

import math
import warnings
from collections.abc import Generator
from typing import Any

from ...errors import FnnError
from .axes import Axes, Axis, Point, Range, Value, draw, grid

BATCH = 8
"""Points that optuna is asked for at once: it learns of them together."""

Proposals = Generator[list[Point], list[float], None]


def all_points(axes: Axes) -> Proposals:
    """Yield the grid: every combination of values."""
    yield grid(axes)


def random_points(axes: Axes, count: int, seed: int) -> Proposals:
    """Yield points drawn evenly, of values or within ranges."""
    yield draw(axes, count, seed)


def optuna_points(axes: Axes, count: int, seed: int) -> Proposals:
    """Yield what optuna's tree-structured Parzen estimator asks for, to make a number small.

    Results that are not finite count as failed.

    Raises FnnError where optuna is not installed.
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
        losses = yield [tuple(_asked(trial, axis) for axis in axes) for trial in trials]
        for trial, loss in zip(trials, losses, strict=True):
            failed = None if math.isfinite(loss) else optuna.trial.TrialState.FAIL
            study.tell(trial, loss if failed is None else None, failed)


def _asked(trial: Any, axis: Axis | Range) -> Value:
    if isinstance(axis, Axis):
        texts = [value.text for value in axis.values]
        return axis.values[texts.index(trial.suggest_categorical(axis.key, texts))]
    if axis.integer:
        found = trial.suggest_int(axis.key, int(axis.low), int(axis.high), log=axis.log)
    else:
        found = trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)
    return axis.written(found)
