"""The verifier: one function or op, all questions, one report."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..op import Op
from . import cost, cotangents, mathematics, numerics, transforms, types, votes
from .arguments import Arguments, Leaf, parse, struct
from .classify import classify
from .judge import EPS64, Misfit
from .mathematics import Mismatch
from .probes import GIVEN, Probe, Probing, Trial
from .programs import Run, by_autodiff, by_rule, places
from .report import Finding, Picture, Report
from .shapes import LARGE, Case, small, variants
from .subject import Subject, check_call, find, first_line

Found = Iterator[tuple[str, Mismatch | Finding]]


def run(
    function: Any,
    args: Sequence[Any] = (),
    statics: Mapping[str, Any] | None = None,
    definition: Callable[..., Any] | None = None,
    vary: bool = True,
    seed: int = 0,
    dtypes: Sequence[str] | None = None,
) -> Report:
    """Verify a function's backward rule; see `fnn.verify`.

    `seed` chooses the numbers that are drawn, `dtypes` those in which rounding is judged (of an
    op: float32 and bfloat16; of a call: those of its arguments).
    """
    start = time.perf_counter()
    subject = find(function, definition)
    report = Report(subject.name)
    if isinstance(function, Op) and not args and not statics:
        cases = examples(function, seed)
        dtypes = dtypes or ("float32", "bfloat16")
    else:
        given = parse(_signature_of(function), args, dict(statics or {}), subject.nondiff)
        with jax.enable_x64(any("64" in leaf.dtype for leaf in given.leaves)):
            if held := _held(subject, given):
                report.findings.append(held)
                report.seconds = time.perf_counter() - start
                return report
            check_call(subject, given)
        given = _domains(subject, given, seed)
        cases = _cases(subject, given, vary)
        dtypes = dtypes or _dtypes(given)
    try:
        _Verification(subject, cases, seed, vary, dtypes, report).go()
    except Exception as error:
        if "Tracer" not in f"{type(error).__name__} {error}":
            raise
        call = cases[0].arguments.show(subject.name)
        report.findings.append(types.failure(error, call=call))
    report.seconds = time.perf_counter() - start
    return report


def _signature_of(function: Any) -> Any:
    return getattr(function, "fun", function) if not isinstance(function, Op) else function


def _held(subject: Subject, given: Arguments) -> Finding | None:
    """Find an array in the place of an argument that is not differentiated, but static."""
    args, _ = given.build(given.leaves)
    for i in subject.nondiff:
        if i < len(args) and any(isinstance(a, Leaf) for a in jax.tree.leaves(args[i])):
            why = f"argument {i} is in nondiff_argnums and holds an array"
            leaf = next(a for a in jax.tree.leaves(args[i]) if isinstance(a, Leaf))
            return Finding("tracer", leaf.path, why=why, call=given.show(subject.name))
    return None


def _dtypes(given: Arguments) -> tuple[str, ...]:
    """Return the dtype in which rounding is judged: the narrowest that the arguments have."""
    floats = [leaf.dtype for leaf in given.leaves if leaf.kind == "float"]
    return (max(floats, key=lambda d: float(jnp.finfo(d).eps)),) if floats else ("float32",)


def examples(op: Op, seed: int) -> list[Case]:
    """Make a case of each of an op's examples but the large ones.

    Raises ValueError for an op without examples: nothing would be checked.
    """
    cases = []
    for i, example in enumerate(op.examples):
        if "bench" in example.tags:
            continue
        arrays, statics = op.bind(**example.draw(seed * 1000 + i, np.float64))
        given = parse(op, [None if a is None else np.asarray(a) for a in arrays], statics)
        fixed = bool(example.tags & {"kink", "extreme"})
        label = f"example {i}" + "".join(f", {tag}" for tag in sorted(example.tags))
        cases.append(Case(label, "example", given, fixed, "no reference" not in example.tags))
    if not cases:
        raise ValueError(
            f"{op.name} has no examples to verify it on; give @op(examples=...), or arguments: "
            f'fnn.verify({op.name}, "f32[8,16]")'
        )
    return cases


def _cases(subject: Subject, given: Arguments, vary: bool) -> list[Case]:
    cases = [Case("", "given", given, not vary)]
    if not vary:
        return cases
    accepts = _accepts(subject)
    base = given
    if cases[0].size >= LARGE:
        base = small(given, accepts)
        cases.append(Case("smaller", "given", base))
    return cases + variants(base, accepts)


def _accepts(subject: Subject) -> Callable[[Arguments], Any]:
    def accepts(arguments: Arguments) -> Any:
        try:
            return [(t.shape, str(t.dtype)) for t in _outputs(subject.definition, arguments)]
        except Exception:
            return None

    return accepts


def _outputs(function: Any, arguments: Arguments) -> list[Any]:
    def flat(*arrays: Any) -> list[Any]:
        args, kwargs = arguments.build(arrays)
        return jax.tree.leaves(function(*args, **kwargs))

    return jax.eval_shape(flat, *(struct(leaf) for leaf in arguments.leaves))


def _domains(subject: Subject, given: Arguments, seed: int) -> Arguments:
    """Find where the numbers of arguments without a domain must lie, for finite derivatives."""
    open_ = [i for i in places(given) if given.leaves[i].domain is None]
    open_ = [i for i in open_ if given.leaves[i].kind == "float"]
    if not open_ or any(given.leaves[i].value is not None for i in open_):
        return given
    best, most = given, -1.0
    for domain in ("real", "positive", (0.0, 1.0), "simplex", "spd"):
        for chosen in (open_, *([i] for i in open_ if len(open_) > 1)):
            tried = _with_domain(given, chosen, domain)
            if tried is None:
                continue
            finite = _finite(subject, tried, seed)
            if finite > most + 0.01:
                best, most = tried, finite
            if most == 1.0:
                return best
    return best


def _with_domain(given: Arguments, chosen: Sequence[int], domain: Any) -> Arguments | None:
    leaves = list(given.leaves)
    for i in chosen:
        shape = leaves[i].shape
        square = len(shape) > 1 and shape[-1] == shape[-2]
        if (domain == "simplex" and not shape) or (domain == "spd" and not square):
            return None
        leaves[i] = dataclasses.replace(leaves[i], domain=domain)
    return given.replace(leaves)


def _finite(subject: Subject, given: Arguments, seed: int) -> float:
    """Return the part of the definition's values and derivatives that are finite."""
    case = Case("", "given", given)
    probing = Probing(subject, [case], seed, True)
    outcome = probing.run(case).oracle(*probing.draw(case, GIVEN))
    arrays = [a for key in ("y", "ct") for a in outcome[key] if np.size(a)]
    return min((float(np.isfinite(a).mean()) for a in arrays), default=1.0)


