"""One trial: a mutant or a correct rule, and the verdicts of the verifier and of other checkers."""

import contextlib
import functools
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from fnn.verifier.core import run

from .equivalent import EQUIVALENT
from .operators import OPERATORS
from .rivals import RIVALS, accepts, draw_arguments
from .rule import Rule
from .rules import RULES

SAMPLE = 8
"""The rules that a sample puts one kind of fault into, at most."""
BROKEN = "?"
"""The label of an operator that raises an error for a rule."""
TIMED = ("float32", 0)
"""The dtype and seed at which the command times a correct rule."""
RIVAL_DTYPES = ("float32", "float64")
"""The dtypes in which other checkers try a mutant."""


@dataclass(frozen=True, order=True)
class Trial:
    """A mutant or, where `operator` is empty, a correct rule, with the verdicts on it.

    `label` says where the operator puts its fault. A mutant is tried in float32, from seed 0.
    """

    rule: str
    operator: str = ""
    label: str = ""
    dtype: str = "float32"
    seed: int = 0
    defects: tuple[str, ...] = ()
    """The names of the defects that the verifier reports, the gravest first."""
    report: str = ""
    """The report of the verifier on a rule that it rejects."""
    error: str = ""
    """The error that the verifier raised."""
    unsupported: str = ""
    """The error of the definition itself in this dtype; the verdict then does not count."""
    seconds: tuple[float, ...] = ()
    """The time of each call of the verifier."""
    rivals: dict[str, bool] = field(default_factory=dict, compare=False)
    """By name, whether another checker rejects the rule."""

    @property
    def key(self) -> tuple[Any, ...]:
        """Rule, operator and label of a mutant; rule, dtype and seed of a correct rule."""
        run = (self.operator, self.label) if self.operator else (self.dtype, self.seed)
        return self.rule, *run

    @property
    def name(self) -> str:
        """The key as text: rule/operator/label or rule/dtype/seed."""
        return "/".join(map(str, self.key))

    @property
    def group(self) -> str:
        """The group of defects that a mutant's fault belongs to."""
        return OPERATORS[self.operator].group

    @property
    def right_names(self) -> frozenset[str]:
        """The defects that name a mutant's fault rightly."""
        return OPERATORS[self.operator].defects

    @property
    def equivalence(self) -> str:
        """The reason why a mutant is no fault; empty for one that is."""
        mutant = self.rule, self.operator
        return EQUIVALENT.get((*mutant, self.label)) or EQUIVALENT.get((*mutant, "*"), "")

    @property
    def is_fault(self) -> bool:
        """Whether the verifier should reject it."""
        return bool(self.operator) and not self.equivalence

    @property
    def is_killed(self) -> bool:
        """Whether the verifier rejects it."""
        return bool(self.defects)

    @property
    def is_named(self) -> bool:
        """Whether the gravest defect that the verifier reports names the fault rightly."""
        return self.is_killed and self.defects[0] in self.right_names

    @property
    def is_survivor(self) -> bool:
        """Whether the verifier misses a fault."""
        return self.is_fault and not self.is_killed

    @property
    def is_false_alarm(self) -> bool:
        """Whether the verifier rejects a correct rule, or raises an error for it."""
        return not self.is_fault and bool(self.defects or self.error)


# Choosing trials


@functools.lru_cache(maxsize=1)
def mutants(rule: str, operator: str) -> dict[str, Rule]:
    """Return the ways to put one kind of fault into one rule, by label."""
    return dict(OPERATORS[operator].make(RULES[rule]))


def labels(rule: str, operator: str) -> list[str]:
    """Return the labels of the mutants, or BROKEN alone if the operator raises an error."""
    try:
        return list(mutants(rule, operator))
    except Exception:  # the trial meets it again, and reports it
        return [BROKEN]


