"""Are the cotangents right? Every probe in float64, element by element."""

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
from .judge import EPS64, resolution
from .passes import call
from .probes import GIVEN, Probing
from .programs import prepare
from .shapes import Case
from .trials import Answers, Mismatch, Trial


@dataclass
class Verdict:
    """The trials of all probes, their mismatches and their resolution."""

    trials: list[Trial]
    mismatches: list[Mismatch]
    eps: float
    """The rounding that limits the comparison: float64's, or a narrower dtype's."""
    resolution: dict[str, float | None]
    error: float
    unlike: list[Case]
    """Broadcasting and larger calls for which function and definition have other values."""

    def of(self, what: str, which: int | None = None) -> list[Mismatch]:
        """Return the mismatches of outputs (`y`, `plain`) or cotangents (`ct`), or of one array."""
        return [m for m in self.mismatches if m.what == what and which in (None, m.which)]


def examine(probing: Probing, own_casts: bool) -> Verdict:
    """Return the verdict of all probes in float64, or in a narrower dtype to which a call casts.

    `own_casts`: whether the rule may cast where the definition does not.
    """
    own = float(jnp.finfo(probing.exact[0]).eps)
    if own > EPS64:
        return _examine(probing, own)
    verdict = _examine(probing, EPS64)
    limit = cast(probing, own_casts, lossy=True)
    if limit > EPS64:
        if verdict.mismatches:
            return _examine(probing, limit)
        verdict.eps = limit
        verdict.resolution = {k: v and max(v, limit) for k, v in verdict.resolution.items()}
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
            continue  # wrong for ordinary numbers: other points show nothing more
        if eps > EPS64 and probe.kind == "magnitude":
            continue  # left to the numerics: too few digits of large numbers remain here
        usual = ordinary.get(id(case)) or next(iter(ordinary.values()), None)
        trial = probing.trial(case, probe, usual, eps)
        wrong_here = list(_compare(probing, trial, eps))
        other = probing.subject.other and (case.kind == "broadcast" or case.optional)
        if other and any(m.what == "plain" for m in wrong_here):
            unlike.append(case)
            continue
        ordinary.setdefault(id(case), trial)
        trials.append(trial)
        mismatches.extend(wrong_here)
    resolutions, error = _resolution(trials, eps)
    return Verdict(trials, mismatches, eps, resolutions, error, unlike)


def _compare(probing: Probing, trial: Trial, eps: float) -> Iterator[Mismatch]:
    for what in ("y", "plain"):
        yield from trial.compare(what, trial.got[what], trial.want["y"], eps)
    finite = all(np.isfinite(y).all() for y in trial.want["y"])
    for i, (got, want) in enumerate(zip(trial.got["ct"], trial.want["ct"], strict=True)):
        judged = want if finite else np.where(np.isfinite(got), want, np.nan)
        wrong = trial.misfit(got, judged, "ct", i, eps)
        defect = ""
        if wrong and (trial.probe.kind != "ordinary" or wrong.bad.mean() <= 0.5):
            # Ordinary numbers may lie on a kink too: data may hold whole numbers, for example.
            wrong, kind = kinks.judge(probing, trial, i, wrong, probing.binding)
            defect = kind if trial.probe.kind == "special" or kind == "kink" else ""
        if wrong:
            yield Mismatch(trial, "ct", i, wrong, defect)


def reference(probing: Probing, verdict: Verdict) -> Answers:
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
        for mismatch in trial.compare("y", trial.want["y"], values, verdict.eps):
            yield "forward value", mismatch


def _resolution(trials: Sequence[Trial], eps: float) -> tuple[dict[str, float | None], float]:
    """Return each argument's resolution over the ordinary trials, and the largest error of all."""
    resolutions: dict[str, float | None] = {}
    error = 0.0
    for trial in trials:
        if trial.probe.kind != "ordinary" or not trial.case.original:
            continue
        for i, path in enumerate(trial.case.arguments.paths):
            want, former = trial.want["ct"][i], resolutions.get(path)
            here = resolution(want, trial.tolerance("ct", i, eps))
            if here is not None and former is not None:
                here = max(here, former) if trial.case.kind == "given" else min(here, former)
            resolutions[path] = here if here is not None else former
            scale = trial.scale["ct"][i]
            if scale and np.shape(want) == np.shape(trial.got["ct"][i]):
                gap = np.abs(trial.got["ct"][i] - want)
                error = max(error, float(np.max(gap[np.isfinite(gap)], initial=0.0)) / scale)
    return resolutions, error


def cast(probing: Probing, own_casts: bool, lossy: bool = False) -> float:
    """Return the rounding of the narrowest dtype in a float64 call.

    `lossy`: count only casts of float64 numbers, and not numbers that are computed in the dtype.
    """
    if probing.exact != ("float64", "float64"):
        return float(jnp.finfo(probing.exact[0]).eps)
    oracle, rule = probing.run(probing.cases[0]).both()
    programs = (oracle, rule) if own_casts else (oracle,)
    return max(_narrowest(program.jaxpr.jaxpr, lossy) for program in programs)


def _narrowest(jaxpr: Any, lossy: bool) -> float:
    narrowest = EPS64
    for equation in equations(jaxpr):
        if lossy and not any(_eps(var) == EPS64 and var.aval.shape for var in equation.invars):
            continue
        narrowest = max([narrowest, *map(_eps, equation.outvars)])
    return narrowest


def _eps(var: Any) -> float:
    """Return the rounding of a variable's dtype; 0 for integers."""
    dtype = getattr(var.aval, "dtype", None)
    inexact = dtype is not None and jnp.issubdtype(dtype, jnp.inexact)
    return float(jnp.finfo(dtype).eps) if inexact else 0.0
