"""Trials: one call on one set of numbers, by the rule and by the oracle, and what differs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import values as numbers
from .arguments import Leaf
from .judge import EPS64, Misfit, exact_tolerance, misfit
from .passes import Outcome
from .report import Finding
from .shapes import Case


def as_drawn(leaf: Leaf, rng: np.random.Generator, x: Any) -> Any:
    """Return ordinary values unchanged."""
    del leaf, rng
    return x


@dataclass(frozen=True)
class Probe:
    """A way to choose numbers."""

    label: str
    kind: str
    """ordinary, magnitude, tail, special, mask, poison or transform."""
    style: numbers.Style = as_drawn
    fresh: bool = True
    """Whether new numbers are drawn even for arrays that have values."""
    size: float = 1.0
    """How much larger than for ordinary numbers the terms of a derivative may be."""
    subnormal: bool = False


@dataclass
class Trial:
    """One call on one set of numbers: the oracle's outcome and the rule's."""

    case: Case
    probe: Probe
    values: list[Any]
    dys: list[Any]
    want: Outcome
    got: Outcome
    dtype: str = "float64"
    noise: Callable[[], dict[str, list[np.ndarray]]] = dict
    """Returns the effect of one rounding; it is called only where that matters, as it runs both
    programs twice more."""
    scale: dict[str, list[float]] = field(default_factory=dict)

    def tolerance(self, what: str, which: int, eps: float = EPS64) -> np.ndarray:
        """Return the largest error that is allowed, element by element."""
        key = "ct" if what == "ct" else "y"
        noise, scale = self.noise()[key][which], self.scale[key][which]
        return exact_tolerance(self.want[key][which], noise, scale, eps)

    def misfit(
        self, got: np.ndarray, want: np.ndarray, what: str, which: int, eps: float = EPS64
    ) -> Misfit | None:
        """Compare an array with the expected output or cotangent."""
        key = "ct" if what == "ct" else "y"
        strict = exact_tolerance(self.want[key][which], 0.0, self.scale[key][which], eps)
        if misfit(got, want, strict) is None:
            return None
        return misfit(got, want, self.tolerance(what, which, eps))

    def compare(
        self, what: str, got: Sequence[Any], want: Sequence[Any], eps: float = EPS64
    ) -> Iterator["Mismatch"]:
        """Yield every output (`y`, `plain`) or cotangent (`ct`) that is not as expected."""
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            if wrong := self.misfit(a, b, what, i, eps):
                yield Mismatch(self, what, i, wrong)


@dataclass(frozen=True)
class Mismatch:
    """An array of a trial that is not as expected."""

    trial: Trial
    what: str
    """ct, y (the differentiated function's value) or plain (the function's own)."""
    which: int
    misfit: Misfit
    defect: str = ""
    """The defect that the point itself shows: "kink", "special value", or none."""

    @property
    def path(self) -> str:
        """The path of the argument whose cotangent it is."""
        return self.trial.case.arguments.paths[self.which]


Answer = Finding | tuple[str, Mismatch | Finding]
"""A finding, or a defect with its evidence; only the first evidence of each defect is reported."""
Answers = Iterator[Answer]


def differences(
    trial: Trial, what: str, got: Sequence[Any], want: Sequence[Any], allowed: float
) -> Iterator[Mismatch]:
    """Yield every array that differs from the expected one by more than one number allows."""
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if wrong := misfit(a, b, np.full(np.shape(b), allowed)):
            yield Mismatch(trial, what, i, wrong)
