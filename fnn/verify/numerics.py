"""How does the rule round? In the dtype itself, against a float64 oracle at the same numbers.

The rule may have four times the error of automatic differentiation in the same dtype, or two units
in the last place. Where autodiff's own result is no number, or infinite, nothing is asked of the
rule. Numbers go up to the dtype's limits, and down to its subnormal ones.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import values as numbers
from .jaxprs import arithmetic
from .judge import (
    Misfit,
    digits_tolerance,
    misfit,
    noise_of,
    rounding_tolerance,
    size_of,
    widen,
)
from .mathematics import Mismatch
from .probes import PROBES, Probe, Probing, Trial, shaken, times
from .programs import by_rule, places
from .report import Finding
from .shapes import LARGE, Case
from .values import to_dtype

GRID = {
    "float64": (-1060, -700, -300, 300, 700, 1000),
    "float32": (-140, -100, -60, 60, 100, 124),
    "bfloat16": (-128, -100, -60, 60, 100, 124),
    "float16": (-20, -4, 4, 8, 12),
}
"""Powers of two by which ordinary numbers are scaled. The first gives subnormal numbers, which a
processor may take for 0, and whose reciprocals are infinite: of these, only numbers are asked."""
TAILS = (2, 3, 4, 5, 10, -10)
"""Powers of two by which float32 numbers are scaled as well, into tails that are not yet 0."""


def check(
    probing: Probing, dtype: str, errors: dict[str, float], resolved: float, brief: bool = False
) -> Iterator[tuple[str, Mismatch]]:
    """Yield what rounds worse than autodiff; enter the largest error in `errors`.

    With `brief`, only the first call is asked, and those at kinks and extremes: in a further dtype,
    all others round as they did in the first.

    Other shapes than the ones given are asked where float64 has not told: where the rule casts to a
    narrower dtype than this one, and its rounding `resolved` no more than that.
    """
    coarse = resolved > float(jnp.finfo(dtype).eps)
    known: set[Any] = set()
    for case in probing.cases:
        if brief and case is not probing.cases[0] and not case.fixed:
            continue
        if coarse or case.kind in ("given", "example"):
            operations = tuple(map(arithmetic, probing.operations(case)))
            if operations in known and not case.fixed:
                continue  # the same operations on other sizes round in the same way
            known.add(operations)
            found = list(_case(probing, case, dtype, errors))
            yield from found
            if found:
                return


def _case(
    probing: Probing, case: Case, dtype: str, errors: dict[str, float]
) -> Iterator[tuple[str, Mismatch]]:
    given = case.kind in ("given", "example")
    vary = probing.vary and given and not case.fixed and case.size < LARGE
    ordinary = [_Rounded(probing, case, PROBES[0], dtype, 0)]
    if vary:
        ordinary += [_Rounded(probing, case, PROBES[1], dtype, seed) for seed in (1, 2)]
    typical = {
        key: [max(r.error(key, i) for r in ordinary) for i in range(len(ordinary[0].auto[key]))]
        for key in ("y", "ct")
    }
    scales = {
        key: [max(r.scale(key, i) for r in ordinary) for i in range(len(ordinary[0].auto[key]))]
        for key in ("y", "ct")
    }
    for rounded in ordinary:
        yield from rounded.judge(typical, scales, errors)
    if not vary:
        return
    paths = [case.arguments.leaves[i].path for i in places(case.arguments)]
    exponents = GRID[dtype] + (TAILS if dtype == "float32" else ())
    styles = [PROBES[2], *(_scaled(k, path) for path in paths for k in exponents)]
    for probe in styles:
        if _tried(probing, case, probe):
            yield from _Rounded(probing, case, probe, dtype, 0).judge(typical, scales, errors)


def _tried(probing: Probing, case: Case, probe: Probe) -> bool:
    """Whether a probe tells anything: subnormal numbers may be taken for 0, if 0 is allowed."""
    bound = any(not numbers.free(case.arguments.leaves[i]) for i in places(case.arguments))
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
            widen(to_dtype(v, leaf.cast(dtype))) if leaf.differentiable else v
            for v, leaf in zip(values, case.arguments.leaves, strict=True)
        ]
        self.dys = [widen(to_dtype(dy, dtype)) if not np.iscomplexobj(dy) else dy for dy in dys]
        # The call at hand rounds as it will in use; others as NumPy does.
        first = case is probing.cases[0] and probing.is_compiled(case, dtype)
        narrow, exact = probing.run(case, dtype, first), probing.run(case)
        self.narrow = narrow
        self.got = narrow.rule(self.values, self.dys)
        self.auto = narrow.oracle(self.values, self.dys)
        self.want = exact.oracle(self.values, self.dys)
        mathematics = exact.rule(self.values, self.dys)
        # Where the rule follows another convention than autodiff (at a tie, say), that has been
        # judged in float64; here its own mathematics is the oracle, and no rounding is asked.
        self.other: dict[str, list[np.ndarray]] = {"y": [], "ct": []}
        for key in ("y", "ct"):
            for i, (want, rule) in enumerate(zip(self.want[key], mathematics[key], strict=True)):
                with np.errstate(invalid="ignore"):
                    other = np.abs(rule - want) > size_of(want) / 16
                self.want[key][i] = np.where(other, rule, want)
                self.other[key].append(np.where(other, np.inf, 0.0))

    @functools.cached_property
    def _repeated(self) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """The outcomes of autodiff, and those of the rule, where all has moved by one rounding."""
        narrow, eps = self.narrow, float(jnp.finfo(self.dtype).eps)
        rng = np.random.default_rng(3)
        near = []
        for _ in range(2):
            values = [shaken(v, rng, eps) for v in self.values]
            near.append(narrow.oracle(values, [shaken(d, rng, eps) for d in self.dys]))
        again = [narrow.rule(self.values, self.dys, jitter=eps, salt=s) for s in (1, 2)]
        by_key = [{k: [o[k] for o in outcomes] for k in ("y", "ct")} for outcomes in (near, again)]
        return by_key[0], by_key[1]

    def noise(self, key: str, which: int, *, jumps: bool = False) -> np.ndarray:
        """Return, element by element, what one rounding changes."""
        eps = float(jnp.finfo(self.dtype).eps)
        changes = (
            noise_of(base[key][which], [o[which] for o in outcomes[key]], eps, jumps=jumps)
            for base, outcomes in zip((self.auto, self.got), self._repeated, strict=True)
        )
        return np.maximum(np.maximum(*changes), self.other[key][which])

    def error(self, key: str, which: int) -> float:
        """Return autodiff's largest error."""
        want, auto = widen(self.want[key][which]), widen(self.auto[key][which])
        with np.errstate(invalid="ignore"):
            gap = np.abs(auto - want)[self.other[key][which] == 0]
        return float(np.max(gap[np.isfinite(gap)], initial=0.0))

    def scale(self, key: str, which: int) -> float:
        """Return the size of the expected array."""
        return size_of(self.want[key][which])

    def judge(
        self, typical: dict[str, list[float]], scales: dict[str, list[float]], errors: Any
    ) -> Iterator[tuple[str, Mismatch]]:
        """Compare every array that the rule gives."""
        limit = float(jnp.finfo(self.dtype).max)
        trial = Trial(self.case, self.probe, self.values, self.dys, self.want, self.got, self.dtype)
        for key in ("y", "ct"):
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
                askable = np.isfinite(auto) & (np.abs(want) < limit / 4)
                if self.probe.subnormal:
                    tolerance = np.full(np.shape(want), np.inf)
                asked = np.where(askable, want, np.nan)
                wrong = misfit(got, asked, tolerance)
                if wrong and not self.probe.subnormal:
                    wrong = misfit(got, asked, rounding(noise=self.noise(key, i)))
                if self.probe.kind == "tail" and not wrong:
                    wrong = self._digits(key, i, asked)
                if wrong:
                    yield _defect(self.probe, wrong), Mismatch(trial, key, i, wrong)

    def _digits(self, key: str, which: int, asked: np.ndarray) -> Misfit | None:
        """Judge digits by how large the array is in this tail: here, and then in other drawings."""
        half = float(jnp.finfo(self.dtype).eps) ** 0.5 * size_of(asked)
        if misfit(self.got[key][which], asked, np.full(np.shape(asked), half)) is None:
            return None
        auto, change = widen(self.auto[key][which]), self.noise(key, which, jumps=True)
        sizes = [size_of(asked)]
        for further in (0, 16):
            sizes += [self._drawn_size(key, which, seed) for seed in range(3, 3 + further)]
            tolerance = digits_tolerance(asked, auto, change, max(sizes), self.dtype)
            wrong = misfit(self.got[key][which], asked, tolerance)
            if wrong is None:
                return None
        return wrong

    def _drawn_size(self, key: str, which: int, seed: int) -> float:
        run = self.probing.run(self.case)
        return size_of(run.oracle(*self.probing.draw(self.case, self.probe, seed))[key][which])


