"""Faults in ops' rules: planted in a traced program, one operation at a time.

The program by which the verifier judges a rule becomes a flat list of operations, which run in
NumPy. A fault reruns only the operations that depend on it, and compiles nothing.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

import fnn.ops  # noqa: F401 (it fills the table)
from fnn.custom_op import OPS, Op
from fnn.verifier.cases import examples
from fnn.verifier.interpreter import operation, taken_in
from fnn.verifier.jaxprs import CUSTOM, INLINED, nested
from fnn.verifier.passes import by_rule
from fnn.verifier.probes import GIVEN, Probing
from fnn.verifier.subject import find
from fnn.verifier.values import to_dtype

NAMES = [name for name, op in OPS.items() if op.__module__.startswith("fnn.")]
"""The ops of fnn, without those that tests define."""
SIZE = 1e-6
SAME = 1e-10
"""Smaller changes, relative to an array's size, are below the promised resolution."""


@dataclass(frozen=True)
class Steps:
    """A program as a list of operations: name, function, the variables it reads and writes."""

    steps: list[tuple[str, Callable[..., Any], list[Any], list[Any]]]
    inputs: list[Any]
    outputs: list[Any]
    constants: dict[Any, Any]

    def run(self, arrays: list[Any]) -> dict[Any, Any]:
        """Return every array that the program computes."""
        values = self.constants | dict(zip(self.inputs, map(taken_in, arrays), strict=True))
        for i in range(len(self.steps)):
            self._step(i, values)
        return values

    def _step(self, i: int, values: dict[Any, Any]) -> None:
        _, function, ins, outs = self.steps[i]
        with np.errstate(all="ignore"):
            results = function(*(values[v] for v in ins))
        several = len(outs) != 1 or isinstance(results, list | tuple)
        values.update(zip(outs, results if several else [results], strict=True))

    def with_fault(self, values: dict[Any, Any], at: int) -> tuple[dict[Any, Any], set[Any]]:
        """Return all arrays after a fault in step `at`, and the variables that it reaches."""
        values, new = dict(values), set(self.steps[at][3])
        values.update((v, larger(np.asarray(values[v]))) for v in new)
        for i in range(at + 1, len(self.steps)):
            if not new.isdisjoint(self.steps[i][2]):
                self._step(i, values)
                new.update(self.steps[i][3])
        return values, new

    def terms(self, values: dict[Any, Any], results: Collection[Any]) -> list[int]:
        """Return the steps with floating-point results on which one of `results` depends."""
        sources, terms = set(results), []
        for i in reversed(range(len(self.steps))):
            _, _, ins, outs = self.steps[i]
            if not sources.isdisjoint(outs):
                sources.update(ins)
                if any(jnp.issubdtype(np.asarray(values[v]).dtype, jnp.inexact) for v in outs):
                    terms.append(i)
        return terms[::-1]


def larger(x: Any) -> Any:
    """Return the result of a term, too large by 10⁻⁶."""
    return x * np.asarray(1 + SIZE, x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def steps_of(closed: Any) -> Steps:
    """Return the operations of a traced program."""
    program = Steps([], [], [], {})
    names: dict[Any, Any] = {}

    def read(var, scope):
        if isinstance(var, core.Literal):
            name = len(program.constants), "literal"
            program.constants[name] = np.asarray(var.val, var.aval.dtype)
            return name
        return scope[var]

    def enter(jaxpr, ins):
        scope = dict(zip(jaxpr.jaxpr.invars, ins, strict=True))
        for var, value in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True):
            scope[var] = len(program.constants), "constant"
            program.constants[scope[var]] = taken_in(value)
        for equation in jaxpr.jaxpr.eqns:
            read_from = [read(v, scope) for v in equation.invars]
            name = equation.primitive.name
            if name in (*CUSTOM, *INLINED):
                scope.update(zip(equation.outvars, enter(next(nested(equation)), read_from)))
                continue
            outs = [(len(names) + i, "made") for i in range(len(equation.outvars))]
            names.update(dict.fromkeys(outs))
            program.steps.append((name, operation(equation), read_from, outs))
            scope.update(zip(equation.outvars, outs, strict=True))
        return [read(v, scope) for v in jaxpr.jaxpr.outvars]

    program.inputs.extend((i, "input") for i in range(len(closed.jaxpr.invars)))
    program.outputs.extend(enter(closed, program.inputs))
    return program


