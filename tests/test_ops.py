"""Every op of the table: its rules against its oracle, and that a wrong rule does not pass."""

import importlib
import inspect
import pkgutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from fnn import ops
from fnn.op import OPS, Op, rules
from fnn.verify import core as verify
from fnn.verify.core import check

pytestmark = pytest.mark.core

PACKAGE = [importlib.import_module(f"fnn.ops.{m.name}") for m in pkgutil.iter_modules(ops.__path__)]
NAMES = [name for name, op in OPS.items() if op.__module__.startswith("fnn.")]


@pytest.mark.parametrize("name", NAMES)
def test_rules_equal_the_oracle(name):
    report = check(OPS[name])
    assert not report.findings, "\n".join(map(str, report.findings))
    assert report.examples >= 6


def test_every_public_function_of_ops_is_in_the_table():
    private = {"fnn.ops.targets"}
    for module in PACKAGE:
        if module.__name__ in private:
            continue
        for name, value in vars(module).items():
            if isinstance(value, Op):
                assert OPS[name] is value
                assert value.__module__ != module.__name__ or getattr(ops, name) is value
            elif inspect.isfunction(value) and value.__module__ == module.__name__:
                rule = name.removesuffix("_fwd").removesuffix("_bwd")
                assert name.startswith("_") or rule in OPS, f"{module.__name__}.{name}"


@pytest.mark.parametrize("name", NAMES)
def test_an_op_says_all_about_itself(name):
    op = OPS[name]
    assert op.source
    for words in ("Shapes:", "Saves"):
        assert words in op.__doc__
    shapes = [np.shape(a) for e in op.examples for a in e.draw(0, np.float32).values()]
    assert any(0 in shape for shape in shapes), "no example of size 0"
    tags = {tag for e in op.examples for tag in e.tags}
    assert "extreme" in tags or name in ("flatten", "masked_dense")


# A fault in any one term is found


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

    Returns, for each equation of each example's backward rule, whether the fault changed the
    cotangents at all, and whether the comparison with the oracle found it.
    """
    examples = [e for e in op.examples if "bench" not in e.tags]
    with jax.enable_x64(True):
        arrays, statics, dys = verify.draw(op, examples, "float64")
        mutant = Op(op.definition)
        mutant.fwd(op._fwd)
        clean = verify.rules_program(op, statics)(arrays, dys)
        oracle = jax.device_get(verify.oracle_program(op, statics)(arrays, dys))
        size = _largest_rule(op, arrays, statics, dys)

        @jax.jit
        def run(which, arrays, dys):
            mutant._bwd = perturbed(op._bwd, which)
            return verify.rules_program(mutant, statics)(arrays, dys)

        for which in range(size):
            outcome = jax.device_get(run(which, arrays, dys))
            changed = found = False
            for got, base, want in zip(outcome, jax.device_get(clean), oracle):
                for what in want:
                    near = np.max(np.abs(base[what]), initial=0) * 1e-13
                    changed |= bool(np.any(np.abs(got[what] - base[what]) > near))
                    found |= (
                        verify.compare(got[what], want[what], want[what], "float64")[0] is not None
                    )
            yield which, changed, found


def _largest_rule(op, arrays, statics, dys):
    """The number of equations of the longest backward rule among the examples."""
    sizes = []
    for a, s, dy in zip(arrays, statics, dys):
        _, saved = op.fwd(*a, **s)
        flat, tree = jax.tree.flatten((saved.residuals, dy))
        rule = lambda *f, t=tree, s=s: op._bwd(*jax.tree.unflatten(t, f), **s)  # noqa: E731
        sizes.append(len(jax.make_jaxpr(rule)(*flat).jaxpr.eqns))
    return max(sizes)


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_of_1e_minus_6_in_any_term_is_found(name):
    outcomes = list(faults(OPS[name]))
    missed = [which for which, changed, found in outcomes if changed and not found]
    assert not missed
    if name not in ("identity", "flatten", "step"):  # rules that only hand ȳ on have no terms
        assert sum(found for _, _, found in outcomes) >= 1


FAULTS = {
    "scaled": lambda ct: ct * (1 + 1e-6),
    "zero": lambda ct: 0 * ct,
    "negated": lambda ct: -ct,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_cotangent_is_found(name):
    """Scale, zero and negate each of an op's cotangents in turn."""
    op = OPS[name]
    examples = [e for e in op.examples if "bench" not in e.tags]
    with jax.enable_x64(True):
        arrays, statics, dys = verify.draw(op, examples, "float64")
        oracle = jax.device_get(verify.oracle_program(op, statics)(arrays, dys))
    for what in {what for outcome in oracle for what in outcome if what != "y"}:
        for fault in FAULTS.values():
            assert any(
                verify.compare(fault(want[what]), want[what], want[what], "float64")[0]
                for want in oracle
                if what in want
            ), what


