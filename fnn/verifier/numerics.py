"""How does the rule round? In the dtype itself, against a float64 oracle at the same numbers.

The rule may have four times the error of automatic differentiation in the same dtype, or two units
in the last place. Where autodiff's own result is NaN or infinite, the rule may be anything. Numbers
go up to the dtype's limits, and down to its subnormal ones.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import values as numbers
from .jaxprs import arithmetic
from .judge import Misfit, digits_tolerance, misfit, noise_of, rounding_tolerance, size_of, widen
from .passes import by_rule, exchanged
from .probes import PROBES, Probing, times
from .shapes import LARGE, Case
from .trials import Answers, Mismatch, Probe, Trial, differences
from .values import rounded, to_dtype

GRID = {
    "float64": (-1060, -700, -300, 300, 700, 1000),
    "float32": (-140, -100, -60, 60, 100, 124),
    "bfloat16": (-128, -100, -60, 60, 100, 124),
    "float16": (-20, -4, 4, 8, 12),
}
"""Powers of two by which ordinary numbers are scaled. The first gives subnormal numbers, which a
processor may take for 0, and whose reciprocals are infinite; their results must only be numbers."""
TAILS = (2, 3, 4, 5, 10, -10)
"""Further powers of two for float32: into tails of functions that are not yet 0."""
KEYS = ("y", "ct")
MOST = float(np.finfo(np.float64).max)


def check(
    probing: Probing, dtype: str, errors: dict[str, float], resolved: float, brief: bool = False
) -> Answers:
    """Compare the rounding of a rule with autodiff's; enter the largest error in `errors`.

    With `brief`, try only the first call, and those at kinks and extremes: in a further dtype, all
    others round as they did in the first.

    Shapes other than the given ones are tried only if float64 could not judge them: if the rule
    casts to a narrower dtype than this one, whose rounding is `resolved`.
    """
    coarse = resolved > float(jnp.finfo(dtype).eps)
    past: set[Any] = set()
    for case in probing.cases:
        if brief and case is not probing.cases[0] and not case.fixed:
            continue
        if coarse or case.original:
            operations = tuple(map(arithmetic, probing.operations(case)))
            if operations in past and not case.fixed:
                continue  # the same operations on other sizes round in the same way
            past.add(operations)
            answers = list(_case(probing, case, dtype, errors))
            yield from answers
            if answers:
                return


def _case(probing: Probing, case: Case, dtype: str, errors: dict[str, float]) -> Answers:
    vary = probing.vary and case.original and not case.fixed and case.size < LARGE
    ordinary = [_Rounded(probing, case, PROBES[0], dtype, 0)]
    if vary:
        ordinary += [_Rounded(probing, case, PROBES[1], dtype, seed) for seed in (1, 2)]

    def largest(measure: Callable[[_Rounded, str, int], float]) -> dict[str, list[float]]:
        return {
            key: [max(measure(r, key, i) for r in ordinary) for i in range(len(arrays))]
            for key, arrays in ordinary[0].auto.items()
        }

    typical, scales = largest(_Rounded.error), largest(lambda r, key, i: size_of(r.want[key][i]))
    for trial in ordinary:
        yield from trial.judge(typical, scales, errors)
    if not vary:
        return
    exponents = GRID[dtype] + (TAILS if dtype == "float32" else ())
    for probe in [PROBES[2], *(_scaled(k, p) for p in case.arguments.paths for k in exponents)]:
        if _applies(probing, case, probe):
            yield from _Rounded(probing, case, probe, dtype, 0).judge(typical, scales, errors)


def _applies(probing: Probing, case: Case, probe: Probe) -> bool:
    """Whether a probe changes a case; subnormal numbers, which may become 0, must be allowed it."""
    bound = any(not numbers.free(case.arguments.leaves[i]) for i in case.arguments.places)
    return probing.changes(case, probe) and not (probe.subnormal and bound)


def _scaled(exponent: int, path: str) -> Probe:
    kind = "tail" if exponent in TAILS else "magnitude"
    return times(exponent, path, kind, exponent in {grid[0] for grid in GRID.values()})


class _Rounded:
    """One trial in a narrow dtype: the rule, autodiff, and the float64 oracle."""

    def __init__(self, probing: Probing, case: Case, probe: Probe, dtype: str, seed: int):
        self.probing, self.case, self.probe, self.dtype = probing, case, probe, dtype
        values, dys = probing.draw(case, probe, seed)
        self.values = [
            widen(v) if leaf.differentiable else v
            for v, leaf in zip(
                rounded(case.arguments, values, dtype), case.arguments.leaves, strict=True
            )
        ]
        self.dys = [widen(to_dtype(dy, dtype)) if not np.iscomplexobj(dy) else dy for dy in dys]
        # The first call rounds as it does in use, compiled by XLA; the others as NumPy does.
        first = case is probing.cases[0] and probing.is_compiled(case, dtype)
        narrow, exact = probing.run(case, dtype, first), probing.run(case)
        self.narrow = narrow
        self.got = narrow.rule(self.values, self.dys)
        self.auto = narrow.oracle(self.values, self.dys)
        self.want = exact.oracle(self.values, self.dys)
        mathematics = exact.rule(self.values, self.dys)
        # A rule with another convention than autodiff (at a tie, for example) has been judged in
        # float64. Here its own mathematics is the oracle, and its rounding is not judged.
        self.other: dict[str, list[np.ndarray]] = {"y": [], "ct": []}
        for key in KEYS:
            for i, (want, rule) in enumerate(zip(self.want[key], mathematics[key], strict=True)):
                with np.errstate(invalid="ignore"):
                    other = np.abs(rule - want) > size_of(want) / 16
                self.want[key][i] = np.where(other, rule, want)
                self.other[key].append(np.where(other, np.inf, 0.0))

    @functools.cached_property
    def _neighbours(self) -> tuple[list[Any], list[Any]]:
        """The outcomes of autodiff and of the rule, where every number is one rounding away."""
        rng, eps = np.random.default_rng(3), float(jnp.finfo(self.dtype).eps)
        return self.narrow.neighbours(self.values, self.dys, rng, eps)

    def noise(self, key: str, which: int, *, jumps: bool = False) -> np.ndarray:
        """Return the effect of one rounding, element by element."""
        eps = float(jnp.finfo(self.dtype).eps)
        changes = (
            noise_of(base[key][which], [o[key][which] for o in near], eps, jumps=jumps)
            for base, near in zip((self.auto, self.got), self._neighbours, strict=True)
        )
        return np.maximum(np.maximum(*changes), self.other[key][which])

    def error(self, key: str, which: int) -> float:
        """Return autodiff's largest error."""
        want, auto = widen(self.want[key][which]), widen(self.auto[key][which])
        with np.errstate(invalid="ignore"):
            gap = np.abs(auto - want)[self.other[key][which] == 0]
        return float(np.max(gap[np.isfinite(gap)], initial=0.0))

    def judge(
        self, typical: dict[str, list[float]], scales: dict[str, list[float]], errors: Any
    ) -> Answers:
        """Compare every array of the rule's outcome."""
        limit = float(jnp.finfo(self.dtype).max)
        trial = Trial(self.case, self.probe, self.values, self.dys, self.want, self.got, self.dtype)
        for key in KEYS:
            for i, got in enumerate(self.got[key]):
                want, auto = widen(self.want[key][i]), widen(self.auto[key][i])
                usual, scale = scales[key][i], scales[key][i] * self.probe.size
                size = max(scale, size_of(want))
                error = self.error(key, i) / size if size else 0.0
                error = max(error, typical[key][i] / usual if usual else 0.0)
                rounding = functools.partial(
                    rounding_tolerance, want, error, scale=scale, dtype=self.dtype
                )
                tolerance = rounding(noise=self.other[key][i])
                ordinary = self.probe.kind == "ordinary" and not self.case.fixed
                if key == "ct" and ordinary and usual:
                    gap = np.abs(widen(got) - want)
                    gap = np.max(gap[np.isfinite(gap)], initial=0.0) / usual
                    errors[self.dtype] = max(errors.get(self.dtype, 0.0), float(gap))
                if self.probe.subnormal:
                    tolerance = np.full(np.shape(want), np.inf)
                judged = np.where(np.isfinite(auto) & (np.abs(want) < limit / 4), want, np.nan)
                wrong = misfit(got, judged, tolerance)
                if wrong and not self.probe.subnormal:
                    wrong = misfit(got, judged, rounding(noise=self.noise(key, i)))
                if self.probe.kind == "tail" and not wrong:
                    wrong = self._digits(key, i, judged)
                if wrong:
                    yield _defect(self.probe, wrong), Mismatch(trial, key, i, wrong)

    def _digits(self, key: str, which: int, judged: np.ndarray) -> Misfit | None:
        """Compare the digits, relative to the array's size in this tail, here or in other draws."""
        half = float(jnp.finfo(self.dtype).eps) ** 0.5 * size_of(judged)
        if misfit(self.got[key][which], judged, np.full(np.shape(judged), half)) is None:
            return None
        auto, change = widen(self.auto[key][which]), self.noise(key, which, jumps=True)
        sizes, run = [size_of(judged)], self.probing.run(self.case)
        for further in (0, 16):
            for seed in range(3, 3 + further):
                outcome = run.oracle(*self.probing.draw(self.case, self.probe, seed))
                sizes.append(size_of(outcome[key][which]))
            tolerance = digits_tolerance(judged, auto, change, max(sizes), self.dtype)
            wrong = misfit(self.got[key][which], judged, tolerance)
            if wrong is None:
                return None
        return wrong


