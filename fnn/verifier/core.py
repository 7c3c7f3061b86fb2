"""The verifier: one function or op in, one report out."""

import contextlib
import gc
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..custom_op import Op
from . import types
from .arguments import Arguments, Leaf, parse
from .cases import cases_of, examples, with_domains
from .questions import QUESTIONS
from .report import Finding, Report
from .subject import Subject, check_call, find
from .verification import Verification


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Make Python look for cycles less often: tracing makes millions of objects, few in cycles."""
    before = gc.get_threshold()
    if before[0]:  # 0 is never
        gc.set_threshold(max(before[0], 50_000), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_few_collections()
def run(
    function: Any,
    args: Sequence[Any] = (),
    statics: Mapping[str, Any] | None = None,
    definition: Callable[..., Any] | None = None,
    vary: bool = True,
    seed: int = 0,
    dtypes: Sequence[str] | None = None,
    chosen: Sequence[int] | None = None,
    skip: Collection[str] = (),
) -> Report:
    """Verify a function's backward rule; see `fnn.verify`.

    Args:
        seed: chooses the numbers that are drawn.
        dtypes: those in which rounding is judged; by default float32 and bfloat16 for an op, and
            the narrowest of the arguments' for a call.
        chosen: which examples of an op to try; by default all that are not large.
        skip: questions that take long and are left out: "xla" (does XLA compute the numbers of
            NumPy?), "jit", "cost", "devices", "rounding" (in calls other than the first and the
            special ones).
    """
    start = time.perf_counter()
    subject = find(function, definition)
    report = Report(subject.name)
    if isinstance(function, Op) and not args and not statics:
        cases = examples(function, seed, chosen)
        dtypes = dtypes or ("float32", "bfloat16")
    else:
        signature = function if isinstance(function, Op) else getattr(function, "fun", function)
        call = parse(signature, args, dict(statics or {}), subject.nondiff)
        with jax.enable_x64(any("64" in leaf.dtype for leaf in call.leaves)):
            if finding := _static_array(subject, call):
                report.findings.append(finding)
                report.seconds = time.perf_counter() - start
                return report
            check_call(subject, call)
        call = with_domains(subject, call, seed)
        cases = cases_of(subject, call, vary)
        dtypes = dtypes or _dtypes(call)
    try:
        Verification(subject, cases, seed, vary, dtypes, report, skip).answer(QUESTIONS)
    except Exception as error:
        if "Tracer" not in f"{type(error).__name__} {error}":
            raise
        report.findings.append(types.failure(error, call=cases[0].arguments.show(subject.name)))
    report.seconds = time.perf_counter() - start
    return report


def _static_array(subject: Subject, call: Arguments) -> Finding | None:
    """Return a finding if an array is passed as a static argument of the rule."""
    args, _ = call.build(call.leaves)
    for i in subject.nondiff:
        for leaf in jax.tree.leaves(args[i]) if i < len(args) else ():
            if isinstance(leaf, Leaf):
                why = f"argument {i} is in nondiff_argnums and holds an array"
                return Finding("tracer", leaf.path, why=why, call=call.show(subject.name))
    return None


def _dtypes(call: Arguments) -> tuple[str, ...]:
    """Return the dtype in which rounding is judged: the narrowest of the arguments'."""
    floats = [leaf.dtype for leaf in call.leaves if leaf.kind == "float"]
    return (max(floats, key=lambda d: float(jnp.finfo(d).eps)),) if floats else ("float32",)
