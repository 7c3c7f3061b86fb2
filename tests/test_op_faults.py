"""A fault of 10⁻⁶ planted in any one term of any op's backward rule is found by the comparison."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from fnn.op import OPS, Op
from fnn.verify.cases import examples
from fnn.verify.judge import misfit
from fnn.verify.probes import GIVEN, Probing
from fnn.verify.programs import pullback
from fnn.verify.subject import find

from .test_ops import NAMES


def perturbed(rule, which, size=1e-6):
    """The rule with the result of its equation number `which` too large by `size` relative."""

    def run(*args, **statics):
        flat, tree = jax.tree.flatten(args)
        shapes = []

        def flattened(*flat):
            out, out_tree = jax.tree.flatten(rule(*jax.tree.unflatten(tree, flat), **statics))
            shapes.append(out_tree)
            return out

        closed = jax.make_jaxpr(flattened)(*flat)
        return jax.tree.unflatten(shapes[0], _evaluate(closed, flat, which, size))

    return run


def _evaluate(closed, args, which, size):
    environment = dict(zip(closed.jaxpr.constvars, closed.consts))
    environment |= dict(zip(closed.jaxpr.invars, args))

    def read(var):
        return var.val if isinstance(var, core.Literal) else environment[var]

    for number, equation in enumerate(closed.jaxpr.eqns):
        params = equation.primitive.get_bind_params(equation.params)
        out = equation.primitive.bind(*map(read, equation.invars), **params)
        outs = out if equation.primitive.multiple_results else [out]
        factor = jnp.where(which == number, 1 + size, 1)
        for var, value in zip(equation.outvars, outs):
            if jnp.issubdtype(value.dtype, jnp.inexact):
                value = value * factor.astype(value.dtype)
            environment[var] = value
    return [read(var) for var in closed.jaxpr.outvars]


def faults(op):
    """Run every planted fault of one op in float64.

    Yields, for each equation of each example's backward rule, whether the fault changed the
    cotangents at all, and whether the comparison with the oracle found it.
    """
    probing = Probing(find(op, None), examples(op, 0), 0, True)
    mutant = Op(op.definition)
    mutant.fwd(op._fwd)
    trials = [probing.trial(case, GIVEN, None, 2.0**-52) for case in probing.cases]
    with jax.enable_x64(True):

        @jax.jit
        def run(which, arrays, dys):
            mutant._bwd = perturbed(op._bwd, which)
            return [
                pullback(mutant, trial.case.arguments, a)[1](dy)
                for trial, a, dy in zip(trials, arrays, dys)
            ]

        numbers = [t.values for t in trials], [t.dys for t in trials]
        for which in range(_largest_rule(op, trials)):
            changed = found = False
            for trial, cotangents in zip(trials, jax.device_get(run(which, *numbers))):
                for i, (got, base) in enumerate(zip(cotangents, trial.got["ct"])):
                    near = np.max(np.abs(base), initial=0) * 1e-10  # the resolution promised
                    changed |= bool(np.any(np.abs(got - base) > near))
                    found |= misfit(got, trial.want["ct"][i], trial.tolerance("ct", i)) is not None
            yield which, changed, found


def _largest_rule(op, trials):
    """The number of equations of the longest backward rule among the examples."""
    sizes = []
    for trial in trials:
        arrays, statics = trial.case.arguments.build(map(jnp.asarray, trial.values))
        y, saved = op.fwd(*arrays, **statics)
        dy = jax.tree.unflatten(jax.tree.structure(y), map(jnp.asarray, trial.dys))
        flat, tree = jax.tree.flatten((saved.residuals, dy))
        rule = lambda *f, t=tree, s=statics: op._bwd(*jax.tree.unflatten(t, f), **s)  # noqa: E731
        sizes.append(len(jax.make_jaxpr(rule)(*flat).jaxpr.eqns))
    return max(sizes)


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_of_1e_minus_6_in_any_term_is_found(name):
    outcomes = list(faults(OPS[name]))
    missed = [which for which, changed, found in outcomes if changed and not found]
    assert not missed
    if name not in ("add", "identity", "flatten", "step"):  # these hand ȳ on, and have no terms
        assert sum(found for _, _, found in outcomes) >= 1