def _defect(probe: Probe, wrong: Misfit) -> str:
    got = wrong.got[wrong.bad]
    if np.isnan(got).any():
        return "nan"
    if np.isinf(got).any() or (probe.kind == "magnitude" and not got.any()):
        return "overflow"
    return "rounding" if probe.kind == "ordinary" else "cancellation"


def poison(probing: Probing, case: Case, base: Trial) -> Answers:
    """Put a NaN into one row of each argument and of the cotangent, and -inf into some places.

    A NaN may reach its own row. If the output is finite nonetheless, it may reach nothing.
    """
    for i in case.arguments.places:
        leaf, x = case.arguments.leaves[i], base.values[i]
        if np.size(x) and numbers.free(leaf):
            first = exchanged(base.values, [i], [np.where(_first(x), np.nan, x)])
            some = exchanged(base.values, [i], [np.where(_some(x), -np.inf, x)])
            label = f"{leaf.path} with a NaN in its first row"
            yield from _poison(probing, base, first, base.dys, label, np.nan)
            label = f"{leaf.path} with -inf in some places"
            yield from _poison(probing, base, some, base.dys, label, -np.inf)
    for j, dy in enumerate(base.dys):
        if np.size(dy):
            dys = exchanged(base.dys, [j], [np.where(_first(dy), np.nan, dy)])
            label = f"the cotangent of output {j} with a NaN in its first row"
            yield from _poison(probing, base, base.values, dys, label, np.nan)


