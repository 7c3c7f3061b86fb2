"""Is the backward rule a linear function of the cotangent, as a transposed Jacobian is?"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from .jaxprs import equations, first_nonlinear
from .judge import EPS64, misfit
from .mathematics import Mismatch
from .probes import Probing, Trial
from .programs import backward, by_rule, call, places, pullback
from .report import Finding
from .subject import first_line

EXPONENTS = (1, 12, -12, 40, -40, 400, -400)
"""Cotangents are scaled by these powers of two. Training in 16 bits scales losses by 2^16; the
largest, half way to the limits of float64, stand for what others scale on the way."""
NORMAL = 1e-280, 1e280


def check(probing: Probing, trial: Trial, eps: float) -> Iterator[tuple[str, Mismatch | Finding]]:
    """Yield a defect's name with what shows it: nothing for nothing, linear, and of any scale."""
    run, values, dys = probing.run(trial.case), trial.values, trial.dys
    nothing = run.rule(values, [np.zeros_like(dy) for dy in dys])
    yield from _differ(trial, nothing, 0.0, "affine")
    failed = False
    # A cast to float32 takes cotangents up to 2^127, one to 16 bits perhaps no more than 2^15.
    count = len(EXPONENTS) if eps == EPS64 else 3 if eps < 2**-12 else 1
    for exponent in EXPONENTS[:count]:
        scaled = run.rule(values, [dy * 2.0**exponent for dy in dys])
        defect = "not linear" if exponent == 1 else "scale-dependent"
        found = list(_differ(trial, scaled, 2.0**exponent, defect))
        yield from found
        if failed := bool(found):
            break
    if not failed:
        yield from _differ(trial, run.rule(values, [-dy for dy in dys]), -1.0, "not linear")
        yield from _additive(probing, trial, eps)
    yield from _structural(probing, trial)


def _differ(trial: Trial, got: Any, factor: float, defect: str) -> Iterator[tuple[str, Mismatch]]:
    """Compare with `factor` times the cotangents at hand, bit for bit."""
    for i, (came, base) in enumerate(zip(got["ct"], trial.got["ct"], strict=True)):
        want = factor * base.astype(came.dtype)
        sizes = np.abs(want)
        normal = (sizes > NORMAL[0]) & (sizes < NORMAL[1])
        want = np.where(normal | (want == 0), want, np.nan)
        if wrong := misfit(came, want, np.zeros(np.shape(want))):
            yield defect, Mismatch(trial, "ct", i, wrong)


def _additive(probing: Probing, trial: Trial, eps: float) -> Iterator[tuple[str, Mismatch]]:
    rng = np.random.default_rng(probing.seed)
    others = [dy * rng.normal(size=dy.shape) for dy in trial.dys]
    run = probing.run(trial.case)
    second = run.rule(trial.values, others)
    both = run.rule(trial.values, [a + b for a, b in zip(trial.dys, others, strict=True)])
    for i, (came, a, b) in enumerate(zip(both["ct"], trial.got["ct"], second["ct"], strict=True)):
        if wrong := misfit(came, a + b, 4 * trial.tolerance("ct", i, eps)):
            yield "not linear", Mismatch(trial, "ct", i, wrong)


def _structural(probing: Probing, trial: Trial) -> Iterator[tuple[str, Finding]]:
    """Look for an operation that no linear function of the cotangent contains."""
    jaxpr = probing.run(trial.case).program(by_rule).jaxpr.jaxpr
    count = len(trial.values)
    marks = [count <= i < count + len(trial.dys) for i in range(len(jaxpr.invars))]
    if name := first_nonlinear(jaxpr, marks):
        why = f"the backward rule applies `{name}` to the cotangent"
        show = trial.case.arguments.show(probing.subject.name, "float64")
        yield "not linear", Finding("not linear", why=why, call=show, dtype="float64")


def subsets(probing: Probing, trial: Trial, eps: float) -> Iterator[tuple[str, Any]]:
    """Differentiate by one argument at a time, and use one output at a time.

    Only a rule that asks for symbolic zeros sees the difference.
    """
    subject, arguments = probing.subject, trial.case.arguments
    which = places(arguments)
    if probing.exact[0] != "float64":
        return
    with probing.types():
        arrays, _ = probing.structs(trial)
        try:
            jaxpr = jax.make_jaxpr(lambda *a: pullback(subject.function, arguments, a)[0])(*arrays)
        except Exception:
            return
        plain = jax.make_jaxpr(lambda *a: call(subject.function, arguments, a))(*arrays)
        if not any(
            e.params.get("symbolic_zeros") for j in (jaxpr, plain) for e in equations(j.jaxpr)
        ):
            return

        @jax.jit
        def alone(arrays: Any, dys: Any) -> Any:
            by_argument = [
                pullback(subject.function, arguments, arrays, [i])[1](dys)[0] for i in which
            ]
            by_output = []
            for j, dy in enumerate(dys):

                def one(arrays: Any, j: int = j) -> Any:
                    return call(subject.function, arguments, arrays)[j]

                by_output.append(backward(one, arrays, which)[1](dy))
            return by_argument, by_output

        values = [v if hasattr(v, "dtype") else np.asarray(v) for v in trial.values]
        try:
            by_argument, by_output = jax.device_get(alone(values, trial.dys))
        except Exception as error:
            show = arguments.show(subject.name, "float64")
            why = first_line(error)
            yield "unperturbed", Finding("unperturbed", why=why, call=show, dtype="float64")
            return
    run = probing.run(trial.case)
    for i, came in enumerate(by_argument):
        if wrong := trial.misfit(came, trial.want["ct"][i], "ct", i, eps):
            yield "unperturbed", Mismatch(trial, "ct", i, wrong)
    for j, cotangents in enumerate(by_output):
        dys = [dy if k == j else np.zeros_like(dy) for k, dy in enumerate(trial.dys)]
        want = run.oracle(trial.values, dys)["ct"]
        for i, came in enumerate(cotangents):
            if wrong := trial.misfit(came, want[i], "ct", i, eps):
                yield "unperturbed", Mismatch(trial, "ct", i, wrong)
