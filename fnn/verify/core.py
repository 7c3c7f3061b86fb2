"""The verifier: one function or op, all questions, one report."""

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
from .report import Finding, Report
from .subject import Subject, check_call, find
from .verification import Verification


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Let Python look for cycles less often: tracing makes millions of objects, few in cycles."""
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

    `seed` chooses the numbers that are drawn, `dtypes` those in which rounding is judged (of an
    op: float32 and bfloat16; of a call: those of its arguments), and `chosen` the examples of an op
    that are tried (all that are not large). `skip` names questions that take long and
    are then not asked: "xla" (are its numbers NumPy's?), "jit", "cost", "devices", "rounding" (of
    other calls than the first and the special ones).
    """
    start = time.perf_counter()
    subject = find(function, definition)
    report = Report(subject.name)
    if isinstance(function, Op) and not args and not statics:
        cases = examples(function, seed, chosen)
        dtypes = dtypes or ("float32", "bfloat16")
    else:
        given = parse(_signature_of(function), args, dict(statics or {}), subject.nondiff)
        with jax.enable_x64(any("64" in leaf.dtype for leaf in given.leaves)):
            if held := _held(subject, given):
                report.findings.append(held)
                report.seconds = time.perf_counter() - start
                return report
            check_call(subject, given)
        given = with_domains(subject, given, seed)
        cases = cases_of(subject, given, vary)
        dtypes = dtypes or _dtypes(given)
    try:
        Verification(subject, cases, seed, vary, dtypes, report, skip).go()
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
