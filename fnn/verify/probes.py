"""The probes: which numbers each call is tried on, and what comes of it in float64."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from . import values as numbers
from .arguments import Arguments, Leaf, struct
from .jaxprs import equations, literals, structure
from .judge import EPS64, Misfit, exact_tolerance, misfit, noise_of, size_of, widen
from .programs import (
    Outcome,
    Run,
    by_autodiff,
    by_rule,
    call,
    output_dtype,
    output_types,
    places,
)
from .shapes import LARGE, Case
from .subject import Subject


def _as_drawn(leaf: Leaf, rng: np.random.Generator, x: Any) -> Any:
    return x


@dataclass(frozen=True)
class Probe:
    """A way of choosing numbers. `fresh`: draw new ones even where values were given."""

    label: str
    kind: str
    """ordinary, magnitude, special or mask."""
    style: numbers.Style = _as_drawn
    fresh: bool = True
    size: float = 1.0
    """How much larger than for ordinary numbers the terms of a derivative may be."""
    subnormal: bool = False


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
    Probe("masks false, indices lowest", "mask", numbers.none),
    Probe("masks true, indices highest", "mask", numbers.every),
    Probe("rows masked entirely", "mask", numbers.empty_rows),
)


def _alone(leaf: Leaf) -> Iterator[Probe]:
    """Yield probes that change one argument, and leave the others ordinary."""
    wide = only(leaf.path, numbers.wide)
    yield Probe(f"{leaf.path} of many magnitudes", "magnitude", wide, size=2.0**5)
    for exponent in (2, 3, 4, 5, 10, -10):
        yield times(exponent, leaf.path)


def times(exponent: int, path: str, kind: str = "magnitude", subnormal: bool = False) -> Probe:
    """Scale one argument alone: products of several large ones overflow in any order or none."""
    # A derivative by another argument is as large as the scaled one, before terms cancel.
    size, style = 2.0 ** max(exponent, 0), only(path, numbers.scaled(exponent))
    return Probe(f"{path} times 2^{exponent}", kind, style, size=size, subnormal=subnormal)


def only(path: str, style: numbers.Style) -> numbers.Style:
    """Return a style that changes one argument alone."""

    def chosen(leaf: Leaf, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        return style(leaf, rng, x) if leaf.path == path else x

    return chosen


@dataclass
class Trial:
    """One call on one set of numbers: what the definition gives, and what the rule gives."""

    case: Case
    probe: Probe
    values: list[Any]
    dys: list[Any]
    want: Outcome
    got: Outcome
    dtype: str = "float64"
    noise: Callable[[], dict[str, list[np.ndarray]]] = dict
    """What one rounding changes, to be called if that matters: it takes twice the runs."""
    scale: dict[str, list[float]] = field(default_factory=dict)

    def tolerance(self, what: str, which: int, eps: float = EPS64) -> np.ndarray:
        """Return how far each element may be off."""
        key = "ct" if what == "ct" else "y"
        noise, scale = self.noise()[key][which], self.scale[key][which]
        return exact_tolerance(self.want[key][which], noise, scale, eps)

    def misfit(
        self, got: np.ndarray, want: np.ndarray, what: str, which: int, eps: float = EPS64
    ) -> Misfit | None:
        """Compare an array with what is expected of an output or of a cotangent."""
        key = "ct" if what == "ct" else "y"
        strict = exact_tolerance(self.want[key][which], 0.0, self.scale[key][which], eps)
        if misfit(got, want, strict) is None:
            return None
        return misfit(got, want, self.tolerance(what, which, eps))


class Probing:
    """The calls of a subject on which it is tried, and their float64 programs."""

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
        """The dtypes in which the rule and the oracle are judged: float64, where they can."""
        self.compiled = compiled
        """Whether XLA is to run everything, and not NumPy what it can."""
        self.binding = subject.states_conventions or states_conventions(
            subject.definition, cases[0].arguments, exact[1]
        )
        self._types: dict[int, list[Any]] = {}
        self._runs: dict[tuple[int, str, bool], Run] = {}
        self._operations: dict[int, Any] = {}
        self.count = 0

    def run(self, case: Case, dtype: str = "", compiled: bool = False) -> Run:
        """Return the programs of a case: in a dtype, or as exact as they can be.

        With `compiled`, XLA runs everything, and not NumPy what it can.
        """
        key = self.cases.index(case), dtype, compiled or self.compiled
        if key not in self._runs:
            subject, (rule, oracle) = self.subject, (dtype, dtype) if dtype else self.exact
            functions = subject.function, subject.definition
            self._runs[key] = Run(
                *functions,
                case.arguments,
                rule,
                oracle,
                compiled=key[-1],
                alone=bool(dtype),
                outputs=self.output(case),
            )
        return self._runs[key]

    def is_compiled(self, case: Case, dtype: str) -> bool:
        """Whether XLA has a case's programs in a dtype already."""
        return (self.cases.index(case), dtype, True) in self._runs

    def types(self) -> Any:
        """Return the setting of 64-bit types under which the rule is judged."""
        return jax.enable_x64(self.exact[0] == "float64")

    def structs(self, trial: "Trial") -> tuple[list[Any], list[Any]]:
        """Return the types of a trial's arrays and cotangents, as the rule is judged."""
        dtype = self.exact[0]
        arrays = [struct(leaf, dtype) for leaf in trial.case.arguments.leaves]
        dys = [jax.ShapeDtypeStruct(np.shape(d), output_dtype(d, dtype)) for d in trial.dys]
        return arrays, dys

    def draw(self, case: Case, probe: Probe, seed: int = 0) -> tuple[list[Any], list[Any]]:
        """Return numbers for a case's arguments, and cotangents for its outputs."""
        rng = np.random.default_rng(
            [
                self.seed,
                seed,
                self.cases.index(case),
                PROBES.index(probe) if probe in PROBES else 99,
            ]
        )
        high = highest_index(case.arguments)
        keys = np.random.default_rng([self.seed, seed, self.cases.index(case)])
        values = []
        for leaf in case.arguments.leaves:
            given = leaf.value is not None and not probe.fresh
            # All probes of a case draw from the same key: what is drawn from it is then known.
            x = (
                leaf.value
                if given
                else numbers.draw(leaf, keys if leaf.kind == "key" else rng, high)
            )
            if leaf.kind != "key":
                x = probe.style(leaf, rng, widen(x) if leaf.differentiable else np.asarray(x))
            values.append(x)
        return values, [_cotangent(t, rng) for t in self.output(case)]

    def output(self, case: Case) -> list[Any]:
        """Return the types of a case's outputs, in float64."""
        key = self.cases.index(case)
        if key not in self._types:
            self._types[key] = output_types(self.subject.definition, case.arguments, self.exact[1])
        return self._types[key]

    def plan(self) -> Iterator[tuple[Case, Probe]]:
        """Yield what is tried, ordinary numbers first."""
        for case in self.cases:
            yield case, GIVEN
        if not self.vary:
            return
        known: set[Any] = set()
        for case in self.cases:
            if case.fixed or case.size >= LARGE:
                continue
            if case.kind not in ("given", "example") or self.operations(case) in known:
                yield case, TIES
                continue
            known.add(self.operations(case))
            alone = [p for i in places(case.arguments) for p in _alone(case.arguments.leaves[i])]
            for probe in [*PROBES[1:], *self._named(case), *alone]:
                if probe.kind == "ordinary" or self.changes(case, probe):
                    yield case, probe

    def operations(self, case: Case) -> Any:
        """Return the operations of a case's rule and oracle: other sizes often have the same."""
        key = self.cases.index(case)
        if key not in self._operations:
            run = self.run(case)
            programs = (run.program(make).jaxpr.jaxpr for make in (by_rule, by_autodiff))
            self._operations[key] = tuple(map(structure, programs))
        return self._operations[key]

    def _named(self, case: Case) -> Iterator[Probe]:
        """Yield a probe of the numbers that the programs themselves name: thresholds, perhaps."""
        run = self.run(case)
        named = {
            sign * number
            for make in (by_rule, by_autodiff)
            for number in literals(run.program(make).jaxpr.jaxpr)
            for sign in (1, -1)
        }
        if named := named.difference(LANDMARKS):
            style = numbers.among(sorted(named))
            yield Probe("numbers that the programs name", "special", style)

    def changes(self, case: Case, probe: Probe) -> bool:
        """Whether a probe's style does anything to a case's arguments."""
        rng = np.random.default_rng(0)
        for leaf in case.arguments.leaves:
            if leaf.kind == "key":
                continue
            x = np.asarray(numbers.draw(leaf, rng, 3))
            if not np.array_equal(x, probe.style(leaf, rng, x)):
                return True
        return False

    def trial(self, case: Case, probe: Probe, ordinary: "Trial | None", eps: float) -> Trial:
        """Try a case on a probe's numbers."""
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
        """Return what one rounding of the inputs, or of the residuals, changes of each array.

        A trial's scale says how large the terms are that may cancel: with large numbers, larger.
        """
        run, rng = self.run(trial.case), np.random.default_rng([self.seed, 7])
        near = []
        for _ in range(2):
            values = [shaken(v, rng, eps) for v in trial.values]
            near.append(run.oracle(values, [shaken(dy, rng, eps) for dy in trial.dys]))
        again = [run.rule(trial.values, trial.dys, jitter=eps, salt=s) for s in (1, 2)]
        return {
            key: [
                np.maximum(
                    noise_of(want, [o[key][i] for o in near], eps, size=size),
                    noise_of(got, [o[key][i] for o in again], eps, size=size),
                )
                if np.shape(want) == np.shape(got)
                else np.zeros(np.shape(want))
                for i, (want, got, size) in enumerate(
                    zip(trial.want[key], trial.got[key], trial.scale[key], strict=True)
                )
            ]
            for key in ("y", "ct")
        }


