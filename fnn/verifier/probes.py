"""The probes: the numbers on which each call is tried, and its trials in float64."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from . import values as numbers
from .arguments import Arguments, Leaf
from .jaxprs import equations, literals, structure
from .judge import noise_of, size_of, widen
from .passes import call
from .programs import Programs, dtype_of_cotangent, output_types
from .report import Finding
from .shapes import LARGE, Case
from .subject import Subject
from .trials import Probe, Trial

LANDMARKS = (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 6.0, -6.0)
GIVEN = Probe("ordinary numbers", "ordinary", fresh=False)
TIES = Probe("halves and whole numbers, with ties", "special", numbers.integers)
PROBES = (
    GIVEN,
    Probe("other ordinary numbers", "ordinary"),
    Probe("numbers of many magnitudes", "magnitude", numbers.wide, size=2.0**5),
    Probe("numbers times 2^10", "magnitude", numbers.scaled(10), size=2.0**10),
    Probe("numbers times 2^-10", "magnitude", numbers.scaled(-10)),
    Probe("numbers times 2^16", "magnitude", numbers.scaled(16), size=2.0**16),
    Probe("numbers times 2^-30", "magnitude", numbers.scaled(-30)),
    Probe("zeros among the numbers", "special", numbers.zeros),
    TIES,
    Probe("0, ±½, ±1, ±2, ±3, ±6", "special", numbers.among(LANDMARKS)),
    Probe("the same number everywhere", "special", numbers.level),
    Probe("masks false, indices lowest", "mask", numbers.extreme(False)),
    Probe("masks true, indices highest", "mask", numbers.extreme(True)),
    Probe("rows masked entirely", "mask", numbers.empty_rows),
)


def _alone(path: str) -> Iterator[Probe]:
    """Yield probes that change one argument, and leave the others ordinary."""
    yield Probe(f"{path} of many magnitudes", "magnitude", only(path, numbers.wide), size=2.0**5)
    for exponent in (2, 3, 4, 5, 10, -10):
        yield times(exponent, path)


def times(exponent: int, path: str, kind: str = "magnitude", subnormal: bool = False) -> Probe:
    """Scale one argument alone: a product of several large ones may overflow in either program."""
    # A derivative by another argument is as large as the scaled one, before terms cancel.
    size, style = 2.0 ** max(exponent, 0), only(path, numbers.scaled(exponent))
    return Probe(f"{path} times 2^{exponent}", kind, style, size=size, subnormal=subnormal)


def only(path: str, style: numbers.Style) -> numbers.Style:
    """Return a style that changes one argument alone."""

    def of_one(leaf: Leaf, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        return style(leaf, rng, x) if leaf.path == path else x

    return of_one


class Probing:
    """The calls on which a subject is tried, and their programs."""

    def __init__(
        self,
        subject: Subject,
        cases: Sequence[Case],
        seed: int,
        vary: bool,
        exact: tuple[str, str] = ("float64", "float64"),
        compiled: bool = False,
    ):
        self.subject, self.cases, self.seed, self.vary = subject, list(cases), seed, vary
        self.exact = exact
        """The dtypes in which the rule and the oracle are judged: float64 if they can run in it."""
        self.compiled = compiled
        """Whether XLA runs everything, even what NumPy can run."""
        self.binding = subject.states_conventions or states_conventions(
            subject.definition, cases[0].arguments, exact[1]
        )
        self._types: dict[int, list[Any]] = {}
        self._programs: dict[tuple[int, str, bool], Programs] = {}
        self._operations: dict[int, Any] = {}
        self.count = 0

    def run(self, case: Case, dtype: str = "", compiled: bool = False) -> Programs:
        """Return the programs of a case, in a dtype or in the widest ones that they run in.

        With `compiled`, XLA runs everything, even what NumPy can run.
        """
        key = self.cases.index(case), dtype, compiled or self.compiled
        if key not in self._programs:
            subject, (rule, oracle) = self.subject, (dtype, dtype) if dtype else self.exact
            self._programs[key] = Programs(
                *(subject.function, subject.definition, case.arguments, rule, oracle),
                compiled=key[-1],
                alone=bool(dtype),
                outputs=self.output(case),
            )
        return self._programs[key]

    def is_compiled(self, case: Case, dtype: str) -> bool:
        """Whether XLA already runs a case's programs in a dtype."""
        return (self.cases.index(case), dtype, True) in self._programs

    def types(self) -> Any:
        """Return the setting of 64-bit types under which the rule is judged."""
        return jax.enable_x64(self.exact[0] == "float64")

    def structs(self, trial: Trial) -> tuple[list[Any], list[Any]]:
        """Return the types of a trial's arrays and cotangents, as the rule is judged."""
        dtype = self.exact[0]
        dys = [jax.ShapeDtypeStruct(np.shape(d), dtype_of_cotangent(d, dtype)) for d in trial.dys]
        return trial.case.arguments.structs(dtype), dys

    def finding(self, case: Case, defect: str, why: str) -> Finding:
        """Return a finding about a whole call in float64."""
        call = case.arguments.show(self.subject.name, "float64")
        return Finding(defect, why=why, call=call, dtype="float64")

    def draw(self, case: Case, probe: Probe, seed: int = 0) -> tuple[list[Any], list[Any]]:
        """Return numbers for a case's arguments, and cotangents for its outputs."""
        draws = self.seed, seed, self.cases.index(case)
        number = PROBES.index(probe) if probe in PROBES else 99
        rng, of_keys = np.random.default_rng([*draws, number]), np.random.default_rng(draws)
        high, values = highest_index(case.arguments), []
        for leaf in case.arguments.leaves:
            # All probes of a case use the same key, so that they draw the same from it.
            x = leaf.value
            if x is None or probe.fresh:
                x = numbers.draw(leaf, of_keys if leaf.kind == "key" else rng, high)
            if leaf.kind != "key":
                x = probe.style(leaf, rng, widen(x) if leaf.differentiable else np.asarray(x))
            values.append(x)
        return values, [_cotangent(t, rng) for t in self.output(case)]

    def output(self, case: Case) -> list[Any]:
        """Return the types of a case's outputs."""
        key = self.cases.index(case)
        if key not in self._types:
            self._types[key] = output_types(self.subject.definition, case.arguments, self.exact[1])
        return self._types[key]

    def plan(self) -> Iterator[tuple[Case, Probe]]:
        """Yield every case with each of its probes, ordinary numbers first."""
        for case in self.cases:
            yield case, GIVEN
        if not self.vary:
            return
        operations: set[Any] = set()
        for case in self.cases:
            if case.fixed or case.size >= LARGE:
                continue
            if not case.original or self.operations(case) in operations:
                yield case, TIES
                continue
            operations.add(self.operations(case))
            alone = [p for path in case.arguments.paths for p in _alone(path)]
            for probe in [*PROBES[1:], *self._of_literals(case), *alone]:
                if probe.kind == "ordinary" or self.changes(case, probe):
                    yield case, probe

    def operations(self, case: Case) -> Any:
        """Return the operations of a case's oracle and rule; cases often differ in sizes alone."""
        key = self.cases.index(case)
        if key not in self._operations:
            self._operations[key] = tuple(structure(jaxpr) for jaxpr in self._jaxprs(case))
        return self._operations[key]

    def _jaxprs(self, case: Case) -> list[Any]:
        return [program.jaxpr.jaxpr for program in self.run(case).both()]

    def _of_literals(self, case: Case) -> Iterator[Probe]:
        """Yield a probe of the numbers in the programs themselves, which may be thresholds."""
        positive = set().union(*map(literals, self._jaxprs(case)))
        if landmarks := {*positive, *(-n for n in positive)}.difference(LANDMARKS):
            style = numbers.among(sorted(landmarks))
            yield Probe("numbers that the programs name", "special", style)

    def changes(self, case: Case, probe: Probe) -> bool:
        """Whether a probe's style changes any of a case's arguments."""
        rng = np.random.default_rng(0)
        for leaf in case.arguments.leaves:
            if leaf.kind == "key":
                continue
            x = np.asarray(numbers.draw(leaf, rng, 3))
            if not np.array_equal(x, probe.style(leaf, rng, x)):
                return True
        return False

    def trial(self, case: Case, probe: Probe, ordinary: "Trial | None", eps: float) -> Trial:
        """Return the trial of a case on a probe's numbers."""
        self.count += 1
        run = self.run(case)
        values, dys = self.draw(case, probe)
        trial = Trial(case, probe, values, dys, run.oracle(values, dys), run.rule(values, dys))
        for key in ("y", "ct"):
            own = [size_of(a) for a in trial.want[key]]
            usual = ordinary.scale[key] if ordinary else own
            if ordinary is None or ordinary.case is not case:
                # In another shape, a derivative may vanish that is a difference of larger terms.
                usual = list(map(max, own, usual)) if len(usual) == len(own) else own
            trial.scale[key] = [probe.size * size for size in usual]
        trial.noise = functools.cache(lambda: self._noise(trial, eps))
        return trial

    def _noise(self, trial: Trial, eps: float) -> dict[str, list[np.ndarray]]:
        """Return the change of each array by one rounding of the inputs or of the residuals."""
        rng = np.random.default_rng([self.seed, 7])
        near, again = self.run(trial.case).neighbours(trial.values, trial.dys, rng, eps)

        def noise(key: str, i: int) -> np.ndarray:
            want, got, size = trial.want[key][i], trial.got[key][i], trial.scale[key][i]
            if np.shape(want) != np.shape(got):
                return np.zeros(np.shape(want))
            return np.maximum(
                noise_of(want, [o[key][i] for o in near], eps, size=size),
                noise_of(got, [o[key][i] for o in again], eps, size=size),
            )

        return {key: [noise(key, i) for i in range(len(trial.want[key]))] for key in ("y", "ct")}


