"""What was found about one backward rule, and how it is said."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import words
from .defects import DEFECTS


@dataclass(frozen=True)
class Picture:
    """What was expected and what came, for one array: the error map of a page."""

    got: np.ndarray
    expected: np.ndarray
    tolerance: np.ndarray


@dataclass(frozen=True)
class Finding:
    """One defect: what it is, where it shows, and on how small an input.

    `argument` is the path of the argument whose cotangent is wrong ("x", "params['w']"; "" where
    a finding concerns no single one) and `output` the output whose cotangent shows it. `index` is
    the worst element, which is `got` where `expected ± tolerance` should be. `call` is the
    smallest input known to show it, and `why` says in a line what was tested.
    """

    defect: str
    argument: str = ""
    output: str = ""
    index: tuple[int, ...] = ()
    got: complex | None = None
    expected: complex | None = None
    tolerance: float | None = None
    dtype: str = ""
    probe: str = ""
    call: str = ""
    why: str = ""
    picture: Picture | None = field(default=None, repr=False, compare=False)

    @property
    def group(self) -> str:
        """value, cotangent, types, numerics, transforms or cost."""
        return DEFECTS[self.defect].group

    @property
    def advice(self) -> str:
        """One line on what to do about it."""
        return DEFECTS[self.defect].advice


@dataclass
class Report:
    """Everything said about one function.

    `resolution` holds for each argument the smallest error of a single element that this run
    would have caught, relative to the size of the cotangent's elements (their root mean square);
    None where the gradient is zero at every probe, so that nothing could be told.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)
    resolution: dict[str, float | None] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    """By dtype, the largest error over the size of its array."""
    capabilities: dict[str, bool | None] = field(default_factory=dict)
    """jvp, hessian, vmap, …: whether it works; None: it was not tried."""
    cost: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes of residuals and of temporary memory: the rule's, and automatic differentiation's."""
    notes: list[str] = field(default_factory=list)
    """Facts that are no failures."""
    worst: dict[str, Picture] = field(default_factory=dict, repr=False)
    """Of each cotangent that passed, the one nearest to its tolerance."""
    probes: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def raise_if_failed(self) -> None:
        """Raise an AssertionError that says what was found, if anything was."""
        if self.findings:
            raise AssertionError(words.failure(self))

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain dicts, lists, strings and numbers."""
        return words.as_json(self)

    def __str__(self) -> str:
        return words.as_text(self)
