"""All the questions about one subject, in order, and what is reported of the answers."""

import functools
from collections.abc import Collection, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from . import cost, cotangents, devices, mathematics, numerics, transforms, types, votes
from .arguments import struct
from .classify import classify, loses_digits
from .jaxprs import bytes_made, equations
from .judge import EPS64, misfit, nearness
from .mathematics import Mismatch
from .probes import GIVEN, Probing
from .programs import Program, Run, by_autodiff, by_rule, call, output_types, places
from .report import Finding, Picture, Report
from .shapes import LARGE, Case
from .subject import Subject, first_line

Found = Iterator[tuple[str, Mismatch | Finding]]
UNBOUNDED = 1e300
TRANSFORMS = ("jit", "vmap", "remat", "scan", "devices", "second order")
"""Where programs differ, so may the rounding of a part that is cast to a narrower dtype."""


HEAVY = 2**26, 2e8
"""Bytes of temporary memory, and operations, of a program that takes long to run many times."""


class Verification:
    """All questions about one subject, the plainest first."""

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
        self.own_casts = "float64" not in dtypes

    def go(self) -> None:
        """Ask everything; where a rule cannot even be traced, stop there."""
        report = self.report
        report.findings.extend(self._types())
        if any(
            f.defect not in ("weak type", "integer slot", "dtype", "x64") for f in report.findings
        ):
            return
        self.exact = self._exact()
        self.cases = [case for case in list(self._traceable()) if self._compiles(case)]
        if not self.cases:
            return
        probing = self._probing()
        compared = "xla" not in self.skip
        if compared:
            probing.run(self.cases[0], self.dtypes[0], compiled=True).start()
        if compared and not self._as_compiled(probing):
            report.notes.append("NumPy and XLA give different numbers; here are XLA's")
            probing = self._probing(compiled=True)
        self.probing = probing
        verdict = mathematics.examine(probing, self.own_casts)
        report.resolution, report.errors["float64"] = verdict.resolution, verdict.error
        if verdict.eps > EPS64:
            report.notes.append(
                f"resolution {verdict.eps:.0e}: the rule or its definition computes in a narrower "
                "dtype than float64"
            )
        if verdict.unlike:
            calls = ", ".join(
                c.arguments.show(self.subject.name, "float64") for c in verdict.unlike
            )
            report.notes.append(f"is another function than its definition for {calls}")
        base = next(t for t in verdict.trials if t.probe is GIVEN)
        wrong = any(m.what == "ct" and m.trial is base for m in verdict.mismatches)
        self._add(numerics.deterministic(probing, base))
        if any(f.defect == "nondeterminism" for f in report.findings):
            return
        self._add(cotangents.check(probing, base, verdict.eps))
        if not any(f.defect in ("affine", "not linear") for f in report.findings):
            self._values(probing, verdict)  # of a rule that is not linear, values say nothing
        self._add(mathematics.reference(probing, verdict))
        self._add(cotangents.subsets(probing, base, verdict.eps))
        if not any(f.group in ("value", "cotangent") for f in report.findings):
            narrow = [dtype for dtype in self.dtypes if dtype != "float64"]
            for i, dtype in enumerate(narrow):
                brief = i > 0 or "rounding" in self.skip
                self._add(numerics.check(probing, dtype, report.errors, verdict.eps, brief))
            if self.vary and base.case.size < LARGE and verdict.eps == EPS64:
                self._add(numerics.finite(probing, base.case))
            if self.vary:
                self._add(numerics.poison(probing, base.case, base))
        if "cost" not in self.skip:
            self._add(cost.check(probing, base.case, self.dtypes[0], report.cost))
        self.cast = functools.cache(lambda: mathematics.cast(probing, True))
        if self.exact[0] != "float64":
            report.notes.append("transforms were not tried: the rule does not run in float64")
        elif not wrong:
            if "jit" not in self.skip:
                self._add(transforms.uncompiled(probing, base, verdict.eps))
            self._add(transforms.check(probing, base, verdict.eps, report.capabilities))
            special = [t for t in verdict.trials if t.case is base.case]
            special = [base, *(t for t in special if t.probe.kind == "special")]
            self._add(transforms.second_order(probing, special, verdict.eps, report.capabilities))
            report.capabilities["jvp"] = transforms.forward_mode(probing, base)
            given = [t for t in verdict.trials if t.probe is GIVEN]
            if "devices" not in self.skip:
                self._add(devices.check(probing, given, report.capabilities))
        report.notes.extend(votes.check(probing, base))
        report.worst = self._worst(verdict)
        report.probes = probing.count

    def _types(self) -> Iterator[Finding]:
        case = self.cases[0]
        dtypes = list(dict.fromkeys([*self.dtypes, "float32"]))
        yield from types.slots(self.subject, case.arguments, "float32")
        for dtype in dtypes:
            found = list(types.check(self.subject, case.arguments, dtype, dtype == "float64"))
            yield from found
            if found:
                return
        try:
            yield from types.check(self.subject, case.arguments, "float32", True)
        except Exception:
            self.report.notes.append("the definition does not run with 64-bit types enabled")
        if "bfloat16" in dtypes:  # checked above
            self.report.capabilities["bfloat16"] = True
            return
        try:
            low = list(types.check(self.subject, case.arguments, "bfloat16", False))
        except Exception:
            self.report.capabilities["bfloat16"] = False
            return
        self.report.capabilities["bfloat16"] = all(f.defect != "fails" for f in low)
        yield from (f for f in low if f.defect != "fails")

    def _exact(self) -> tuple[str, str]:
        """Return the widest dtypes in which the rule and its definition can be traced."""
        arguments, widest = self.cases[0].arguments, []
        for function in (self.subject.function, self.subject.definition):
            with jax.enable_x64(True):
                try:
                    types.traced(function, arguments, "float64")
                    widest.append("float64")
                except Exception:
                    widest.append(next(d for d in (*self.dtypes, "float32") if d != "float64"))
        rule, oracle = widest
        return (rule, oracle) if oracle == "float64" else (oracle, oracle)

    def _probing(self, compiled: bool = False) -> Probing:
        return Probing(self.subject, self.cases, self.seed, self.vary, self.exact, compiled)

    def _as_compiled(self, probing: Probing) -> bool:
        """Whether the first case's programs, in its dtype, give the same when XLA compiles them."""
        case, dtype = probing.cases[0], self.dtypes[0]
        run, compiled = probing.run(case, dtype), probing.run(case, dtype, compiled=True)
        if not all(run.program(make).interpreted for make in (by_rule, by_autodiff)):
            return True
        trial = probing.trial(case, GIVEN, None, EPS64)
        grown = float(jnp.finfo(dtype).eps) / EPS64
        numbers = trial.values, trial.dys
        for ours, theirs in (
            (run.oracle(*numbers), compiled.oracle(*numbers)),
            (run.rule(*numbers), compiled.rule(*numbers)),
        ):
            for key in ("y", "ct"):
                for i, (a, b) in enumerate(zip(ours[key], theirs[key], strict=True)):
                    tolerance = grown * trial.tolerance(key, i)
                    if np.any(np.isnan(a) != np.isnan(b)) or misfit(a, b, tolerance):
                        return False
        return True

    def _run(self, case: Case) -> Run:
        subject = self.subject
        return Run(subject.function, subject.definition, case.arguments, *self.exact)

    def _traceable(self) -> Iterator[Case]:
        """Yield the cases for which the rule can be traced; report those where it raises."""
        refused: list[str] = []
        for case in self.cases:
            shown = case.arguments.show(self.subject.name, "float64")
            try:
                if case.optional and not self._grows(case):
                    continue
                run = self._run(case)
                run.program(by_autodiff)
            except Exception:
                continue
            first = case is self.cases[0]
            try:
                value = run.program(by_rule).types["plain"]
                if not first and _shapes(value) != _shapes(run.outputs):
                    refused.append(shown)
                    continue
            except Exception as error:
                if not first and not self._callable(case):
                    refused.append(shown)
                    continue
                if not case.demanded or not self._defined(case):
                    refused.append(shown)
                    continue
                defect = case.kind if case.kind in ("size", "geometry") else "fails"
                why = f"raises {first_line(error)}"
                self.report.findings.append(Finding(defect, why=why, call=shown, dtype="float64"))
                continue
            yield case
        if refused:
            self.report.notes.append(f"refuses what its definition takes: {', '.join(refused)}")

    def _defined(self, case: Case) -> bool:
        """Whether the definition has values for a case; the mean of nothing, say, has none."""
        probing = Probing(self.subject, [case], self.seed, True, self.exact)
        try:
            outcome = self._run(case).oracle(*probing.draw(case, GIVEN))
        except Exception:
            return False
        return all(np.isfinite(y).all() for y in outcome["y"])

    def _grows(self, case: Case) -> bool:
        """Whether a larger case is the same program as the first, on larger arrays alone.

        A loop in Python is not: it makes a long program. Nor is an iteration: it may converge for
        small sizes alone, and a recurrence over many steps may be chaotic.
        """
        lengths = []
        with jax.enable_x64(self.exact[1] == "float64"):
            for arguments in (self.cases[0].arguments, case.arguments):
                arrays = [struct(leaf, self.exact[1]) for leaf in arguments.leaves]
                run = functools.partial(call, self.subject.definition, arguments)
                names = [e.primitive.name for e in equations(jax.make_jaxpr(run)(arrays).jaxpr)]
                lengths.append(len(names))
        return lengths[0] == lengths[1] and not {"scan", "while"} & set(names)

    def _callable(self, case: Case) -> bool:
        """Whether the function itself, not differentiated, takes a case as its definition does."""
        functions = self.subject.function, self.subject.definition
        try:
            shapes = [
                _shapes(output_types(f, case.arguments, dtype))
                for f, dtype in zip(functions, self.exact, strict=True)
            ]
        except Exception:
            return False
        return shapes[0] == shapes[1]

    def _compiles(self, case: Case) -> bool:
        """Whether XLA takes a case; it refuses windows of size 0, say, for which tracing works."""
        run = self._run(case)
        try:
            programs = run.program(by_autodiff), run.program(by_rule)
            for program in programs:
                program.result()
            return not (case.optional and any(map(_heavy, programs)))
        except Exception as error:
            if case.kind in ("given", "example"):
                raise
            call = case.arguments.show(self.subject.name, "float64")
            self.report.notes.append(f"{call} cannot be compiled: {first_line(error)}")
            return False

    def _values(self, probing: Probing, verdict: mathematics.Verdict) -> None:
        """Report each output, and each argument's cotangent, that is wrong."""
        for what in ("y", "plain"):
            found = [m for m in verdict.mismatches if m.what == what]
            if found:
                why = "differentiated, the value is another than the definition's"
                if what == "plain":
                    why = "the value is another than the definition's"
                self._report("forward value", found[0], why, verdict)
                break
        places_ = sorted({m.which for m in verdict.mismatches if m.what == "ct"})
        for which in places_:
            found = [m for m in verdict.mismatches if m.what == "ct" and m.which == which]
            defect, why = classify(probing, found)
            self._report(defect, found[0], why, verdict)

    def _worst(self, verdict: mathematics.Verdict) -> dict[str, Picture]:
        """Return, of each cotangent, the trial of ordinary numbers that came nearest to failing."""
        nearest: dict[str, tuple[float, Picture]] = {}
        for trial in verdict.trials:
            if trial.probe.kind != "ordinary" or trial.case.kind not in ("given", "example"):
                continue
            arguments = trial.case.arguments
            for i, place in enumerate(places(arguments)):
                got, want = trial.got["ct"][i], trial.want["ct"][i]
                tolerance = trial.tolerance("ct", i, verdict.eps)
                name = f"d {arguments.leaves[place].path}"
                share = nearness(got, want, tolerance)
                if 0 <= share <= 1 and share >= nearest.get(name, (0.0,))[0]:
                    nearest[name] = share, Picture(got, want, tolerance)
        return {name: picture for name, (_, picture) in nearest.items()}

    def _add(self, found: Found) -> None:
        """Report the first of each defect."""
        for defect, what in found:
            if any(f.defect == defect for f in self.report.findings):
                continue
            if isinstance(what, Finding):
                self.report.findings.append(what)
            elif defect not in TRANSFORMS or what.misfit.relative > 64 * self.cast():
                self._report(defect, what, "", None)

    def _report(
        self, defect: str, m: Mismatch, why: str, verdict: mathematics.Verdict | None
    ) -> None:
        trial, wrong = m.trial, m.misfit
        if wrong.nonfinite and defect not in TRANSFORMS and self._fused(m):
            return
        if loses_digits(self.probing, m):
            defect, why = "cancellation", "digits are lost, and more than autodiff loses"
        arguments = trial.case.arguments
        smallest = trial.case
        if verdict:
            same = [
                o.trial.case for o in verdict.mismatches if (o.what, o.which) == (m.what, m.which)
            ]
            smallest = min((c for c in same if c.size), key=lambda c: c.size, default=smallest)
        ct = m.what == "ct"
        tolerance = float(wrong.tolerance[wrong.index])
        bounded = tolerance < UNBOUNDED  # else any finite number would have done
        label = trial.probe.label + (f", {trial.case.label}" if trial.case.label else "")
        self.report.findings.append(
            Finding(
                defect,
                argument=arguments.leaves[places(arguments)[m.which]].path if ct else "",
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
        )

    def _fused(self, m: Mismatch) -> bool:
        """Whether what is not finite comes of XLA alone, which fuses a·b - c into one rounding.

        The exponential of a difference that should be 0 may overflow by that.
        """
        trial = m.trial
        run = self.probing.run(trial.case, trial.dtype)
        try:
            outcome = run.uncompiled(trial.values, trial.dys)
        except Exception:
            return False
        came = outcome["ct" if m.what == "ct" else "y"][m.which]
        want = np.where(m.misfit.bad, m.misfit.want, np.nan)
        return misfit(came, want, m.misfit.tolerance) is None


def _shapes(types: Sequence[jax.ShapeDtypeStruct]) -> list[tuple[int, ...]]:
    return [t.shape for t in types]


def _heavy(program: Program) -> bool:
    if program.interpreted:
        return bytes_made(program.jaxpr.jaxpr) > HEAVY[0]
    compiled = program.result()
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
    return (memory is not None and memory.temp_size_in_bytes > HEAVY[0]) or (
        costs is not None and costs.get("flops", 0) > HEAVY[1]
    )