def _poison(
    probing: Probing, base: Trial, values: Any, dys: Any, label: str, number: float
) -> Answers:
    run = probing.run(base.case)
    want, got = run.oracle(values, dys), run.rule(values, dys)
    trial = Trial(base.case, Probe(label, "poison"), values, dys, want, got)
    if probing.subject.states_conventions and np.isnan(number):
        # The definition of an op states where a NaN goes, element by element.
        arrays = [values[i] for i in base.case.arguments.places]
        shapes = {np.shape(x) for x in arrays if np.isnan(x).any()}
        for mismatch in differences(trial, "plain", got["plain"], want["y"], MOST):
            if mismatch.misfit.got.shape in shapes:
                yield "nan", mismatch
    whole = all(np.isfinite(y).all() for y in (*want["y"], *got["plain"]))
    if np.isinf(number) and not whole:
        return
    clean = all(np.isfinite(dy).all() for dy in dys)
    rows = len(dys[0]) if np.ndim(dys[0]) else None
    rows_apart = all(np.ndim(y) and np.isfinite(y[1:]).all() for y in want["y"])
    if not whole and not rows_apart and clean:
        return  # numbers that are not finite lie in other rows than the first as well
    for i, (ct, expected) in enumerate(zip(got["ct"], want["ct"], strict=True)):
        judged = np.isfinite(expected) & np.isfinite(base.got["ct"][i])
        if not (clean and whole):
            if not np.ndim(expected) or len(expected) != rows or not judged[1:].all():
                continue
            judged[:1] = False
        if wrong := misfit(ct, np.where(judged, expected, np.nan), np.full(np.shape(ct), MOST)):
            yield "nan" if np.isinf(number) else "leakage", Mismatch(trial, "ct", i, wrong)


def _first(array: np.ndarray) -> np.ndarray:
    where = np.zeros(np.shape(array), bool)
    where[(0,) * min(1, where.ndim)] = True
    return where


def _some(array: np.ndarray) -> np.ndarray:
    where = np.zeros(np.shape(array), bool)
    where.reshape(-1)[::5] = True
    return where


def finite(probing: Probing, case: Case) -> Answers:
    """Go to the limits of float64: where autodiff is finite, the rule must be finite."""
    run = probing.run(case)
    for path in case.arguments.paths:
        for probe in (_scaled(k, path) for k in GRID[probing.exact[0]]):
            if not _applies(probing, case, probe):
                continue
            values, dys = probing.draw(case, probe)
            want = run.oracle(values, dys)
            if not all(np.isfinite(y).all() for y in want["y"]):
                continue  # where the function is not finite, its derivative need not be
            got = run.rule(values, dys)
            trial = Trial(case, probe, values, dys, want, got)
            allowed = np.inf if probe.subnormal else MOST
            for mismatch in differences(trial, "ct", got["ct"], want["ct"], allowed):
                yield _defect(probe, mismatch.misfit), mismatch


def deterministic(probing: Probing, trial: Trial) -> Answers:
    """Run again and trace again: both must give the same."""
    second = probing.run(trial.case).rule(trial.values, trial.dys)
    for key in KEYS:
        for mismatch in differences(trial, key, second[key], trial.got[key], 0.0):
            yield "nondeterminism", mismatch
            return
    with probing.types():
        inputs = *probing.structs(trial), np.float32(0), np.int32(0)
        again = jax.make_jaxpr(by_rule(probing.subject.function, trial.case.arguments))(*inputs)
    traces = probing.run(trial.case).program(by_rule).jaxpr, again
    texts = [re.sub(r"0x[0-9a-f]+", "", str(t)) for t in traces]
    same = texts[0] == texts[1] and all(
        np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind in "fc")
        for a, b in zip(traces[0].consts, traces[1].consts, strict=True)
        if isinstance(a, np.ndarray | jax.Array)
        and not jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    )
    if not same:
        why = "two traces of the same call give different programs"
        yield "nondeterminism", probing.finding(trial.case, "nondeterminism", why)
