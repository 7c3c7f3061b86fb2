"""Is the backward rule a linear function of the cotangent, as a transposed Jacobian is?"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from .arguments import Arguments
from .jaxprs import equations, first_nonlinear
from .judge import EPS64, misfit
from .passes import backward, by_rule, call, pullback
from .probes import Probing
from .subject import first_line
from .trials import Answers, Mismatch, Trial

EXPONENTS = (1, 12, -12, 40, -40, 400, -400)
"""Cotangents are scaled by these powers of two. Training in 16 bits scales losses by 2^16; the
largest powers go half way to the limits of float64."""
NORMAL = 1e-280, 1e280


def check(probing: Probing, trial: Trial, eps: float) -> Answers:
    """Give the rule a cotangent of zero, multiples of the trial's, and a sum of two."""
    run, values, dys = probing.run(trial.case), trial.values, trial.dys
    zero = run.rule(values, [np.zeros_like(dy) for dy in dys])
    yield from _differ(trial, zero, 0.0, "affine")
    failed = False
    # A cast to float32 takes cotangents up to 2^127, one to 16 bits perhaps no more than 2^15.
    count = len(EXPONENTS) if eps == EPS64 else 3 if eps < 2**-12 else 1
    for exponent in EXPONENTS[:count]:
        scaled = run.rule(values, [dy * 2.0**exponent for dy in dys])
        defect = "not linear" if exponent == 1 else "scale-dependent"
        answers = list(_differ(trial, scaled, 2.0**exponent, defect))
        yield from answers
        if failed := bool(answers):
            break
    if not failed:
        yield from _differ(trial, run.rule(values, [-dy for dy in dys]), -1.0, "not linear")
        yield from _additive(probing, trial, eps)
    yield from _structural(probing, trial)


def _differ(trial: Trial, got: Any, factor: float, defect: str) -> Answers:
    """Compare with `factor` times the trial's cotangents, bitwise."""
    for i, (ct, base) in enumerate(zip(got["ct"], trial.got["ct"], strict=True)):
        want = factor * base.astype(ct.dtype)
        sizes = np.abs(want)
        normal = (sizes > NORMAL[0]) & (sizes < NORMAL[1])
        want = np.where(normal | (want == 0), want, np.nan)
        if wrong := misfit(ct, want, np.zeros(np.shape(want))):
            yield defect, Mismatch(trial, "ct", i, wrong)


def _additive(probing: Probing, trial: Trial, eps: float) -> Answers:
    rng = np.random.default_rng(probing.seed)
    others = [dy * rng.normal(size=dy.shape) for dy in trial.dys]
    run = probing.run(trial.case)
    second = run.rule(trial.values, others)
    both = run.rule(trial.values, [a + b for a, b in zip(trial.dys, others, strict=True)])
    for i, (ct, a, b) in enumerate(zip(both["ct"], trial.got["ct"], second["ct"], strict=True)):
        if wrong := misfit(ct, a + b, 4 * trial.tolerance("ct", i, eps)):
            yield "not linear", Mismatch(trial, "ct", i, wrong)


def _structural(probing: Probing, trial: Trial) -> Answers:
    """Look for an operation that no linear function of the cotangent contains."""
    jaxpr = probing.run(trial.case).program(by_rule).jaxpr.jaxpr
    count = len(trial.values)
    marks = [count <= i < count + len(trial.dys) for i in range(len(jaxpr.invars))]
    if name := first_nonlinear(jaxpr, marks):
        why = f"the backward rule applies `{name}` to the cotangent"
        yield "not linear", probing.finding(trial.case, "not linear", why)


def subsets(probing: Probing, trial: Trial, eps: float) -> Answers:
    """Differentiate by one argument at a time, and use one output at a time.

    Only a rule with symbolic zeros sees the difference.
    """
    function, arguments = probing.subject.function, trial.case.arguments
    if probing.exact[0] != "float64":
        return

    def output(j: int, arrays: Any) -> Any:
        return call(function, arguments, arrays)[j]

    def by_each(arrays: Any, dys: Any) -> Any:
        which = arguments.places
        by_argument = [pullback(function, arguments, arrays, [i])[1](dys)[0] for i in which]
        by_output = [backward(partial(output, j), arrays, which)[1](dy) for j, dy in enumerate(dys)]
        return by_argument, by_output

    with probing.types():
        if not _symbolic_zeros(function, arguments):
            return
        values = [v if hasattr(v, "dtype") else np.asarray(v) for v in trial.values]
        try:
            by_argument, by_output = jax.device_get(jax.jit(by_each)(values, trial.dys))
        except Exception as error:
            yield "unperturbed", probing.finding(trial.case, "unperturbed", first_line(error))
            return
    pairs = [(by_argument, trial.want["ct"])]
    for j, cotangents in enumerate(by_output):
        oracle = probing.run(trial.case).oracle(trial.values, only(trial.dys, j))
        pairs.append((cotangents, oracle["ct"]))
    for got, want in pairs:
        for mismatch in trial.compare("ct", got, want, eps):
            yield "unperturbed", mismatch


def only(dys: Sequence[Any], which: int) -> list[Any]:
    """Return the cotangents of outputs with all but one set to zero."""
    return [dy if j == which else np.zeros_like(dy) for j, dy in enumerate(dys)]


def _symbolic_zeros(function: Any, arguments: Arguments) -> bool:
    """Whether a rule in a function uses symbolic zeros."""
    arrays = arguments.structs("float64")
    try:
        differentiated = jax.make_jaxpr(lambda *a: pullback(function, arguments, a)[0])(*arrays)
    except Exception:
        return False
    plain = jax.make_jaxpr(lambda *a: call(function, arguments, a))(*arrays)
    both = (*equations(differentiated.jaxpr), *equations(plain.jaxpr))
    return any(equation.params.get("symbolic_zeros") for equation in both)
