"""Faults in ops' rules: planted in a traced program, one operation at a time.

Calls inside the program by which the verifier judges a rule are entered, and its operations run one
after another in NumPy, so that a fault costs a run of what depends on it, and no compilation.
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
from fnn.verify.cases import examples
from fnn.verify.interpreter import operation, taken_in
from fnn.verify.jaxprs import CUSTOM, INLINED, nested
from fnn.verify.passes import by_rule
from fnn.verify.probes import GIVEN, Probing
from fnn.verify.subject import find
from fnn.verify.values import to_dtype

NAMES = [name for name, op in OPS.items() if op.__module__.startswith("fnn.")]
"""The ops of fnn, and none that a test has made."""
SIZE = 1e-6
SAME = 1e-10
"""Changes below this, of an array's size, are below the resolution that is promised."""


@dataclass(frozen=True)
class Steps:
    """A program as a list of operations: `name`, a function, where it reads and where it writes."""

    steps: list[tuple[str, Callable[..., Any], list[Any], list[Any]]]
    inputs: list[Any]
    outputs: list[Any]
    constants: dict[Any, Any]

    def run(self, arrays: list[Any]) -> dict[Any, Any]:
        """Return every array that the program makes."""
        values = self.constants | dict(zip(self.inputs, map(taken_in, arrays), strict=True))
        for i in range(len(self.steps)):
            self._step(i, values)
        return values

    def _step(self, i: int, values: dict[Any, Any]) -> None:
        _, function, ins, outs = self.steps[i]
        with np.errstate(all="ignore"):
            made = function(*(values[v] for v in ins))
        several = len(outs) != 1 or isinstance(made, list | tuple)
        values.update(zip(outs, made if several else [made], strict=True))

    def changed(self, values: dict[Any, Any], at: int) -> tuple[dict[Any, Any], set[Any]]:
        """Return all arrays if the result of step number `at` is too large, and which differ."""
        values, new = dict(values), set(self.steps[at][3])
        values.update((v, larger(np.asarray(values[v]))) for v in new)
        for i in range(at + 1, len(self.steps)):
            if not new.isdisjoint(self.steps[i][2]):
                self._step(i, values)
                new.update(self.steps[i][3])
        return values, new

    def terms(self, values: dict[Any, Any], results: Collection[Any]) -> list[int]:
        """Return the steps that make floating-point numbers on which one of the results depends."""
        sources, terms = set(results), []
        for i in reversed(range(len(self.steps))):
            _, _, ins, outs = self.steps[i]
            if not sources.isdisjoint(outs):
                sources.update(ins)
                if any(jnp.issubdtype(np.asarray(values[v]).dtype, jnp.inexact) for v in outs):
                    terms.append(i)
        return terms[::-1]


def larger(made: Any) -> Any:
    """The result of a term, too large by 10⁻⁶."""
    inexact = jnp.issubdtype(made.dtype, jnp.inexact)
    return made * np.asarray(1 + SIZE, made.dtype) if inexact else made


def steps_of(closed: Any) -> Steps:
    """Take a traced program apart."""
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
    """An op on an example by its rule: its operations, all that they make, and the comparison."""

    operations: tuple[str, ...]
    steps: Steps
    values: dict[Any, Any]
    outputs: dict[str, list[Any]]
    trial: Any

    def cotangents(self) -> list[np.ndarray]:
        """Return what comes back."""
        return [np.asarray(self.values[v]) for v in self.outputs["ct"]]

    def terms(self) -> list[int]:
        """Return the steps that make floating-point numbers, there and back."""
        return self.steps.terms(self.values, [*self.outputs["y"], *self.outputs["ct"]])

    def outcome(self, at: int) -> tuple[bool, bool]:
        """Whether a fault in a step changes what comes out, and whether the oracle shows it."""
        values, new = self.steps.changed(self.values, at)
        changed = caught = False
        for what in ("y", "ct"):
            for i, var in enumerate(self.outputs[what]):
                if var not in new:
                    continue
                got, right = np.asarray(values[var]), np.asarray(self.values[var])
                near = np.max(np.abs(right), initial=0) * SAME
                with np.errstate(invalid="ignore"):
                    changed |= not np.all((np.abs(got - right) <= near) | (got == right))
                caught |= self.trial.misfit(got, self.trial.want[what][i], what, i) is not None
        return changed, caught


def traced(op: Op, chosen: Collection[int] | None = None) -> Iterator[Traced]:
    """Take apart the programs by which the verifier judges the chosen examples (all)."""
    probing = Probing(find(op, None), examples(op, 0, chosen), 0, True)
    for case in probing.cases:
        trial = probing.trial(case, GIVEN, None, 2.0**-52)
        steps = steps_of(probing.run(case).program(by_rule).jaxpr)
        leaves = case.arguments.leaves
        arrays = [to_dtype(v, a.cast("float64")) for v, a in zip(trial.values, leaves, strict=True)]
        values = steps.run([*arrays, *trial.dys, np.float32(0), np.int32(0)])
        outputs = jax.tree.unflatten(jax.tree.structure(trial.got), steps.outputs)
        yield Traced(tuple(name for name, *_ in steps.steps), steps, values, outputs, trial)


def sample(op: Op) -> list[int]:
    """Choose the examples that `make test` tries.

    They are all kinks and extremes, the first example of each set of operations of the rule and of
    each choice of arguments (which are there, of how many axes), unless its program is known, and
    one more, whose sizes are odd.
    """
    probing = Probing(find(op, None), examples(op, 0), 0, True)
    chosen, programs, kinds, odd = [], set(), set(), []
    numbers = [i for i, example in enumerate(op.examples) if "bench" not in example.tags]
    for i, case in zip(numbers, probing.cases, strict=True):
        program = probing.operations(case)
        leaves = case.arguments.leaves
        kind = frozenset(program[0]), tuple((a.path, a.kind, len(a.shape)) for a in leaves)
        if case.fixed or (program not in programs and kind not in kinds):
            chosen.append(i)
        else:
            sizes = [n for leaf in leaves for n in leaf.shape]
            odd.append((sum(n % 2 for n in sizes if n > 1), i))
        programs.add(program)
        kinds.add(kind)
    return sorted([*chosen, *(i for _, i in sorted(odd)[-1:])])


def missed_terms(op: Op, chosen: Collection[int] | None = None) -> tuple[list[str], int]:
    """Plant a fault in every term of the rules of the chosen examples (all).

    Returns the terms, by program and place, that no example of that program tells from right ones
    though they change an output or a cotangent; and how many faults were found.
    """
    verdicts: dict[tuple[tuple[str, ...], int], bool] = {}
    for example in traced(op, chosen):
        for at in example.terms():
            term = example.operations, at
            if not verdicts.get(term):
                changed, caught = example.outcome(at)
                if changed:
                    verdicts[term] = caught
    missed = [
        f"{names[at]}, operation {at} of {len(names)}"
        for (names, at), caught in verdicts.items()
        if not caught
    ]
    return missed, sum(verdicts.values())