def highest_index(arguments: Arguments) -> int:
    """Return the highest integer to draw without a domain: below the size of every axis."""
    sizes = [n for leaf in arguments.leaves if leaf.differentiable for n in leaf.shape if n > 1]
    return min(sizes, default=2) - 1


KINKED = frozenset(
    [
        *("abs", "argmax", "argmin", "clamp", "cummax", "cummin", "max", "min", "reduce_max"),
        *("reduce_min", "reduce_window", "reduce_window_max", "reduce_window_min", "round", "sign"),
        *("sort", "top_k"),
    ]
)
"""Primitives that choose a derivative at their kink by themselves."""


def states_conventions(definition: Any, arguments: Arguments, dtype: str) -> bool:
    """Whether a definition states its derivative at every kink, with `where`.

    In max(x, 0) JAX chooses the derivative at 0; where(x > 0, x, 0) states it.
    """
    with jax.enable_x64(dtype == "float64"):
        run = functools.partial(call, definition, arguments)
        jaxpr = jax.make_jaxpr(run)(arguments.structs(dtype)).jaxpr
    return not any(e.primitive.name in KINKED for e in equations(jaxpr))


def _cotangent(kind: Any, rng: np.random.Generator) -> np.ndarray:
    dy = rng.normal(size=kind.shape)
    if jax.numpy.issubdtype(kind.dtype, jax.numpy.complexfloating):
        return dy + 1j * rng.normal(size=kind.shape)
    return np.asarray(dy)
