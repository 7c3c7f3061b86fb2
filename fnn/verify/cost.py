"""What the rule costs: bytes kept for the backward pass, and temporary memory."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax

from ..memory import array_bytes, residual_bytes, temporary_bytes
from .arguments import Arguments, struct
from .jaxprs import equations
from .probes import Probing
from .programs import both_ways, call, kept, pullback, start, types
from .report import Finding
from .shapes import Case, larger, resized
from .subject import Subject

FACTORS = 4, 32
"""More than so many times what autodiff takes, its inputs and its outputs, is a finding: of
residuals, and of temporary memory, where a loop over a window's taps may hold a copy for each."""
SMALL = 1024, 65536
"""Below these many bytes, of residuals and of temporary memory, nothing is said."""

LENGTH, LONG = 1024, 32
"""An axis made long, and how much larger than all arguments an array may be before memory is
measured at that length."""


def check(
    probing: Probing, case: Case, dtype: str, cost: dict[str, tuple[int, int]]
) -> Iterator[tuple[str, Finding]]:
    """Compare residuals and temporary memory with automatic differentiation's.

    A definition that is another algorithm may well take less: then nothing is a finding.

    If other shapes may be tried, a finding rests on larger ones, where constants do not count, and
    on shapes with one axis long, where its square stands out.
    """
    subject, given = probing.subject, case.arguments
    with jax.enable_x64(dtype == "float64"):
        for arguments in (larger(given) if probing.vary else given, given):
            try:
                measured = _measure(subject, arguments, dtype)
            except Exception:
                continue  # a shape that the function refuses
            break
        else:
            return
        cost.update(measured)
        if subject.other:
            return
        found = list(_excess(subject, arguments, dtype, measured))
        for arguments in lengthened(given, subject, dtype) if probing.vary and not found else ():
            try:
                if _largest(subject.function, arguments, dtype) <= LONG * _ends(arguments, dtype):
                    continue
                measured = _measure(subject, arguments, dtype)
            except Exception:
                continue
            found += _excess(subject, arguments, dtype, measured)
    yield from found


def _measure(subject: Subject, arguments: Arguments, dtype: str) -> dict[str, tuple[int, int]]:
    """Return residuals and temporary memory, of the rule and of autodiff, in bytes."""
    functions = subject.function, subject.definition
    rule, autodiff = (_bytes_of(f, arguments, dtype) for f in functions)
    names = "residuals", "temporary memory"
    return dict(zip(names, zip(rule, autodiff, strict=True), strict=True))


def _excess(
    subject: Subject, arguments: Arguments, dtype: str, measured: dict[str, tuple[int, int]]
) -> Iterator[tuple[str, Finding]]:
    arrays, dys = types(subject.definition, arguments, dtype)
    ends = sum(map(array_bytes, [*arrays, *dys]))
    limits = zip(measured.items(), SMALL, FACTORS, strict=True)
    for (what, (came, natural)), small, factor in limits:
        if came > max(small, factor * (natural + ends)):
            defect = "residuals" if what == "residuals" else "memory"
            why = f"{came:,} bytes of {what}; autodiff takes {natural:,}, the arguments {ends:,}"
            call = arguments.show(subject.name, dtype)
            yield defect, Finding(defect, why=why, call=call, dtype=dtype)


def lengthened(given: Arguments, subject: Subject, dtype: str) -> Iterator[Arguments]:
    """Yield the call with one axis after another made long.

    Not those over which Python loops, so that twice the length is a longer program.
    """
    ways = (subject.definition, call), (subject.function, both_ways)
    for n in dict.fromkeys(n for leaf in given.leaves for n in leaf.shape if n > 1):
        twice = resized(given, {n: 2 * n})
        try:
            loops = any(_steps(*way, given, dtype) != _steps(*way, twice, dtype) for way in ways)
        except Exception:
            continue  # a shape that the function refuses
        if not loops:
            yield resized(given, {n: max(n, LENGTH)})


@kept
def _steps(function: Any, way: Callable[..., Any], arguments: Arguments, dtype: str) -> int:
    """Return of how many operations a function is, called or both ways."""
    inputs = types(function, arguments, dtype)[: 2 if way is both_ways else 1]
    jaxpr = jax.make_jaxpr(partial(way, function, arguments))(*inputs).jaxpr
    return sum(1 for _ in equations(jaxpr))


@kept
def _largest(function: Any, arguments: Arguments, dtype: str) -> int:
    """Return the bytes of the largest array on the way forward and back, from a trace alone."""
    run = partial(both_ways, function, arguments)
    jaxpr = jax.make_jaxpr(run)(*types(function, arguments, dtype)).jaxpr
    made = [var.aval for e in equations(jaxpr) for var in e.outvars]
    return max((array_bytes(a) for a in made if hasattr(a, "dtype")), default=0)


def _ends(arguments: Arguments, dtype: str) -> int:
    return sum(array_bytes(struct(leaf, dtype)) for leaf in arguments.leaves)


@kept
def _bytes_of(function: Any, arguments: Arguments, dtype: str) -> tuple[int, int]:
    """Return the bytes of residuals and of temporary memory of a forward and backward pass."""
    run = partial(both_ways, function, arguments)
    program = start(run, *types(function, arguments, dtype)).result()
    inputs = [struct(leaf, dtype) for leaf in arguments.leaves]
    residuals = residual_bytes(lambda *arrays: pullback(function, arguments, arrays), *inputs)
    return residuals, temporary_bytes(program)
