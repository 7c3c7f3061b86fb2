"""Is the value right? Every probe in float64, element by element."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import kinks
from .jaxprs import equations
from .judge import EPS64, Misfit, resolution
from .probes import GIVEN, Probing, Trial
from .programs import by_autodiff, by_rule, call, places, prepare
from .shapes import Case


@dataclass(frozen=True)
class Mismatch:
    """An array of a trial that is not as expected, and what kind of point shows it."""

    trial: Trial
    what: str
    """ct, y (the differentiated function's value) or plain (the function's own)."""
    which: int
    misfit: Misfit
    defect: str = ""
    """What the point itself tells: "kink" or "special value", or nothing."""


@dataclass
class Verdict:
    """What all trials told."""

    trials: list[Trial]
    mismatches: list[Mismatch]
    eps: float
    """The rounding that limits what was seen: float64's, or a narrower dtype's."""
    resolution: dict[str, float | None]
    error: float
    unlike: list[Case]
    """Broadcasting and larger calls, for which the function itself is not what was defined."""


def examine(probing: Probing, own_casts: bool) -> Verdict:
    """Try everything in float64; where a cast to a narrower dtype limits that, say so.

    `own_casts`: whether a cast that the rule makes, and the definition does not, is excused.
    """
    own = float(jnp.finfo(probing.exact[0]).eps)
    if own > EPS64:
        return _examine(probing, own)
    verdict = _examine(probing, EPS64)
    limit = cast(probing, own_casts, lossy=True)
    if limit > EPS64:
        if verdict.mismatches:
            return _examine(probing, limit)
        seen = verdict.resolution
        verdict.eps = limit
        verdict.resolution = {k: v and max(v, limit) for k, v in seen.items()}
    return verdict


def _examine(probing: Probing, eps: float) -> Verdict:
    ordinary: dict[int, Trial] = {}
    trials: list[Trial] = []
    mismatches: list[Mismatch] = []
    unlike: list[Case] = []
    for case, probe in probing.plan():
        if case in unlike:
            continue
        wrong = {m.which for m in mismatches if m.trial.case is case and m.what == "ct"}
        if wrong and probe.kind != "ordinary":
            continue  # wrong for ordinary numbers: no other point tells more
        if eps > EPS64 and probe.kind == "magnitude":
            continue  # left to the numerics: of large numbers, too few digits are seen here
        usual = ordinary.get(id(case)) or next(iter(ordinary.values()), None)
        trial = probing.trial(case, probe, usual, eps)
        found = list(_compare(probing, trial, eps))
        other = probing.subject.other and (case.kind == "broadcast" or case.optional)
        if other and any(m.what == "plain" for m in found):
            unlike.append(case)
            continue
        ordinary.setdefault(id(case), trial)
        trials.append(trial)
        mismatches.extend(found)
    resolutions, error = _resolution(trials, eps)
    return Verdict(trials, mismatches, eps, resolutions, error, unlike)


def _compare(probing: Probing, trial: Trial, eps: float) -> Iterator[Mismatch]:
    for what in ("y", "plain"):
        for j, (got, want) in enumerate(zip(trial.got[what], trial.want["y"], strict=True)):
            if wrong := trial.misfit(got, want, "y", j, eps):
                yield Mismatch(trial, what, j, wrong)
    finite = all(np.isfinite(y).all() for y in trial.want["y"])
    for i, (got, want) in enumerate(zip(trial.got["ct"], trial.want["ct"], strict=True)):
        asked = want if finite else np.where(np.isfinite(got), want, np.nan)
        wrong = trial.misfit(got, asked, "ct", i, eps)
        if wrong and (trial.probe.kind != "ordinary" or wrong.bad.mean() <= 0.5):
            # Numbers at random may lie on a kink too: whole numbers given as data, say.
            wrong, kind = kinks.judge(probing, trial, i, wrong, probing.binding)
            if wrong:
                special = trial.probe.kind == "special" or kind == "kink"
                yield Mismatch(trial, "ct", i, wrong, kind if special else "")
        elif wrong:
            yield Mismatch(trial, "ct", i, wrong)


def reference(probing: Probing, verdict: Verdict) -> Iterator[tuple[str, Mismatch]]:
    """Compare the definition's values with an op's reference."""
    function = probing.subject.reference
    if function is None:
        return
    for trial in verdict.trials:
        if trial.probe.label != GIVEN.label or not trial.case.reference:
            continue
        with (
            jax.enable_x64(True),
            jax.numpy_rank_promotion("allow"),
            jax.numpy_dtype_promotion("standard"),
        ):
            run: Any = partial(call, function, trial.case.arguments)
            with contextlib.suppress(jax.errors.JAXTypeError):  # a NumPy function cannot be traced
                run = prepare(run, trial.values).result()
            values = jax.device_get(run(trial.values))
        trial = replace(trial, probe=replace(GIVEN, label="the definition against the reference"))
        for j, (got, want) in enumerate(zip(trial.want["y"], values, strict=True)):
            if wrong := trial.misfit(got, want, "y", j, verdict.eps):
                yield "forward value", Mismatch(trial, "y", j, wrong)


def _resolution(trials: Sequence[Trial], eps: float) -> tuple[dict[str, float | None], float]:
    """Return each argument's resolution over the ordinary trials, and the largest error of all."""
    resolutions: dict[str, float | None] = {}
    error = 0.0
    for trial in trials:
        if trial.probe.kind != "ordinary" or trial.case.kind not in ("given", "example"):
            continue
        arguments = trial.case.arguments
        for i, place in enumerate(places(arguments)):
            path, want = arguments.leaves[place].path, trial.want["ct"][i]
            tolerance = trial.tolerance("ct", i, eps)
            seen, there = resolution(want, tolerance), resolutions.get(path)
            if seen is not None and there is not None:
                seen = max(seen, there) if trial.case.kind == "given" else min(seen, there)
            resolutions[path] = seen if seen is not None else there
            scale = trial.scale["ct"][i]
            if scale and np.shape(want) == np.shape(trial.got["ct"][i]):
                gap = np.abs(trial.got["ct"][i] - want)
                error = max(error, float(np.max(gap[np.isfinite(gap)], initial=0.0)) / scale)
    return resolutions, error


def cast(probing: Probing, own_casts: bool, lossy: bool = False) -> float:
    """Return the rounding of the narrowest dtype that a float64 call passes through.

    `lossy`: only where float64 numbers are cast to it, not where they are born in it.
    """
    if probing.exact != ("float64", "float64"):
        return float(jnp.finfo(probing.exact[0]).eps)
    run = probing.run(probing.cases[0])
    makes = (by_autodiff, by_rule) if own_casts else (by_autodiff,)
    return max(_narrowest(run.program(make).jaxpr.jaxpr, lossy) for make in makes)


def _narrowest(jaxpr: Any, lossy: bool) -> float:
    found = EPS64
    for equation in equations(jaxpr):
        if lossy and not any(_eps(var) == EPS64 and var.aval.shape for var in equation.invars):
            continue
        found = max([found, *map(_eps, equation.outvars)])
    return found


def _eps(var: Any) -> float:
    """Return a variable's rounding; that of integers is 0."""
    dtype = getattr(var.aval, "dtype", None)
    inexact = dtype is not None and jnp.issubdtype(dtype, jnp.inexact)
    return float(jnp.finfo(dtype).eps) if inexact else 0.0