def shaken(value: Any, rng: np.random.Generator, eps: float) -> Any:
    """Change floating-point numbers by one rounding, up or down."""
    if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.inexact):
        return value
    sign = np.where(rng.random(value.shape) < 0.5, eps, -eps)
    return value * (1 + sign)


def highest_index(arguments: Arguments) -> int:
    """Return the highest integer to draw where no domain is given: below every axis's size."""
    sizes = [n for leaf in arguments.leaves if leaf.differentiable for n in leaf.shape if n > 1]
    return min(sizes, default=2) - 1


KINKED = frozenset(
    [
        "abs",
        "argmax",
        "argmin",
        "clamp",
        "cummax",
        "cummin",
        "max",
        "min",
        "reduce_max",
        "reduce_min",
        "reduce_window",
        "reduce_window_max",
        "reduce_window_min",
        "round",
        "sign",
        "sort",
        "top_k",
    ]
)
"""Primitives that choose a derivative at their kink by themselves."""


def states_conventions(definition: Any, arguments: Arguments, dtype: str) -> bool:
    """Whether every kink of a definition is a choice that it writes out, with `where`.

    In max(x, 0) the derivative at 0 is what JAX makes of it; in where(x > 0, x, 0) it is stated.
    """
    with jax.enable_x64(dtype == "float64"):
        arrays = [struct(leaf, dtype) for leaf in arguments.leaves]
        jaxpr = jax.make_jaxpr(lambda *a: call(definition, arguments, a))(*arrays).jaxpr
    return not any(e.primitive.name in KINKED for e in equations(jaxpr))


def _cotangent(kind: Any, rng: np.random.Generator) -> np.ndarray:
    dy = rng.normal(size=kind.shape)
    if jax.numpy.issubdtype(kind.dtype, jax.numpy.complexfloating):
        return dy + 1j * rng.normal(size=kind.shape)
    return np.asarray(dy)
