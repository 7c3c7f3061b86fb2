"""One verification: its subject, its programs and verdict, and how answers become findings."""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np

from . import mathematics
from .calls import widest
from .classify import LOSS, loses_digits
from .judge import EPS64, misfit, nearness
from .probes import GIVEN, Probing
from .report import Finding, Picture, Report
from .shapes import Case
from .subject import Subject
from .trials import Answer, Answers, Mismatch, Trial

ALL = "all later questions"
UNBOUNDED = 1e300
TRANSFORMS = ("jit", "vmap", "remat", "scan", "devices", "second order")
"""These compile another program, in which a cast to a narrower dtype may round otherwise."""


@dataclass(frozen=True)
class Question:
    """One question about a subject.

    It is asked if its needs are met, and if no finding of an earlier question makes it meaningless.
    """

    name: str
    asks: str
    ask: Callable[["Verification"], Answers | None]
    needs: tuple[Callable[["Verification"], bool], ...] = ()
    stops: Mapping[str, Collection[str]] = field(default_factory=dict)
    """From a defect, or a group of them, to the later questions that it makes meaningless."""


class Verification:
    """A subject, the calls on which it is tried, its programs, verdict and report."""

    probing: Probing
    verdict: mathematics.Verdict

    def __init__(
        self,
        subject: Subject,
        cases: list[Case],
        seed: int,
        vary: bool,
        dtypes: Sequence[str],
        report: Report,
        skip: Collection[str] = (),
    ):
        self.subject, self.cases, self.seed, self.vary = subject, cases, seed, vary
        self.dtypes, self.report, self.skip = dtypes, report, skip

    def answer(self, questions: Sequence[Question]) -> None:
        """Ask the questions in order, and report their findings."""
        stopped = set(self.skip)
        for question in questions:
            if ALL in stopped or not self.cases:
                return
            if question.name in stopped or not all(need(self) for need in question.needs):
                continue
            before = len(self.report.findings)
            for answer in question.ask(self) or ():
                self._report(answer)
            for finding in self.report.findings[before:]:
                for kind in (finding.defect, finding.group):
                    stopped.update(question.stops.get(kind, ()))

    @functools.cached_property
    def exact(self) -> tuple[str, str]:
        """The widest dtypes in which the rule and its definition can be traced."""
        return widest(self.subject, self.cases[0], self.dtypes)

    @property
    def eps(self) -> float:
        """The rounding that limits the verdict."""
        return self.verdict.eps

    @functools.cached_property
    def base(self) -> Trial:
        """The trial of the first call on ordinary numbers."""
        return next(t for t in self.verdict.trials if t.probe is GIVEN)

    @functools.cached_property
    def cast(self) -> float:
        """The eps of the narrowest dtype to which a float64 call casts."""
        return mathematics.cast(self.probing, True)

    def worst(self) -> dict[str, Picture]:
        """Return, per cotangent, the picture of the passing trial nearest to its tolerance."""
        nearest: dict[str, tuple[float, Picture]] = {}
        for trial in self.verdict.trials:
            if trial.probe.kind != "ordinary" or not trial.case.original:
                continue
            for i, path in enumerate(trial.case.arguments.paths):
                got, want = trial.got["ct"][i], trial.want["ct"][i]
                tolerance = trial.tolerance("ct", i, self.eps)
                share = nearness(got, want, tolerance)
                if 0 <= share <= 1 and share >= nearest.get(f"d {path}", (0.0,))[0]:
                    nearest[f"d {path}"] = share, Picture(got, want, tolerance)
        return {name: picture for name, (_, picture) in nearest.items()}

    def _report(self, answer: Answer) -> None:
        findings = self.report.findings
        if isinstance(answer, Finding):
            findings.append(answer)
            return
        defect, evidence = answer
        if any(f.defect == defect for f in findings):
            return
        if isinstance(evidence, Finding):
            findings.append(evidence)
        elif defect not in TRANSFORMS or evidence.misfit.relative > 64 * self.cast:
            findings.extend(self.finding(defect, "", [evidence]))

    def finding(self, defect: str, why: str, alike: Sequence[Mismatch]) -> Iterator[Finding]:
        """Yield the finding of the first mismatch, unless its numbers are finite uncompiled.

        They are mismatches of one array; the finding's call is the smallest of theirs.
        """
        m = alike[0]
        trial, wrong = m.trial, m.misfit
        if wrong.nonfinite and defect not in TRANSFORMS and self._only_fused(m):
            return
        if loses_digits(self.probing, m):
            defect, why = LOSS
        cases = (o.trial.case for o in alike if o.trial.case.size)
        smallest = min(cases, key=lambda case: case.size, default=trial.case)
        ct = m.what == "ct"
        tolerance = float(wrong.tolerance[wrong.index])
        bounded = tolerance < UNBOUNDED  # otherwise any finite number would pass
        label = trial.probe.label + (f", {trial.case.label}" if trial.case.label else "")
        yield Finding(
            defect,
            argument=m.path if ct else "",
            output="" if ct else str(m.which),
            index=wrong.index,
            got=wrong.got[wrong.index].item(),
            expected=wrong.want[wrong.index].item(),
            tolerance=tolerance if bounded else None,
            dtype=trial.dtype,
            probe=label,
            call=smallest.arguments.show(self.subject.name, trial.dtype),
            why=why,
            picture=Picture(wrong.got, wrong.want, wrong.tolerance) if bounded else None,
        )

    def _only_fused(self, m: Mismatch) -> bool:
        """Whether numbers are not finite only because XLA fuses a·b - c into one rounding.

        The exponential of a difference that should be 0 may then overflow.
        """
        trial = m.trial
        try:
            run = self.probing.run(trial.case, trial.dtype)
            outcome = run.uncompiled(trial.values, trial.dys)
        except Exception:
            return False
        actual = outcome["ct" if m.what == "ct" else "y"][m.which]
        want = np.where(m.misfit.bad, m.misfit.want, np.nan)
        return misfit(actual, want, m.misfit.tolerance) is None

    def same_as_compiled(self, probing: Probing) -> bool:
        """Whether NumPy and XLA give the first call the same numbers, in its own dtype."""
        case, dtype = probing.cases[0], self.dtypes[0]
        run, compiled = probing.run(case, dtype), probing.run(case, dtype, compiled=True)
        if not all(program.interpreted for program in run.both()):
            return True
        trial = probing.trial(case, GIVEN, None, EPS64)
        factor = float(jnp.finfo(dtype).eps) / EPS64
        numbers = trial.values, trial.dys
        for ours, theirs in (
            (run.oracle(*numbers), compiled.oracle(*numbers)),
            (run.rule(*numbers), compiled.rule(*numbers)),
        ):
            for key in ("y", "ct"):
                for i, (a, b) in enumerate(zip(ours[key], theirs[key], strict=True)):
                    tolerance = factor * trial.tolerance(key, i)
                    if np.any(np.isnan(a) != np.isnan(b)) or misfit(a, b, tolerance):
                        return False
        return True
