"""What the rule costs: bytes kept for the backward pass, and temporary memory."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax

from ..memory import array_bytes, residual_bytes, temporary_bytes
from .arguments import Arguments
from .jaxprs import equations
from .passes import both_ways, call, pullback
from .probes import Probing
from .programs import cached, input_types, start
from .report import Finding
from .shapes import Case, larger, resized
from .subject import Subject
from .trials import Answers

FACTORS = 4, 32
"""Memory beyond this multiple of autodiff's, plus inputs and outputs, is a finding: for residuals,
and for temporary memory, where a loop over a window's taps may hold one copy per tap."""
SMALL = 1024, 65536
"""Bytes of residuals, and of temporary memory, up to which there is no finding."""

LENGTH, LONG = 1024, 32
"""The length of a long axis; memory is measured at that length if some array is this many times
larger than all arguments."""


def check(probing: Probing, case: Case, dtype: str, cost: dict[str, tuple[int, int]]) -> Answers:
    """Compare residuals and temporary memory with automatic differentiation's.

    A separate definition may be a lighter algorithm: then there are no findings.

    If other shapes may be tried, a finding needs larger ones, where constants do not count, or
    shapes with one long axis, where its square dominates.
    """
    subject, original = probing.subject, case.arguments
    with jax.enable_x64(dtype == "float64"):
        for arguments in (larger(original) if probing.vary else original, original):
            try:
                sizes = _measure(subject, arguments, dtype)
            except Exception:
                continue  # a shape that the function refuses
            break
        else:
            return
        cost.update(sizes)
        if subject.other:
            return
        answers = list(_excess(subject, arguments, dtype, sizes))
        vary = probing.vary and not answers
        for arguments in lengthened(original, subject, dtype) if vary else ():
            ends = sum(map(array_bytes, arguments.structs(dtype)))
            try:
                if _largest(subject.function, arguments, dtype) <= LONG * ends:
                    continue
                sizes = _measure(subject, arguments, dtype)
            except Exception:
                continue
            answers += _excess(subject, arguments, dtype, sizes)
    yield from answers


def _measure(subject: Subject, arguments: Arguments, dtype: str) -> dict[str, tuple[int, int]]:
    """Return residuals and temporary memory, of the rule and of autodiff, in bytes."""
    functions = subject.function, subject.definition
    rule, autodiff = (_bytes_of(f, arguments, dtype) for f in functions)
    names = "residuals", "temporary memory"
    return dict(zip(names, zip(rule, autodiff, strict=True), strict=True))


def _excess(
    subject: Subject, arguments: Arguments, dtype: str, sizes: dict[str, tuple[int, int]]
) -> Answers:
    arrays, dys = input_types(subject.definition, arguments, dtype)
    ends = sum(map(array_bytes, [*arrays, *dys]))
    limits = zip(sizes.items(), SMALL, FACTORS, strict=True)
    for (what, (rule, natural)), small, factor in limits:
        if rule > max(small, factor * (natural + ends)):
            defect = "residuals" if what == "residuals" else "memory"
            why = f"{rule:,} bytes of {what}; autodiff takes {natural:,}, the arguments {ends:,}"
            call = arguments.show(subject.name, dtype)
            yield defect, Finding(defect, why=why, call=call, dtype=dtype)


def lengthened(original: Arguments, subject: Subject, dtype: str) -> Iterator[Arguments]:
    """Yield the call with one axis after another made long.

    An axis over which Python loops is left out: twice the length makes a longer program.
    """
    ways = (subject.definition, call), (subject.function, both_ways)
    for n in dict.fromkeys(n for leaf in original.leaves for n in leaf.shape if n > 1):
        twice = resized(original, {n: 2 * n})
        try:
            loops = any(_steps(*way, original, dtype) != _steps(*way, twice, dtype) for way in ways)
        except Exception:
            continue  # a shape that the function refuses
        if not loops:
            yield resized(original, {n: max(n, LENGTH)})


@cached
def _steps(function: Any, way: Callable[..., Any], arguments: Arguments, dtype: str) -> int:
    """Return the number of operations of a function, called or both ways."""
    inputs = input_types(function, arguments, dtype)[: 2 if way is both_ways else 1]
    jaxpr = jax.make_jaxpr(partial(way, function, arguments))(*inputs).jaxpr
    return sum(1 for _ in equations(jaxpr))


@cached
def _largest(function: Any, arguments: Arguments, dtype: str) -> int:
    """Return the bytes of the largest array of a traced forward and backward pass."""
    run = partial(both_ways, function, arguments)
    jaxpr = jax.make_jaxpr(run)(*input_types(function, arguments, dtype)).jaxpr
    arrays = [var.aval for e in equations(jaxpr) for var in e.outvars]
    return max((array_bytes(a) for a in arrays if hasattr(a, "dtype")), default=0)


@cached
def _bytes_of(function: Any, arguments: Arguments, dtype: str) -> tuple[int, int]:
    """Return the bytes of residuals and of temporary memory of a forward and backward pass."""
    run = partial(both_ways, function, arguments)
    program = start(run, *input_types(function, arguments, dtype)).result()
    inputs = arguments.structs(dtype)
    residuals = residual_bytes(lambda *arrays: pullback(function, arguments, arrays), *inputs)
    return residuals, temporary_bytes(program)
