"""Every op of the table equals its oracle, and wrong rules do not pass."""

import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn import ops
from fnn.custom_op import OPS, Op
from fnn.verifier.core import run

from .faults import NAMES, missed_terms, sample

PACKAGE = [importlib.import_module(f"fnn.ops.{m.name}") for m in pkgutil.iter_modules(ops.__path__)]


LONG = ("jit", "cost", "devices", "rounding")
"""The slowest questions. test_op_calls and test_ops_meshes also call every op without jit and over
devices."""


LOWERINGS = ("conv", "dense", "dropout", "fold", "max_pool", "relu", "softmax")
"""One op per way in which JAX lowers programs, which changes with its version."""


def check(op):
    """Verify an op on some of its examples, without compiling; `make prove` does it on all."""
    numbers = sample(op)
    report = run(op, chosen=numbers, skip=LONG if op.name in LOWERINGS else (*LONG, "xla"))
    report.raise_if_failed()
    assert report.probes >= 20
    assert all(size is None or size <= 1e-10 for size in report.resolution.values())
    terms, faults = missed_terms(op, numbers)
    assert not terms
    assert faults or op.name == "identity"  # its rule has no term


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.core if n in LOWERINGS else ()) for n in NAMES]
)
def test_rules_equal_the_oracle_and_faults_are_found(name):
    check(OPS[name])


def test_every_public_function_of_ops_is_in_the_table():
    helpers = ("correlation", "devices", "geometry", "norm_parts", "taps", "targets")
    private = {f"fnn.ops.{name}" for name in helpers}
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
def test_an_op_is_fully_described(name):
    op = OPS[name]
    assert op.source
    for words in ("Shapes:", "Saves"):
        assert words in op.__doc__
    shapes = [np.shape(a) for e in op.examples for a in e.draw(0, np.float32).values()]
    assert any(0 in shape for shape in shapes), "no example of size 0"
    tags = {tag for e in op.examples for tag in e.tags}
    assert "extreme" in tags or name in ("flatten", "masked_dense")


def wrong(good, fwd=None, bwd=None, **more):
    """Return the op with another rule or reference."""
    op = Op(good.definition, **{"examples": good.examples, **more})
    op.def_fwd(fwd or good.fwd_rule)
    op.def_bwd(bwd or good.bwd_rule)
    return op


TANH = OPS["tanh"]
WRONG = {
    "a term": (wrong(TANH, bwd=lambda y, dy: (1 - y) * dy), {"term"}),
    "forward": (wrong(TANH, lambda x: (jnp.tanh(x) * 1.000001, jnp.tanh(x))), {"forward value"}),
    "reference": (wrong(TANH, reference=jnp.sin), {"forward value"}),
    "rounding": (
        wrong(
            OPS["softplus"],
            lambda x: (jax.nn.softplus(x), x),
            bwd=lambda x, dy: jax.lax.logistic(x.astype(jnp.bfloat16)).astype(dy.dtype) * dy,
        ),
        {"rounding"},
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_op_is_called_wrong_by_name(case):
    op, defects = WRONG[case]
    report = fnn.verify(op)
    assert not report.ok
    assert report.findings[0].defect in defects, report
    with pytest.raises(AssertionError, match=op.name):
        report.raise_if_failed()


def test_an_op_without_examples_is_not_called_verified():
    with pytest.raises(ValueError, match="has no examples to verify it on"):
        fnn.verify(wrong(TANH, examples=()))


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
    """Logits are ±1e4 and probabilities exactly 0 or 1, for right and for wrong answers."""
    ((argument, size),), target = EXTREMES[name][0].items(), EXTREMES[name][1]
    x = jnp.asarray(np.eye(3) * size if argument == "p" else (2 * np.eye(3) - 1) * size, dtype)
    others = {k: jnp.asarray(v, dtype if v.dtype == float else None) for k, v in target.items()}
    y, gradient = jax.value_and_grad(
        lambda x: OPS[name](**{argument: x}, **others).astype(jnp.float32).sum()
    )(x)
    assert np.isfinite(y)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()
