"""Which calls can be tried? Those in which the rule can be traced and, if need be, compiled."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from . import types
from .jaxprs import bytes_made, equations
from .passes import by_autodiff, by_rule, call
from .probes import GIVEN, Probing
from .programs import Program, output_types
from .report import Finding, Report
from .shapes import Case
from .subject import Subject, first_line

HEAVY = 2**26, 2e8
"""Bytes of temporary memory, and operations, beyond which an optional call is left out."""


def widest(subject: Subject, case: Case, dtypes: Sequence[str]) -> tuple[str, str]:
    """Return the widest dtypes in which the rule and its definition can be traced."""

    def of(function: Any) -> str:
        try:
            with jax.enable_x64(True):
                types.traced(function, case.arguments, "float64")
        except Exception:
            return next(d for d in (*dtypes, "float32") if d != "float64")
        return "float64"

    rule, oracle = of(subject.function), of(subject.definition)
    return (rule, oracle) if oracle == "float64" else (oracle, oracle)


def traceable(probing: Probing, report: Report) -> Iterator[Case | Finding]:
    """Yield the cases in which the rule can be traced, and a finding where it wrongly raises.

    A rule may refuse some calls that its definition accepts; those are noted in the report.
    """
    refused: list[str] = []
    for case in probing.cases:
        text = case.arguments.show(probing.subject.name, "float64")
        try:
            if case.optional and not _grows(probing, case):
                continue
            programs = probing.run(case)
            programs.program(by_autodiff)
        except Exception:
            continue
        first = case is probing.cases[0]
        try:
            value = programs.program(by_rule).types["plain"]
        except Exception as error:
            accepted = first or _accepted(probing, case)
            if accepted and case.demanded and _defined(probing, case):
                defect = case.kind if case.kind in ("size", "geometry") else "fails"
                why = f"raises {first_line(error)}"
                yield Finding(defect, why=why, call=text, dtype="float64")
            else:
                refused.append(text)
            continue
        if first or _shapes(value) == _shapes(programs.outputs):
            yield case
        else:
            refused.append(text)
    if refused:
        report.notes.append(f"refuses calls that its definition accepts: {', '.join(refused)}")


def _defined(probing: Probing, case: Case) -> bool:
    """Whether the definition has values for a case; the mean of no numbers has none."""
    try:
        outcome = probing.run(case).oracle(*probing.draw(case, GIVEN))
    except Exception:
        return False
    return all(np.isfinite(y).all() for y in outcome["y"])


def _grows(probing: Probing, case: Case) -> bool:
    """Whether a larger case is the program of the first one, on larger arrays.

    A loop in Python makes a longer program. An iteration may converge for small sizes alone, and a
    recurrence of many steps may be chaotic: both are left out.
    """
    names, dtype = [], probing.exact[1]
    with jax.enable_x64(dtype == "float64"):
        for arguments in (probing.cases[0].arguments, case.arguments):
            run = partial(call, probing.subject.definition, arguments)
            jaxpr = jax.make_jaxpr(run)(arguments.structs(dtype)).jaxpr
            names.append([e.primitive.name for e in equations(jaxpr)])
    return len(names[0]) == len(names[1]) and not {"scan", "while"} & set(names[1])


def _accepted(probing: Probing, case: Case) -> bool:
    """Whether the function, not differentiated, accepts a case as its definition does."""
    functions = probing.subject.function, probing.subject.definition
    try:
        rule, oracle = (
            _shapes(output_types(function, case.arguments, dtype))
            for function, dtype in zip(functions, probing.exact, strict=True)
        )
    except Exception:
        return False
    return rule == oracle


def compiles(probing: Probing, case: Case, report: Report) -> bool:
    """Whether XLA accepts a case; it refuses windows of size 0, which can be traced."""
    try:
        programs = probing.run(case).both()
        for program in programs:
            program.result()
        return not (case.optional and any(map(_heavy, programs)))
    except Exception as error:
        if case.original:
            raise
        text = case.arguments.show(probing.subject.name, "float64")
        report.notes.append(f"{text} cannot be compiled: {first_line(error)}")
        return False


def _shapes(types: Sequence[jax.ShapeDtypeStruct]) -> list[tuple[int, ...]]:
    return [t.shape for t in types]


def _heavy(program: Program) -> bool:
    """Whether a program takes long to run many times."""
    if program.interpreted:
        return bytes_made(program.jaxpr.jaxpr) > HEAVY[0]
    compiled = program.result()
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
    return (memory is not None and memory.temp_size_in_bytes > HEAVY[0]) or (
        costs is not None and costs.get("flops", 0) > HEAVY[1]
    )