def test_the_check_names_what_is_wrong():
    good = OPS["tanh"]
    wrong = Op(good.definition, examples=good.examples)
    wrong.fwd(good._fwd)
    wrong.bwd(lambda y, dy: (1 - y) * dy)
    report = check(wrong)
    assert not report.ok
    first = report.findings[0]
    assert (first.op, first.what, first.dtype) == ("tanh", "dx", "float64")
    assert "expected" in str(first)
    affine = Op(good.definition, examples=good.examples)
    affine.fwd(good._fwd)
    affine.bwd(lambda y, dy: (1 - y * y) * dy + 1e-30)
    assert {f.what for f in check(affine, ["float64"]).findings} == {"dx(0 dy)", "dx(2 dy)"}
    forward = Op(good.definition, examples=good.examples)
    forward.fwd(lambda x: (jnp.tanh(x) * 1.000001, jnp.tanh(x)))
    forward.bwd(good._bwd)
    assert "y" in {f.what for f in check(forward, ["float64"]).findings}
    shaped = Op(good.definition, examples=good.examples[:1])
    shaped.fwd(lambda x: (jnp.tanh(x)[None], jnp.tanh(x)))
    shaped.bwd(good._bwd)
    (finding,) = check(shaped, ["float64"]).findings
    assert "y is float64[1,4,3] where float64[4,3] is expected" in str(finding)
    other = Op(good.definition, examples=good.examples, reference=jnp.sin)
    other.fwd(good._fwd)
    other.bwd(good._bwd)
    assert {f.what for f in check(other, ["float64"]).findings} == {"reference y"}


def test_a_rule_that_rounds_worse_than_autodiff_is_found():
    coarse = OPS["softplus"]
    rule = Op(coarse.definition, examples=coarse.examples)
    rule.fwd(lambda x: (jnp.log(1 + jnp.exp(jnp.minimum(x, 30))) + jnp.maximum(x - 30, 0), x))
    rule.bwd(lambda x, dy: jax.lax.logistic(x.astype(jnp.bfloat16)).astype(dy.dtype) * dy)
    assert "dx" in {f.what for f in check(rule, ["float32"]).findings}


def test_an_op_without_examples_is_not_called_verified():
    with pytest.raises(ValueError, match="has no examples to verify it on"):
        check(Op(lambda x: x))


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_equal_the_oracles(name):
    """The gradient of the squared length of a gradient, by the rules and by the definitions."""
    op = OPS[name]
    with jax.enable_x64(True):
        (arrays,), (statics,), (dy,) = verify.draw(op, op.examples[:1], "float64")
        real = [i for i, a in enumerate(arrays) if a is not None and jnp.issubdtype(a.dtype, float)]

        def first(*chosen):
            full = list(arrays)
            for i, a in zip(real, chosen):
                full[i] = a
            return jnp.sum(jnp.sin(op(*full, **statics)) * dy)

        def length(*chosen):
            return sum(jnp.sum(g**2) for g in jax.grad(first, range(len(real)))(*chosen))

        second = jax.jit(jax.grad(length, range(len(real))))
        chosen = [arrays[i] for i in real]
        got = second(*chosen)
        with rules("autodiff"):
            want = second(*chosen)
        chex.assert_trees_all_close(got, want, rtol=1e-11, atol=1e-11)


LABELS = np.array([0, 1, 2])
EXTREMES = {
    "softmax": ({"x": 1e4}, {}),
    "log_softmax": ({"x": 1e4}, {}),
    "softmax_cross_entropy": ({"logits": 1e4}, {"target": LABELS}),
    "binary_cross_entropy_with_logits": ({"logits": 1e4}, {"target": np.eye(3)}),
    "binary_cross_entropy": ({"p": 1.0}, {"target": np.eye(3)[::-1]}),
    "categorical_cross_entropy": ({"p": 1.0}, {"target": np.roll(LABELS, 1)}),
    "kl_divergence": ({"p": 1.0}, {"target": np.eye(3)[::-1]}),
    **{name: ({"x": 1e4}, {}) for name in ("sigmoid", "tanh", "softplus", "relu", "leaky_relu")},
}


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_ends_of_the_range_are_finite(name, dtype):
    """Logits of ±1e4, probabilities of exactly 0 and 1: right and utterly wrong answers alike."""
    ((argument, size),), target = EXTREMES[name][0].items(), EXTREMES[name][1]
    x = jnp.asarray(np.eye(3) * size if argument == "p" else (2 * np.eye(3) - 1) * size, dtype)
    given = {k: jnp.asarray(v, dtype if v.dtype == float else None) for k, v in target.items()}
    y, gradient = jax.value_and_grad(
        lambda x: OPS[name](**{argument: x}, **given).astype(jnp.float32).sum()
    )(x)
    assert np.isfinite(y)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()
