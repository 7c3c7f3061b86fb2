"""The questions about a backward rule, in order: what each asks, what it needs, what it stops."""

from . import calls, cost, cotangents, devices, mathematics, numerics, transforms, types, votes
from .classify import classify
from .judge import EPS64
from .probes import Probing
from .report import Finding
from .shapes import LARGE
from .trials import Answers
from .verification import ALL, Question, Verification


def ask_types(v: Verification) -> Answers:
    """Compare types in each dtype, with 64-bit types enabled, and in bfloat16 if it runs there."""
    subject, arguments, capabilities = v.subject, v.cases[0].arguments, v.report.capabilities
    dtypes = list(dict.fromkeys([*v.dtypes, "float32"]))
    yield from types.slots(subject, arguments, "float32")
    for dtype in dtypes:
        findings = list(types.check(subject, arguments, dtype, dtype == "float64"))
        yield from findings
        if findings:
            return
    try:
        yield from types.check(subject, arguments, "float32", True)
    except Exception:
        v.report.notes.append("the definition does not run with 64-bit types enabled")
    capabilities["bfloat16"] = True
    if "bfloat16" not in dtypes:
        try:
            findings = list(types.check(subject, arguments, "bfloat16", False))
        except Exception:
            capabilities["bfloat16"] = False
            return
        capabilities["bfloat16"] = all(f.defect != "fails" for f in findings)
        yield from (f for f in findings if f.defect != "fails")


def ask_calls(v: Verification) -> Answers:
    """Keep the calls in which the rule can be traced and compiled."""
    probing, traceable = Probing(v.subject, v.cases, v.seed, v.vary, v.exact), []
    for case in calls.traceable(probing, v.report):
        if isinstance(case, Finding):
            yield case
        else:
            traceable.append(case)
    v.cases = [case for case in traceable if calls.compiles(probing, case, v.report)]


def ask_probes(v: Verification) -> None:
    """Run every probe by the rule and by the oracle; note what limits the comparison."""
    report, settings = v.report, (v.subject, v.cases, v.seed, v.vary, v.exact)
    v.probing = Probing(*settings)
    if "xla" not in v.skip:
        v.probing.run(v.cases[0], v.dtypes[0], compiled=True).both()
        if not v.same_as_compiled(v.probing):
            report.notes.append("NumPy and XLA give different numbers; here are XLA's")
            v.probing = Probing(*settings, compiled=True)
    v.verdict = verdict = mathematics.examine(v.probing, "float64" not in v.dtypes)
    report.resolution, report.errors["float64"] = verdict.resolution, verdict.error
    report.worst, report.probes = v.worst(), v.probing.count
    if v.eps > EPS64:
        report.notes.append(
            f"resolution {v.eps:.0e}: the rule or its definition computes in a narrower "
            "dtype than float64"
        )
    if verdict.unlike:
        texts = (c.arguments.show(v.subject.name, "float64") for c in verdict.unlike)
        report.notes.append(f"is another function than its definition for {', '.join(texts)}")
    if v.exact[0] != "float64":
        report.notes.append("transforms were not tried: the rule does not run in float64")


def ask_values(v: Verification) -> Answers:
    """Report each wrong cotangent, and the first wrong output, with the defect that they show."""
    for what, prefix in (("y", "differentiated, "), ("plain", "")):
        if wrong := v.verdict.of(what):
            why = f"{prefix}the value is another than the definition's"
            alike = v.verdict.of(what, wrong[0].which)
            yield from v.finding("forward value", why, alike)
            break
    for which in sorted({m.which for m in v.verdict.of("ct")}):
        wrong = v.verdict.of("ct", which)
        yield from v.finding(*classify(v.probing, wrong), wrong)


def ask_digits(v: Verification) -> Answers:
    """Compare rounding in each narrower dtype; in all but the first on few calls."""
    for i, dtype in enumerate(dtype for dtype in v.dtypes if dtype != "float64"):
        brief = i > 0 or "rounding" in v.skip
        yield from numerics.check(v.probing, dtype, v.report.errors, v.eps, brief)