TRANSFORMS = ("jit", "vmap", "remat", "scan", "devices", "second order")
"""Where programs differ, so may the rounding of a part that is cast to a narrower dtype."""


class _Verification:
    """All questions about one subject, the plainest first."""

    def __init__(
        self,
        subject: Subject,
        cases: list[Case],
        seed: int,
        vary: bool,
        dtypes: Sequence[str],
        report: Report,
    ):
        self.subject, self.dtypes, self.report, self.seed = subject, dtypes, report, seed
        self.vary = vary
        self.cases = cases
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
        for dtype in self.dtypes:
            Run(
                self.subject.function, self.subject.definition, self.cases[0].arguments, dtype
            ).start()
        probing = Probing(self.subject, self.cases, self.seed, self.vary, self.exact)
        verdict = mathematics.examine(probing, self.own_casts)
        report.resolution, report.errors["float64"] = verdict.resolution, verdict.error
        if verdict.eps > EPS64:
            report.notes.append(
                f"resolution {verdict.eps:.0e}: the rule or its definition computes in a narrower "
                "dtype than float64"
            )
        base = next(t for t in verdict.trials if t.probe is GIVEN and _telling(t))
        wrong = any(m.what == "ct" and m.trial is base for m in verdict.mismatches)
        self._add(numerics.deterministic(probing, base))
        if report.findings:
            return
        self._add(cotangents.check(probing, base, verdict.eps))
        if not any(f.defect in ("affine", "not linear") for f in report.findings):
            self._values(probing, verdict)  # of a rule that is not linear, values say nothing
        self._add(mathematics.reference(probing, verdict))
        self._add(cotangents.subsets(probing, base, verdict.eps))
        if not report.findings:
            for dtype in self.dtypes:
                if dtype != "float64":
                    self._add(numerics.check(probing, dtype, report.errors))
            if base.case.size < LARGE:
                alike = [t for t in verdict.trials if t.case is base.case]
                self._add(numerics.finite(probing, alike))
            if self.vary:
                self._add(numerics.poison(probing, base.case, base))
        self._add(cost.check(probing, base.case, self.dtypes[0], report.cost))
        self.cast = functools.cache(lambda: mathematics.cast(probing, True))
        if self.exact[0] != "float64":
            report.notes.append("transforms were not tried: the rule does not run in float64")
        elif not wrong:
            self._add(transforms.check(probing, base, verdict.eps, report.capabilities))
            special = [t for t in verdict.trials if t.case is base.case]
            special = [base, *(t for t in special if t.probe.kind == "special")]
            self._add(transforms.second_order(probing, special, verdict.eps, report.capabilities))
            known, found = transforms.capabilities(probing, base)
            report.capabilities |= known
            self._add(iter(("devices", m) for _, m in found))
        report.notes.extend(votes.check(probing, base))
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
        yield from types.check(self.subject, case.arguments, "float32", True)
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

    def _run(self, case: Case) -> Run:
        subject = self.subject
        return Run(subject.function, subject.definition, case.arguments, *self.exact)

    def _traceable(self) -> Iterator[Case]:
        """Yield the cases for which the rule can be traced; report those where it raises."""
        for case in self.cases:
            run = self._run(case)
            try:
                run.program(by_autodiff)
            except Exception:
                continue
            try:
                run.program(by_rule)
            except Exception as error:
                call = case.arguments.show(self.subject.name, "float64")
                why = f"raises {first_line(error)}"
                if case.kind == "broadcast":  # loud, and not what was asked for
                    self.report.notes.append(f"not every shape of the definition: {call} {why}")
                else:
                    defect = case.kind if case.kind in ("size", "geometry") else "fails"
                    self.report.findings.append(
                        Finding(defect, why=why, call=call, dtype="float64")
                    )
                continue
            yield case

    def _compiles(self, case: Case) -> bool:
        """Whether XLA takes a case; it refuses windows of size 0, say, for which tracing works."""
        run = self._run(case)
        try:
            run.program(by_autodiff).result()
            run.program(by_rule).result()
        except Exception as error:
            if case.kind in ("given", "example"):
                raise
            call = case.arguments.show(self.subject.name, "float64")
            self.report.notes.append(f"{call} cannot be compiled: {first_line(error)}")
            return False
        return True

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
        arguments = trial.case.arguments
        smallest = trial.case
        if verdict:
            same = [
                o.trial.case for o in verdict.mismatches if (o.what, o.which) == (m.what, m.which)
            ]
            smallest = min((c for c in same if c.size), key=lambda c: c.size, default=smallest)
        ct = m.what == "ct"
        label = trial.probe.label + (f", {trial.case.label}" if trial.case.label else "")
        self.report.findings.append(
            Finding(
                defect,
                argument=arguments.leaves[places(arguments)[m.which]].path if ct else "",
                output="" if ct else str(m.which),
                index=wrong.index,
                got=wrong.got[wrong.index].item(),
                expected=wrong.want[wrong.index].item(),
                tolerance=float(wrong.tolerance[wrong.index]),
                dtype=trial.dtype,
                probe=label,
                call=smallest.arguments.show(self.subject.name, trial.dtype),
                why=why,
                picture=Picture(wrong.got, wrong.want, wrong.tolerance),
            )
        )


def _telling(trial: Trial) -> bool:
    """Whether any cotangent of a trial is other than zero."""
    return any(np.size(a) and np.any(a) for a in trial.want["ct"]) or True


__all__ = ["Misfit", "Probe", "run"]