@dataclass(frozen=True)
class Traced:
    """An op's rule on one example: its operations, their results, and the comparison."""

    operations: tuple[str, ...]
    steps: Steps
    values: dict[Any, Any]
    outputs: dict[str, list[Any]]
    trial: Any

    def cotangents(self) -> list[np.ndarray]:
        """Return the cotangents of the op's arguments."""
        return [np.asarray(self.values[v]) for v in self.outputs["ct"]]

    def terms(self) -> list[int]:
        """Return the steps with floating-point results, forward and backward."""
        return self.steps.terms(self.values, [*self.outputs["y"], *self.outputs["ct"]])

    def outcome(self, at: int) -> tuple[bool, bool]:
        """Return whether a fault in a step changes a result, and whether the oracle shows it."""
        values, new = self.steps.with_fault(self.values, at)
        differs = shows = False
        for what in ("y", "ct"):
            for i, var in enumerate(self.outputs[what]):
                if var not in new:
                    continue
                actual, right = np.asarray(values[var]), np.asarray(self.values[var])
                near = np.max(np.abs(right), initial=0) * SAME
                with np.errstate(invalid="ignore"):
                    differs |= not np.all((np.abs(actual - right) <= near) | (actual == right))
                misfit = self.trial.misfit(actual, self.trial.want[what][i], what, i)
                shows |= misfit is not None
        return differs, shows


def traced(op: Op, numbers: Collection[int] | None = None) -> Iterator[Traced]:
    """Yield the rule on each example of these numbers (by default on all), as operations."""
    probing = Probing(find(op, None), examples(op, 0, numbers), 0, True)
    for case in probing.cases:
        trial = probing.trial(case, GIVEN, None, 2.0**-52)
        steps = steps_of(probing.run(case).program(by_rule).jaxpr)
        leaves = case.arguments.leaves
        arrays = [to_dtype(v, a.cast("float64")) for v, a in zip(trial.values, leaves, strict=True)]
        values = steps.run([*arrays, *trial.dys, np.float32(0), np.int32(0)])
        outputs = jax.tree.unflatten(jax.tree.structure(trial.got), steps.outputs)
        yield Traced(tuple(name for name, *_ in steps.steps), steps, values, outputs, trial)


def sample(op: Op) -> list[int]:
    """Return the numbers of the examples that `make test` uses.

    They are all kinks and extremes; the first example for each set of operations and each kind of
    arguments (which are present, their numbers of axes), unless its program is already in use; and
    one more, whose sizes are odd.
    """
    probing = Probing(find(op, None), examples(op, 0), 0, True)
    numbers, programs, kinds, odd = [], set(), set(), []
    small = [i for i, example in enumerate(op.examples) if "bench" not in example.tags]
    for i, case in zip(small, probing.cases, strict=True):
        program = probing.operations(case)
        leaves = case.arguments.leaves
        kind = frozenset(program[0]), tuple((a.path, a.kind, len(a.shape)) for a in leaves)
        if case.fixed or (program not in programs and kind not in kinds):
            numbers.append(i)
        else:
            sizes = [n for leaf in leaves for n in leaf.shape]
            odd.append((sum(n % 2 for n in sizes if n > 1), i))
        programs.add(program)
        kinds.add(kind)
    return sorted([*numbers, *(i for _, i in sorted(odd)[-1:])])


def missed_terms(op: Op, numbers: Collection[int] | None = None) -> tuple[list[str], int]:
    """Plant a fault in every term of an op's rule, on the examples of these numbers (or on all).

    Return the terms, by program and place, whose fault changes an output or a cotangent but shows
    on no example of that program; and the number of faults that show.
    """
    verdicts: dict[tuple[tuple[str, ...], int], bool] = {}
    for example in traced(op, numbers):
        for at in example.terms():
            term = example.operations, at
            if not verdicts.get(term):
                differs, shows = example.outcome(at)
                if differs:
                    verdicts[term] = shows
    terms = [
        f"{names[at]}, operation {at} of {len(names)}"
        for (names, at), shows in verdicts.items()
        if not shows
    ]
    return terms, sum(verdicts.values())