def ask_second_order(v: Verification) -> Answers:
    """Differentiate the backward pass at ordinary numbers, and at the first call's special ones."""
    same_case = [t for t in v.verdict.trials if t.case is v.base.case]
    trials = [v.base, *(t for t in same_case if t.probe.kind == "special")]
    return transforms.second_order(v.probing, trials, v.eps, v.report.capabilities)


def varied(v: Verification) -> bool:
    """Other numbers and shapes may be tried."""
    return v.vary


def small_and_exact(v: Verification) -> bool:
    """The first call is small, and its comparison has the resolution of float64."""
    return v.base.case.size < LARGE and v.eps == EPS64


def in_float64(v: Verification) -> bool:
    """The rule runs in float64."""
    return v.exact[0] == "float64"


def right_at_first(v: Verification) -> bool:
    """The cotangents of the first call are right on ordinary numbers."""
    return not any(m.trial is v.base for m in v.verdict.of("ct"))


NUMERICS = ("digits", "limits", "poison")
WRONG = {"value": NUMERICS, "cotangent": NUMERICS}
"""A wrong value or cotangent makes the questions of numerics pointless."""
TRANSFORMABLE = (in_float64, right_at_first)
QUESTIONS = (
    Question(
        *("types", "Are dtypes, shapes and structures as the definition has them?", ask_types),
        stops=dict.fromkeys(("forward type", "structure", "tracer", "complex", "fails"), (ALL,)),
    ),
    Question("calls", "In which calls does the rule run?", ask_calls, stops=WRONG),
    Question("probes", "How far do the rule and the oracle differ, on every probe?", ask_probes),
    Question(
        *("determinism", "Do two runs and two traces give the same?"),
        lambda v: numerics.deterministic(v.probing, v.base),
        stops={"nondeterminism": (ALL,)},
    ),
    Question(
        *("linearity", "Is the rule a linear function of the cotangent?"),
        lambda v: cotangents.check(v.probing, v.base, v.eps),
        stops=WRONG | dict.fromkeys(("affine", "not linear"), ("values", *NUMERICS)),
    ),
    Question("values", "Are all outputs and cotangents right?", ask_values, stops=WRONG),
    Question(
        *("reference", "Has the definition the values of the op's reference?"),
        lambda v: mathematics.reference(v.probing, v.verdict),
    ),
    Question(
        *("subsets", "Is it right for each argument, and each output, alone?"),
        lambda v: cotangents.subsets(v.probing, v.base, v.eps),
        stops=WRONG,
    ),
    Question("digits", "Does it round as well as autodiff does?", ask_digits),
    Question(
        *("limits", "Is it finite up to the limits of float64, where autodiff is?"),
        lambda v: numerics.finite(v.probing, v.base.case),
        needs=(varied, small_and_exact),
    ),
    Question(
        *("poison", "Does a NaN or an infinity stay where it belongs?"),
        lambda v: numerics.poison(v.probing, v.base.case, v.base),
        needs=(varied,),
    ),
    Question(
        *("cost", "How much memory does it take?"),
        lambda v: cost.check(v.probing, v.base.case, v.dtypes[0], v.report.cost),
    ),
    Question(
        *("jit", "Is it the same without jit?"),
        lambda v: transforms.uncompiled(v.probing, v.base, v.eps),
        needs=TRANSFORMABLE,
    ),
    Question(
        *("transforms", "Is it the same under remat, scan and vmap?"),
        lambda v: transforms.check(v.probing, v.base, v.eps, v.report.capabilities),
        needs=TRANSFORMABLE,
    ),
    Question(
        *("second order", "Is the derivative of the backward pass right?", ask_second_order),
        needs=TRANSFORMABLE,
    ),
    Question(
        *("forward mode", "Can it be differentiated in forward mode?"),
        lambda v: v.report.capabilities.update(jvp=transforms.forward_mode(v.probing, v.base)),
        needs=TRANSFORMABLE,
    ),
    Question(
        *("devices", "Is it the same on several devices?"),
        lambda v: devices.check(v.probing, v.verdict.trials, v.report.capabilities),
        needs=TRANSFORMABLE,
    ),
    Question(
        *("definition", "Do finite differences of the definition agree with its autodiff?"),
        lambda v: v.report.notes.extend(votes.check(v.probing, v.base)),
    ),
)
