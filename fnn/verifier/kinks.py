"""Kinks and special points: which derivatives are allowed where there is more than one.

The oracle's gradient is taken a small step away from the point, on either side and in random
directions. If all of these agree, there is no kink, and they are the derivative. If they differ,
they are one-sided derivatives, and the rule's value must lie between them: for each element, and
for the sum of each output's gradient (a tie may go to one place or be shared, but not count twice).
If autodiff of the definition gives one of the one-sided derivatives, and not their mean, the
definition states a convention that the rule must follow.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from .judge import Misfit, size_of, widen
from .probes import Probing
from .trials import Trial
from .values import is_inexact

STEP = 2.0**-22
CLOSE = 2.0**-12
"""How far a gradient may move over a step without a kink, relative to the gradient's size."""
MOST = 24


def judge(
    probing: Probing, trial: Trial, which: int, misfit: Misfit, binding: bool
) -> tuple[Misfit | None, str]:
    """Judge a cotangent that differs from autodiff's at a special point.

    Returns the elements that remain wrong, and their defect: "kink", or "special value" where the
    derivative has none.
    """
    place = trial.case.arguments.places[which]
    samples = [_near(probing, trial, which, seed) for seed in range(6)]
    bad = np.argwhere(misfit.bad)
    order = np.argsort(-np.nan_to_num(np.abs(misfit.got - misfit.want)[misfit.bad], nan=np.inf))
    wrong = np.zeros_like(misfit.bad)
    defect = "special value"
    scale = max(trial.scale["ct"][which], max(map(size_of, samples)))
    slack = CLOSE * scale
    for at in map(tuple, bad[order[:MOST]]):
        around = _sides(probing, trial, which, place, at, STEP)
        nearer = _sides(probing, trial, which, place, at, STEP / 256)
        smooth = np.ptp(nearer) <= np.ptp(around) / 2
        sides = nearer if smooth else [s[at] for s in samples] + around + nearer
        sides = [s for s in sides if np.isfinite(s)]
        got, want = misfit.got[at], misfit.want[at]
        if not sides or np.iscomplexobj(misfit.got):
            wrong[at] = True
            continue
        low, high = min(sides), max(sides)
        # A small cotangent makes a small jump, which is then the measure.
        small = high - low <= slack
        margin = (high - low) / 8 if small else slack
        convention = min(abs(want - low), abs(want - high)) <= margin
        inside = low - margin <= got <= high + margin
        if smooth or (small and not inside):
            near = (low + high) / 2  # autodiff of the definition may be the one that is wrong
            wrong[at] = not abs(got - near) <= slack or abs(want - near) <= abs(got - near)
        elif not inside or (binding and convention):
            wrong[at] = True
            defect = "kink"
    if not wrong.any() and _counted_twice(probing, trial, which, misfit):
        wrong, defect = misfit.bad, "kink"
    if not wrong.any():
        return None, defect
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    for at in map(tuple, bad[order[MOST:]]):
        wrong[at] = True  # not examined, but smaller errors than those that are
    return replace(misfit, bad=wrong, index=first), defect


def _near(probing: Probing, trial: Trial, which: int, seed: int) -> np.ndarray:
    """Return the oracle's gradient, a small step away in a random direction."""
    rng = np.random.default_rng(seed)
    values = [nearby(v, rng) for v in trial.values]
    return widen(probing.run(trial.case).oracle(values, trial.dys)["ct"][which])


def nearby(value: Any, rng: np.random.Generator) -> Any:
    """Return floating-point numbers a small random step away; others unchanged."""
    if not is_inexact(value):
        return value
    return value + STEP * (1 + np.abs(value)) * rng.normal(size=value.shape)


def either_side(values: list[Any], rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    """Return numbers a small random step away, and the same step away on the other side."""
    near = [nearby(v, rng) for v in values]
    return near, [2 * v - n if is_inexact(v) else v for v, n in zip(values, near, strict=True)]


def _sides(
    probing: Probing, trial: Trial, which: int, place: int, at: tuple[int, ...], step: float
) -> list[float]:
    """Return the oracle's derivative by one element, with that element a step lower and higher."""
    sides = []
    for sign in (-1, 1):
        values = list(trial.values)
        shifted = np.array(values[place], np.float64)
        shifted[at] += sign * step * (1 + abs(shifted[at]))
        values[place] = shifted
        sides.append(widen(probing.run(trial.case).oracle(values, trial.dys)["ct"][which])[at])
    return sides


def _counted_twice(probing: Probing, trial: Trial, which: int, misfit: Misfit) -> bool:
    """Whether some output's gradient, summed over the argument, lies outside its neighbours'."""
    run = probing.run(trial.case)
    outputs = [(j, at) for j, dy in enumerate(trial.dys) for at in np.ndindex(dy.shape)]
    rng = np.random.default_rng(0)
    if len(outputs) > MOST:
        outputs = [outputs[i] for i in rng.choice(len(outputs), MOST, replace=False)]
    for j, at in outputs:
        dys = [np.zeros_like(dy) for dy in trial.dys]
        dys[j][at] = 1.0
        got = np.sum(widen(run.rule(trial.values, dys)["ct"][which]))
        sums = []
        for _ in range(3):
            sides = either_side(trial.values, rng)
            sums += [np.sum(widen(run.oracle(values, dys)["ct"][which])) for values in sides]
        sums = [s for s in sums if np.isfinite(s)]
        slack = CLOSE * (1 + max(map(abs, sums), default=0.0))
        if sums and not min(sums) - slack <= got <= max(sums) + slack:
            return True
    return False