def faulty_trials(rules: Sequence[str], sample: bool, operator: str) -> list[Trial]:
    """Return the trials of one operator: every mutant, or a sample with one mutant per rule.

    The names decide what a sample holds, so every run tries the same.
    """
    if not sample:
        return [Trial(rule, operator, label) for rule in rules for label in labels(rule, operator)]
    trials: list[Trial] = []
    for rule in sorted(rules, key=lambda rule: lot(rule, operator)):
        choices = [Trial(rule, operator, label) for label in labels(rule, operator)]
        trials += sorted(choices, key=lambda trial: lot(*trial.key))[:1]
        if len(trials) == SAMPLE:
            break
    return trials


def lot(*names: object) -> int:
    """Return a number that looks random, and is always the same for the same names."""
    return zlib.crc32(repr(names).encode())


# Carrying them out


@functools.cache
def built(rule: str) -> Callable[..., Any]:
    """Return a correct rule put together once, so that its compiled programs serve again."""
    return RULES[rule].build()


def carry_out(trial: Trial, compare: bool = False, timed: bool = False, vary: bool = True) -> Trial:
    """Return a trial with the verdicts: the verifier's and, to `compare`, other checkers'.

    A correct rule that is `timed` is verified twice, from cold and then again. `vary` is the
    argument of `fnn.verify`.
    """
    rule = RULES[trial.rule]
    if trial.operator:
        try:
            rule = mutants(trial.rule, trial.operator)[trial.label]
        except Exception as error:
            return replace(trial, error=f"the operator fails: {in_a_line(error)}")
    with user_settings():
        trial = _verify(trial, rule, timed, vary)
        if compare and not trial.unsupported:
            trial = replace(trial, rivals=rival_verdicts(trial, rule))
    return trial


def _verify(trial: Trial, rule: Rule, timed: bool, vary: bool) -> Trial:
    """Return a trial with the verdict of the verifier."""
    definition, correct = rule.definition, RULES[trial.rule]
    if definition is None and rule.primal is not correct.primal:
        definition = correct.primal  # the fault changes the body of the rule too
    if timed:
        jax.clear_caches()
        built.cache_clear()
    arguments, seconds = rule.cast(trial.dtype), []
    try:
        function = rule.build() if trial.operator else built(trial.rule)
        for _ in range(1 + timed):
            start = time.perf_counter()
            report = run(function, arguments, definition=definition, vary=vary, seed=trial.seed)
            seconds.append(time.perf_counter() - start)
    except Exception as error:
        if not trial.operator and (reason := definition_error(trial)):
            return replace(trial, unsupported=reason)
        return replace(trial, error=in_a_line(error))
    return replace(
        trial,
        defects=tuple(finding.defect for finding in report.findings),
        report="" if report.ok else str(report),
        seconds=tuple(seconds),
    )


def carry_out_in_turn(compare: bool, trial: Trial) -> Trial:
    """Return a trial with the verdicts, in a process that goes from rule to rule."""
    _drop_programs_before(trial.rule)
    timed = not trial.operator and (trial.dtype, trial.seed) == TIMED
    return carry_out(trial, compare, timed)


@functools.lru_cache(maxsize=1)
def _drop_programs_before(rule: str) -> None:
    """Drop the compiled programs of other rules when a rule's first trial begins."""
    jax.clear_caches()


def definition_error(trial: Trial) -> str:
    """Return the error that the definition of a correct rule raises; empty if it runs."""
    rule = RULES[trial.rule]
    definition = rule.definition or rule.primal
    with jax.enable_x64(trial.dtype == "float64"):
        try:
            jax.block_until_ready(definition(*draw_arguments(rule, trial.dtype, trial.seed)))
        except Exception as error:
            return in_a_line(error)
    return ""


def rival_verdicts(trial: Trial, rule: Rule) -> dict[str, bool]:
    """Return by checker, and for mutants by dtype, whether it rejects a rule."""
    if not trial.operator:
        return {name: not accepts(name, rule, trial.dtype, trial.seed) for name in RIVALS}
    return {
        f"{name} {dtype}": not accepts(name, rule, dtype, trial.seed)
        for name in RIVALS
        for dtype in RIVAL_DTYPES
    }


@contextlib.contextmanager
def user_settings() -> Iterator[None]:
    """Set JAX as its users have it, wherever a trial runs: no setting may hide a fault."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def in_a_line(error: Exception) -> str:
    """Return the kind and the first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
