"""One trial: the checker on one mutant, or on one correct rule."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from ..report import Finding
from .corpus import Mutant, Rule, group
from .rivals import RIVALS, accepts, drawn

COMPARED = ("float32", "float64")
"""The dtypes in which the other checkers get a mutant."""


@dataclass(frozen=True)
class Trial:
    """What the checker said of one mutant; `found` are the defects it named, the gravest first.

    `rivals` says by checker and dtype whether it rejected the mutant.
    """

    rule: str
    operator: str
    label: str
    group: str
    expected: frozenset[str]
    equivalent: str
    found: tuple[str, ...] = ()
    error: str = ""
    seconds: float = 0.0
    rivals: dict[tuple[str, str], bool] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """rule/operator/label."""
        return f"{self.rule}/{self.operator}/{self.label}"

    @property
    def killed(self) -> bool:
        """Whether the mutant was rejected."""
        return bool(self.found)

    @property
    def named(self) -> bool:
        """Whether the first finding calls the fault by its right name."""
        return self.killed and self.found[0] in self.expected

    @property
    def mentioned(self) -> bool:
        """Whether any finding does."""
        return not self.expected.isdisjoint(self.found)


@dataclass(frozen=True)
class CleanTrial:
    """What the checker said of a correct rule, where anything but silence is a false alarm.

    `seconds` has the time of each call: where it was timed, from cold and then again. `skipped`
    says why nothing was asked: the function itself does not run in this dtype.
    """

    rule: str
    dtype: str
    seed: int
    findings: tuple[str, ...] = ()
    error: str = ""
    seconds: tuple[float, ...] = ()
    skipped: str = ""
    rivals: dict[tuple[str, str], bool] = field(default_factory=dict)

    @property
    def alarm(self) -> bool:
        """Whether it was rejected, or the checker fell over it."""
        return bool(self.findings or self.error)


def blank(mutant: Mutant, equivalent: str = "") -> Trial:
    """Return the trial of a mutant, not yet made."""
    fault = mutant.operator
    names = mutant.clean.name, fault.name, mutant.label
    return Trial(*names, group(fault), fault.defects, equivalent)


def try_mutant(
    mutant: Mutant, equivalent: str = "", compare: bool = False, vary: bool = True
) -> Trial:
    """Give a mutant to the checker, and to the others if asked for."""
    from ..core import run

    found: tuple[str, ...] = ()
    error = ""
    start = time.perf_counter()
    with surroundings():
        try:
            rule, definition = mutant.rule, mutant.definition
            report = run(rule.build(), rule.args, definition=definition, vary=vary)
            found = tuple(finding.defect for finding in report.findings)
        except Exception as crash:
            error = said(crash)
    return replace(
        blank(mutant, equivalent),
        found=found,
        error=error,
        seconds=time.perf_counter() - start,
        rivals=try_rivals(mutant.rule, COMPARED) if compare else {},
    )


def try_clean(
    rule: Rule,
    dtype: str,
    seed: int = 0,
    timed: bool = False,
    compare: bool = False,
    function: Callable[..., Any] | None = None,
) -> CleanTrial:
    """Give a correct rule to the checker; `timed`, from cold and then again.

    `function` is the rule put together before: what was compiled for it serves again.
    """
    from ..core import run

    if timed:
        jax.clear_caches()
    findings: list[Finding] = []
    seconds: list[float] = []
    error = ""
    args = rule.cast(dtype)
    if function is None or timed:
        function = rule.build()
    with surroundings():
        try:
            for _ in range(1 + timed):
                start = time.perf_counter()
                report = run(function, args, definition=rule.definition, seed=seed)
                seconds.append(time.perf_counter() - start)
                findings = report.findings
        except Exception as crash:
            skipped = why_not(rule, dtype, seed)
            if skipped:
                return CleanTrial(rule.name, dtype, seed, skipped=skipped)
            error = said(crash)
    return CleanTrial(
        *(rule.name, dtype, seed),
        findings=tuple(map(line, findings)),
        error=error,
        seconds=tuple(seconds),
        rivals=try_rivals(rule, (dtype,), seed) if compare else {},
    )


def try_rivals(rule: Rule, dtypes: tuple[str, ...], seed: int = 0) -> dict[tuple[str, str], bool]:
    """Return by checker and dtype whether it rejects the rule."""
    with surroundings():
        return {
            (name, dtype): not accepts(name, rule, dtype, seed)
            for name in RIVALS
            for dtype in dtypes
        }


def why_not(rule: Rule, dtype: str, seed: int) -> str:
    """Return how a rule's definition fails in a dtype; empty if it runs."""
    definition: Callable[..., Any] = rule.definition or rule.primal
    with jax.enable_x64(dtype == "float64"):
        try:
            jax.block_until_ready(definition(*drawn(rule, dtype, seed)))
        except Exception as failure:
            return said(failure)
    return ""


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """JAX as its users have it, wherever a trial runs: a fault must not hide behind a setting."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def said(error: Exception) -> str:
    """Return an error's kind and first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def line(finding: Finding) -> str:
    """Return a finding in a line."""
    where = " ".join(filter(None, (finding.argument, finding.output, finding.probe, finding.dtype)))
    numbers = f"; got {finding.got}, expected {finding.expected} ± {finding.tolerance}"
    told = finding.got is not None
    return f"{finding.defect} ({where}): {finding.why}{numbers if told else ''}"