def _defect(probe: Probe, wrong: Misfit) -> str:
    got = wrong.got[wrong.bad]
    if np.isnan(got).any():
        return "nan"
    if np.isinf(got).any() or (probe.kind == "magnitude" and not got.any()):
        return "overflow"
    return "rounding" if probe.kind == "ordinary" else "cancellation"


def poison(probing: Probing, case: Case, base: Trial) -> Iterator[tuple[str, Mismatch]]:
    """Put a NaN into one row, of each argument and of the cotangent; put -inf into some places.

    A NaN may reach its own row. Where the output is finite nonetheless, it may reach nothing.
    """
    run, binding = probing.run(case), probing.subject.states_conventions
    leaves = case.arguments.leaves
    for place in places(case.arguments):
        if not np.size(base.values[place]) or not numbers.free(leaves[place]):
            continue
        for name, where, what in (
            ("a NaN in its first row", _first(base.values[place]), np.nan),
            ("-inf in some places", _some(base.values[place]), -np.inf),
        ):
            values = list(base.values)
            values[place] = np.where(where, what, values[place])
            label = f"{leaves[place].path} with {name}"
            yield from _poisoned(base, run, values, base.dys, label, what, binding)
    for j, dy in enumerate(base.dys):
        dys = list(base.dys)
        if np.size(dy):
            dys[j] = np.where(_first(dy), np.nan, dy)
            label = f"the cotangent of output {j} with a NaN in its first row"
            yield from _poisoned(base, run, base.values, dys, label, np.nan, binding)


