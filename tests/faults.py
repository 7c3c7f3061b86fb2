"""Faults in ops' backward rules: planted in a traced program, one operation at a time.

A rule's backward pass is traced, calls inside it are entered, and its operations run one after
another in NumPy, so that a fault costs one run and no compilation.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from fnn.op import Op
from fnn.verify.cases import examples
from fnn.verify.interpreter import operation, taken_in
from fnn.verify.jaxprs import CUSTOM, INLINED, nested
from fnn.verify.probes import GIVEN, Probing
from fnn.verify.subject import find

SIZE = 1e-6
SAME = 1e-10
"""Changes below this, of a cotangent's size, are below the resolution that is promised."""


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

    def results(self, values: dict[Any, Any]) -> list[np.ndarray]:
        """Return the outputs among the values."""
        return [np.asarray(values[v]) for v in self.outputs]

    def changed(
        self, values: dict[Any, Any], at: int, change: Callable[[Any], Any]
    ) -> list[np.ndarray]:
        """Return the outputs if the results of step number `at` are changed."""
        values = dict(values)
        new = set(self.steps[at][3])
        values.update((v, change(np.asarray(values[v]))) for v in new)
        for i in range(at + 1, len(self.steps)):
            if not new.isdisjoint(self.steps[i][2]):
                self._step(i, values)
                new.update(self.steps[i][3])
        return self.results(values)


def steps_of(closed: Any) -> Steps:
    """Take a traced program apart."""
    found = Steps([], [], [], {})
    names: dict[Any, Any] = {}

    def read(var, scope):
        if isinstance(var, core.Literal):
            name = len(found.constants), "literal"
            found.constants[name] = np.asarray(var.val, var.aval.dtype)
            return name
        return scope[var]

    def enter(program, ins):
        scope = dict(zip(program.jaxpr.invars, ins, strict=True))
        for var, value in zip(program.jaxpr.constvars, program.consts, strict=True):
            scope[var] = len(found.constants), "constant"
            found.constants[scope[var]] = taken_in(value)
        for equation in program.jaxpr.eqns:
            read_from = [read(v, scope) for v in equation.invars]
            name = equation.primitive.name
            if name in (*CUSTOM, *INLINED):
                scope.update(zip(equation.outvars, enter(next(nested(equation)), read_from)))
                continue
            outs = [(len(names) + i, "made") for i in range(len(equation.outvars))]
            names.update(dict.fromkeys(outs))
            found.steps.append((name, operation(equation), read_from, outs))
            scope.update(zip(equation.outvars, outs, strict=True))
        return [read(v, scope) for v in program.jaxpr.outvars]

    found.inputs.extend((i, "input") for i in range(len(closed.jaxpr.invars)))
    found.outputs.extend(enter(closed, found.inputs))
    return found


@dataclass(frozen=True)
class Backward:
    """An example's backward pass, all that it makes, and the comparison of what comes out."""

    operations: tuple[str, ...]
    steps: Steps
    values: dict[Any, Any]
    trial: Any

    def outcome(self, at: int, change: Callable[[Any], Any]) -> tuple[bool, bool]:
        """Whether a fault changes a cotangent, and whether the oracle shows it."""
        changed = found = False
        cotangents = self.steps.changed(self.values, at, change)
        bases = self.steps.results(self.values)
        for i, (got, base) in enumerate(zip(cotangents, bases, strict=True)):
            near = np.max(np.abs(base), initial=0) * SAME
            with np.errstate(invalid="ignore"):
                changed |= not np.all((np.abs(got - base) <= near) | (got == base))
            found |= self.trial.misfit(got, self.trial.want["ct"][i], "ct", i) is not None
        return changed, found


def backward_passes(op: Op, chosen: Collection[int] | None = None) -> Iterator[Backward]:
    """Trace the backward pass of the chosen examples of an op (all), in float64."""
    probing = Probing(find(op, None), examples(op, 0, chosen), 0, True)
    for case in probing.cases:
        trial = probing.trial(case, GIVEN, None, 2.0**-52)
        _, statics = case.arguments.build(trial.values)

        def forward(*values, case=case):
            arrays, statics = case.arguments.build(values)
            return op.fwd(*arrays, **statics)

        def backward(saved, dy, statics=statics):
            cotangents = op._backward(saved, dy, statics)
            return [ct for ct in jax.tree.leaves(cotangents) if ct.dtype != jax.dtypes.float0]

        with jax.enable_x64(True):
            there, made = jax.make_jaxpr(forward, return_shape=True)(*trial.values)
            steps = steps_of(there)
            leaves, tree = jax.tree.flatten(made)
            count = jax.tree.structure(made[0]).num_leaves
            saved = jax.tree.unflatten(tree, leaves)[1]
            dy = jax.tree.unflatten(jax.tree.structure(made[0]), trial.dys)
            kinds = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in jax.tree.leaves(dy)]
            back = jax.make_jaxpr(backward)(
                saved, jax.tree.unflatten(jax.tree.structure(dy), kinds)
            )
        residuals = [steps.run(trial.values)[v] for v in steps.outputs[count:]]
        steps = steps_of(back)
        values = steps.run([*residuals, *trial.dys])
        yield Backward(tuple(name for name, *_ in steps.steps), steps, values, trial)


def sample(op: Op) -> list[int]:
    """Choose the examples that `make test` tries.

    They are all kinks and extremes, the first example of each program (rule and definition, sizes
    aside), and one more, whose sizes are odd.
    """
    probing = Probing(find(op, None), examples(op, 0), 0, True)
    chosen, known, odd = [], set(), []
    numbers = [i for i, example in enumerate(op.examples) if "bench" not in example.tags]
    for i, case in zip(numbers, probing.cases, strict=True):
        operations = probing.operations(case)
        if case.fixed or operations not in known:
            chosen.append(i)
        else:
            sizes = [n for leaf in case.arguments.leaves for n in leaf.shape]
            odd.append((sum(n % 2 for n in sizes if n > 1), i))
        known.add(operations)
    return sorted([*chosen, *(i for _, i in sorted(odd)[-1:])])


def larger(made: Any) -> Any:
    """The result of a term, too large by 10⁻⁶."""
    inexact = jnp.issubdtype(made.dtype, jnp.inexact)
    return made * np.asarray(1 + SIZE, made.dtype) if inexact else made


def missed_terms(op: Op, chosen: Collection[int] | None = None) -> tuple[list[str], int]:
    """Plant a fault in every term of the rule of the chosen examples (all).

    Returns the terms, by program and place, that no example of that program tells from right ones
    though they change a cotangent; and how many faults were found.
    """
    outcomes: dict[tuple[tuple[str, ...], int], set[tuple[bool, bool]]] = {}
    for passed in backward_passes(op, chosen):
        for at in range(len(passed.operations)):
            outcome = passed.outcome(at, larger)
            outcomes.setdefault((passed.operations, at), set()).add(outcome)
    found = sum(any(found for _, found in seen) for seen in outcomes.values())
    missed = [
        f"{names[at]}, operation {at} of {len(names)}"
        for (names, at), seen in outcomes.items()
        if any(changed for changed, _ in seen) and not any(found for _, found in seen)
    ]
    return missed, found
