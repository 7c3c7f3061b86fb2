"""The dtypes of a step, the scale of a float16 loss, and skipped steps."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn import ops
from fnn.config import parse
from fnn.config.training import Precision
from fnn.errors import ConfigError
from fnn.layers import Activation, BatchNorm, Dense, Dropout, Flatten, Serial
from fnn.runs.compare import compare
from fnn.train import init, make_evaluate, make_update, order, value_and_grad
from fnn.train.plan import step_memory
from fnn.train.precision import FIRST_SCALE, FLOAT32

from .runs import LOSS, sampled, take_steps
from .runs import digits as digits

pytestmark = pytest.mark.core
MLP = Serial([Flatten(), Dense(16), Activation(ops.relu), Dense(10)])
NORMED = Serial([Flatten(), Dense(16), BatchNorm(), Activation(ops.relu), Dropout(0.2), Dense(10)])
GRADIENTS = ("manual", "autodiff", "backprop")
DIGITS = (16, 8, 8, 1)


def differentiated(model, gradient, precision, digits, dD=1.0):
    state = init(model, optax.sgd(0.1), DIGITS, 3, precision)
    function = jax.jit(value_and_grad(model, LOSS, gradient, precision))
    return function(state.params, state.layers, *digits, state.key, dD)


def error(gradients, exact):
    """Return the largest error per array, relative to the largest element of the exact one."""
    pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(exact), strict=True)
    return [float(jnp.max(jnp.abs(g - e)) / jnp.max(jnp.abs(e))) for g, e in pairs]


@pytest.mark.parametrize("compute", sampled("bfloat16", "float16"))
def test_in_half_precision_the_rules_are_as_good_as_automatic_differentiation(digits, compute):
    precision = Precision(compute=compute)
    (exact_D, exact_layers), exact = differentiated(NORMED, "autodiff", FLOAT32, digits)
    errors = {}
    for gradient in GRADIENTS:
        (D, layers), gradients = differentiated(NORMED, gradient, precision, digits)
        chex.assert_trees_all_equal_dtypes(gradients, exact)
        chex.assert_trees_all_equal_dtypes(layers, exact_layers)
        assert D.dtype == jnp.float32
        # Along each path some 20 numbers are rounded, by half an eps each, and errors may add up.
        eps = float(jnp.finfo(compute).eps)
        assert abs(float(D - exact_D)) < 10 * eps * float(exact_D)
        errors[gradient] = error(gradients, exact)
    assert max(errors["manual"]) > 1e-5  # the gradient was not computed in float32
    for gradient in ("manual", "backprop"):
        for actual, natural in zip(errors[gradient], errors["autodiff"], strict=True):
            assert actual <= 4 * natural + 2 * eps


@pytest.mark.parametrize(
    ("gradient", "compute"),
    [("manual", "float32"), ("manual", "float16"), *((g, "bfloat16") for g in GRADIENTS)],
)
def test_the_programs_matrix_products_are_in_the_configured_dtype(digits, gradient, compute):
    precision, optimizer = Precision(compute=compute), optax.adam(1e-3)
    state = init(MLP, optimizer, DIGITS, 0, precision)
    update = make_update(MLP, LOSS, optimizer, gradient, precision)
    text = jax.jit(update).lower(state, *digits).as_text()
    products = re.findall(r"stablehlo\.dot_general .*: \((.*)\) -> (.*)", text)
    assert len(products) == 5  # two forward; backward, two for weights and one for a layer's input
    short = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[compute]
    for product in products:
        assert set(re.findall(r"x([a-z]+\d+)>", " ".join(product))) == {short}


def test_a_run_in_half_precision_ends_where_the_float32_run_does(digits):
    rate, count = 0.05, 60
    batches = jnp.stack([order(3, epoch, 96) for epoch in range(count)])

    def run(precision):
        state, _ = take_steps(MLP, optax.sgd(rate), digits, batches, seed=3, precision=precision)
        scores = make_evaluate(MLP, LOSS)(state.params, state.layers, *digits)
        return state.params, scores.loss(), scores.accuracy(np.asarray(digits[1]))

    # A gradient of two layers has up to 16 successive roundings of half an eps each. That bounds
    # the relative error of each step; the loss is off by that times the slope, which only shrinks.
    function = jax.jit(value_and_grad(MLP, LOSS, "manual"))
    params, losses, slopes = init(MLP, optax.sgd(rate), DIGITS, 3).params, [], []
    for _ in range(count):
        (D, _), gradients = function(params, {}, *digits, jax.random.key(0))
        slopes.append(float(optax.tree.norm(gradients)))
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradients)
        losses.append(float(D))
    exact, loss, accuracy = run(FLOAT32)
    for compute in ("bfloat16", "float16"):
        params, half_loss, half_accuracy = run(Precision(compute=compute))
        chex.assert_trees_all_equal_dtypes(params, exact)
        tolerance = 16 * float(jnp.finfo(compute).eps) / 2 * rate * sum(slopes) * max(slopes)
        assert 0 < abs(half_loss - loss) < tolerance < (losses[0] - loss) / 4
        assert abs(half_accuracy - accuracy) <= 1 / 96


def test_parameters_and_the_optimisers_state_can_be_bfloat16(digits):
    precision = Precision(params="bfloat16", compute="bfloat16", reduce="bfloat16")
    optimizer, batches = optax.adam(1e-2), np.tile(np.arange(96), (30, 1))
    start = init(NORMED, optimizer, DIGITS, 0, precision)
    state, _ = take_steps(NORMED, optimizer, digits, batches, precision=precision)
    evaluate = make_evaluate(NORMED, LOSS, precision)
    before, after = (evaluate(s.params, s.layers, *digits) for s in (start, state))
    short = jax.tree.leaves((state.params, state.optimizer[0].mu))
    assert {leaf.dtype for leaf in short} == {np.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(state.layers)} == {np.dtype("float32")}
    assert after.loss() < before.loss() / 2
    assert after.scores.dtype == after.losses.dtype == np.float32


def test_comparison_and_plan_use_the_precision_of_the_run(digits, monkeypatch):
    monkeypatch.setattr("fnn.runs.compare.ROUNDS", 1)
    half = Precision(params="bfloat16", compute="bfloat16")
    model = Serial([Flatten(), Dense(10)])
    comparison = compare(model, LOSS, optax.sgd(0.1), *digits, batch_size=32, precision=half)
    assert max(p["max_relative_difference"] for p in comparison["parameters"]) < 1e-5
    parts = (model, LOSS, optax.sgd(0.1), DIGITS, "manual")
    difference = step_memory(*parts).arguments - step_memory(*parts, half).arguments
    assert difference == 2 * (64 * 10 + 10)


# float64


DOUBLE = {"params": "float64", "compute": "float64", "reduce": "float64"}


@pytest.mark.parametrize("gradient", sampled("manual", "backprop"))
def test_gradients_can_be_float64(digits, gradient):
    with jax.enable_x64(True):
        precision, x = Precision(**DOUBLE), digits[0].astype("float64")
        exact = differentiated(NORMED, "autodiff", precision, (x, digits[1]))
        actual = differentiated(NORMED, gradient, precision, digits)
        chex.assert_trees_all_equal_dtypes(actual, exact)
        chex.assert_trees_all_close(actual, exact, rtol=1e-10, atol=1e-13)


def test_everything_can_be_float64(digits):
    with jax.enable_x64(True):
        precision, batches = Precision(**DOUBLE), np.asarray(order(0, 0, 96)).reshape(6, 16)
        state, _ = take_steps(
            NORMED, optax.sgd(0.1, momentum=0.9), digits, batches, precision=precision
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float64")}
        make_evaluate(NORMED, LOSS, precision)(state.params, state.layers, *digits)


TEXT = """
name: small
data: xor
model: [flatten, dense: {features: 2}]
loss: softmax_cross_entropy
optimizer: {sgd: {learning_rate: 0.1}}
train: {epochs: 1}
precision: {%s}
"""


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        (
            "params: float64",
            "<config>:8: precision.params: float64 needs JAX's 64-bit types, which",
        ),
        ("compute: float64", r"precision.compute: .*; set the environment variable JAX_ENABLE_X64"),
        ("params: float16", "params: expected 'float32', 'float64' or 'bfloat16', got 'float16'"),
        ("compute: int8", "precision.compute: expected 'float32', .*, got 'int8'"),
        ("computes: float32", "unknown key 'computes'; did you mean 'compute'"),
    ],
)
def test_an_invalid_precision_is_refused(precision, message):
    with pytest.raises(ConfigError, match=message):
        parse(TEXT % precision)


def test_a_config_sets_the_precision():
    assert parse(TEXT % "compute: bfloat16").precision == Precision(compute="bfloat16")
    with jax.enable_x64(True):
        assert parse(TEXT % "params: float64").precision.params == "float64"


# float16


FLOAT16 = Precision(compute="float16")


def all_but_counters(state):
    return state._replace(key=None, step=None, skipped=None, scale=None)


@pytest.mark.parametrize("gradient", sampled(*GRADIENTS))
def test_scaling_saves_gradients_that_float16_cannot_hold(digits, gradient):
    tiny = 2.0**-20  # scales the loss so that gradients fall below 6e-8
    _, exact = differentiated(MLP, gradient, FLOAT32, digits)
    for dD, bound in ((tiny, (0.5, 1.1)), (tiny * FIRST_SCALE, (0, 8 * 2.0**-10))):
        _, gradients = differentiated(MLP, gradient, FLOAT16, digits, dD)
        errors = error(optax.tree.scale(1 / dD, gradients), exact)
        assert bound[0] < min(errors) <= max(errors) < bound[1]


def test_a_gradient_that_overflows_halves_the_scale_and_nothing_else(digits):
    optimizer = optax.adam(1e-2)
    update = jax.jit(make_update(NORMED, LOSS, optimizer, precision=FLOAT16))
    start = init(NORMED, optimizer, DIGITS, 0, FLOAT16)
    large = jax.tree.map(lambda scale: scale * 2**9, start.scale)
    after, D = update(start._replace(scale=large), *digits)
    assert np.isfinite(D)
    chex.assert_trees_all_equal(all_but_counters(after), all_but_counters(start))
    assert (after.step, after.skipped) == (1, 1)
    assert (after.scale.factor, after.scale.good_steps) == (FIRST_SCALE * 2**8, 0)
    second, _ = update(after._replace(scale=start.scale), *digits)
    assert (second.step, second.skipped, second.scale.good_steps) == (2, 1, 1)
    assert not np.array_equal(second.params["1_dense"]["w"], start.params["1_dense"]["w"])
    assert not np.array_equal(second.layers["2_batch_norm"]["mean"], np.zeros(16))


def test_the_scale_grows_after_many_steps_and_falls_within_its_limits(digits, monkeypatch):
    monkeypatch.setattr("fnn.train.precision.STEPS_TO_DOUBLE", 3)
    monkeypatch.setattr("fnn.train.precision.LARGEST_SCALE", 4 * FIRST_SCALE)
    update = jax.jit(make_update(MLP, LOSS, optax.sgd(0.01), precision=FLOAT16))
    state, factors = init(MLP, optax.sgd(0.01), DIGITS, 0, FLOAT16), []
    for _ in range(10):
        state, _ = update(state, digits[0] / 4, digits[1])
        factors.append(float(state.scale.factor) / FIRST_SCALE)
    assert factors == [1, 1, 2, 2, 2, 4, 4, 4, 4, 4]
    assert state.skipped == 0
    for _ in range(19):  # from 2¹⁷
        state, _ = update(state, digits[0] * jnp.nan, digits[1])
    assert (state.scale.factor, state.skipped) == (1, 19)


# Skipped steps


def test_a_step_that_is_not_finite_can_be_skipped(digits):
    x, labels = digits
    x = x.at[16, 3, 3].set(jnp.nan)  # in the second of six batches
    optimizer, batches = optax.sgd(0.1), np.arange(96).reshape(6, 16)
    state, _ = take_steps(NORMED, optimizer, (x, labels), batches, skip_nonfinite=True)
    assert (state.step, state.skipped, state.scale) == (6, 1, ())
    without = init(NORMED, optimizer, DIGITS, 0)
    step = jax.jit(make_update(NORMED, LOSS, optimizer))
    for i in (0, 2, 3, 4, 5):
        without = without._replace(step=jnp.int32(i))  # dropout depends on it
        without, _ = step(without, x[batches[i]], labels[batches[i]])
    actual, expected = map(all_but_counters, (state, without))
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_finite_loss_with_an_infinite_gradient_is_skipped(digits):
    optimizer = optax.sgd(0.1)
    update = make_update(MLP, LOSS, optimizer, skip_nonfinite=True)
    state = init(MLP, optimizer, DIGITS, 0)
    state.params["1_dense"]["w"] = jnp.full((64, 16), -1.0)  # every relu is off
    state.params["1_dense"]["b"] = jnp.full(16, -1.0)
    # 0 · ∞ in the gradient of w; the outputs stay finite
    after, D = jax.jit(update)(state, jnp.abs(digits[0]).at[0, 0].set(jnp.inf), digits[1])
    assert np.isfinite(D)
    assert after.skipped == 1
    chex.assert_trees_all_equal(after.params, state.params)


def test_a_step_of_float32_neither_tests_nor_casts(digits):
    state = init(MLP, optax.adam(1e-2), DIGITS, 0)
    assert state.scale == ()
    program = jax.jit(make_update(MLP, LOSS, optax.adam(1e-2))).lower(state, *digits).as_text()
    assert not re.search(r"is_finite|stablehlo\.case|bf16|f16|f64", program)