def _poisoned(
    base: Trial, run: Any, values: Any, dys: Any, label: str, what: float, binding: bool
) -> Iterator[tuple[str, Mismatch]]:
    want, got = run.oracle(values, dys), run.rule(values, dys)
    trial = Trial(base.case, Probe(label, "poison"), values, dys, want, got)
    floats = [values[i] for i in places(base.case.arguments)]
    if binding and np.isnan(what):  # an op's definition states where a NaN goes, place by place
        for j, (came, expected) in enumerate(zip(got["plain"], want["y"], strict=True)):
            alike = [v for v in floats if np.shape(v) == np.shape(came)]
            if not any(np.isnan(v).any() for v in alike):
                continue
            most = np.full(np.shape(expected), np.finfo(np.float64).max)
            if wrong := misfit(came, expected, most):
                yield "nan", Mismatch(trial, "plain", j, wrong)
    whole = all(np.isfinite(y).all() for y in want["y"]) and all(
        np.isfinite(y).all() for y in got["plain"]
    )
    if np.isinf(what) and not whole:
        return
    clean = all(np.isfinite(dy).all() for dy in dys)
    rows = len(dys[0]) if np.ndim(dys[0]) else None
    if not whole and not _rows_apart(want["y"]) and clean:
        return
    for i, (came, expected) in enumerate(zip(got["ct"], want["ct"], strict=True)):
        asked = np.isfinite(expected) & np.isfinite(base.got["ct"][i])
        if not (clean and whole):
            if not np.ndim(expected) or len(expected) != rows or not asked[1:].all():
                continue
            asked[:1] = False
        reference = np.where(asked, expected, np.nan)
        tolerance = np.full(np.shape(expected), np.finfo(np.float64).max)
        if wrong := misfit(came, reference, tolerance):
            yield "nan" if np.isinf(what) else "leakage", Mismatch(trial, "ct", i, wrong)


def _rows_apart(outputs: Any) -> bool:
    """Whether what is no number lies in the first rows of the outputs alone."""
    return all(np.ndim(y) and np.isfinite(y[1:]).all() for y in outputs)


def _first(array: np.ndarray) -> np.ndarray:
    chosen = np.zeros(np.shape(array), bool)
    chosen[(0,) * min(1, chosen.ndim)] = True
    return chosen


def _some(array: np.ndarray) -> np.ndarray:
    chosen = np.zeros(np.shape(array), bool)
    chosen.reshape(-1)[::5] = True
    return chosen


def finite(probing: Probing, case: Case) -> Iterator[tuple[str, Mismatch]]:
    """Go to the limits of float64: where autodiff is finite, the rule is to be so too."""
    run = probing.run(case)
    for path in [case.arguments.leaves[i].path for i in places(case.arguments)]:
        for probe in (_scaled(k, path) for k in GRID[probing.exact[0]]):
            if not _tried(probing, case, probe):
                continue
            values, dys = probing.draw(case, probe)
            want = run.oracle(values, dys)
            if not all(np.isfinite(y).all() for y in want["y"]):
                continue  # where the function is not finite, its derivative need not be
            got = run.rule(values, dys)
            trial = Trial(case, probe, values, dys, want, got)
            for i, (a, b) in enumerate(zip(got["ct"], want["ct"], strict=True)):
                most = np.inf if probe.subnormal else np.finfo(np.float64).max
                if wrong := misfit(a, b, np.full(np.shape(b), most)):
                    yield _defect(probe, wrong), Mismatch(trial, "ct", i, wrong)


def deterministic(probing: Probing, trial: Trial) -> Iterator[tuple[str, Any]]:
    """Run again, and trace again: both must give the same."""
    second = probing.run(trial.case).rule(trial.values, trial.dys)
    for key in ("y", "ct"):
        for i, (a, b) in enumerate(zip(second[key], trial.got[key], strict=True)):
            if wrong := misfit(a, b, np.zeros(np.shape(b))):
                yield "nondeterminism", Mismatch(trial, key, i, wrong)
                return
    arguments = trial.case.arguments
    with probing.types():
        inputs = *probing.structs(trial), np.float32(0), np.int32(0)
        again = jax.make_jaxpr(by_rule(probing.subject.function, arguments))(*inputs)
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
        call = arguments.show(probing.subject.name, "float64")
        yield "nondeterminism", Finding("nondeterminism", why=why, call=call)
