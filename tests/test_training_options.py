"""What a config asks of training beside a step: accumulation, an average, rules that stop it."""

import functools
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn import ops
from fnn.config import dump, load, parse
from fnn.config.training import Converge, EarlyStopping
from fnn.layers import Activation, Dense, Serial
from fnn.report import write_report
from fnn.runs.fit import train
from fnn.runs.history import has_converged, stops_early
from fnn.runs.prepare import prepare
from fnn.train import init, make_evaluate, make_update
from fnn.train.optimizer import build_optimizer, evaluated_params

from .runs import LOSS, sampled, take_steps

MODEL = Serial([Dense(5), Activation(ops.tanh), Dense(3)])
RNG = np.random.default_rng(0)
X, LABELS = jnp.asarray(RNG.normal(size=(64, 4)), "float32"), jnp.asarray(RNG.integers(3, size=64))
TEXT = """
name: small
data: xor
model: [flatten, dense: {features: 2}]
loss: softmax_cross_entropy
optimizer: %s
train: {epochs: 1%s}
"""


SGD = "{sgd: {learning_rate: 1}}"


def optimizer_of(optimizer, train=""):
    return build_optimizer(parse(TEXT % (optimizer, train)))


def path(optimizer, batches, **options):
    """The states after each step."""
    state = init(MODEL, optimizer, X.shape, 0)
    update = jax.jit(make_update(MODEL, LOSS, optimizer, **options))
    states = []
    for batch in batches:
        state, _ = update(state, X[batch], LABELS[batch])
        states.append(state)
    return states


def after_steps(optimizer, batches):
    return take_steps(MODEL, optimizer, (X, LABELS), batches)[0]


# Accumulation


@pytest.mark.parametrize("optimizer", sampled(SGD, "{adam: {learning_rate: 0.1}}"))
def test_small_batches_accumulated_are_one_large_batch(optimizer):
    """The average, too, takes the optimiser's steps and no others."""
    batches, average = np.random.default_rng(2).permutation(64).reshape(8, 8), ", average: 0.9"
    small = after_steps(optimizer_of(optimizer, f"{average}, accumulate: 4"), batches)
    large = after_steps(optimizer_of(optimizer, average), batches.reshape(2, 32))
    for params in (lambda state: state.params, evaluated_params):
        chex.assert_trees_all_close(params(small), params(large), rtol=1e-5, atol=1e-6)
    assert (int(small.step), int(large.step)) == (8, 2)
    assert int(optax.tree.get(small.optimizer, "gradient_step")) == 2


def test_parameters_wait_until_all_batches_are_accumulated():
    optimizer = optimizer_of("{sgd: {learning_rate: 0.1}}", ", accumulate: 3")
    states = path(optimizer, np.arange(48).reshape(6, 8))
    moved = [
        state.params["0_dense"]["w"] for state in (init(MODEL, optimizer, X.shape, 0), *states)
    ]
    changes = [not np.array_equal(a, b) for a, b in itertools.pairwise(moved)]
    assert changes == [False, False, True] * 2


def test_clipping_is_a_part_of_a_chain():
    clipped = optimizer_of("[clip_by_global_norm: {max_norm: 1e-3}, sgd: {learning_rate: 1}]")
    start = init(MODEL, clipped, X.shape, 0).params
    (state,) = path(clipped, [np.arange(64)])
    change = optax.tree.norm(optax.tree.sub(state.params, start))
    assert float(change) == pytest.approx(1e-3, rel=1e-4)


# The average


@pytest.mark.parametrize("decay", sampled(0.5, 0.999))
def test_the_average_is_the_weighted_mean_of_all_steps(decay):
    optimizer = optimizer_of("{adam: {learning_rate: 0.1}}", f", average: {decay}")
    states = path(optimizer, np.arange(48).reshape(6, 8))
    for t in (1, 6):
        weights = decay ** np.arange(t, dtype=np.float64)[::-1]
        params = [state.params for state in states[:t]]
        stacked = jax.tree.map(lambda *ps: np.asarray(ps, np.float64), *params)
        want = jax.tree.map(functools.partial(np.average, axis=0, weights=weights), stacked)
        average = jax.tree.map(lambda a: np.asarray(a, np.float64), evaluated_params(states[t - 1]))
        chex.assert_trees_all_close(average, want, rtol=1e-6, atol=1e-7)


def test_the_average_leaves_out_a_step_that_is_skipped():
    optimizer = optimizer_of(SGD, ", average: 0.9")
    state = init(MODEL, optimizer, X.shape, 0)
    update = jax.jit(make_update(MODEL, LOSS, optimizer, skip_nonfinite=True))
    taken, _ = update(state, X, LABELS)
    skipped, _ = update(taken, X * jnp.nan, LABELS)
    chex.assert_trees_all_equal(skipped.optimizer, taken.optimizer)


def test_parameters_without_an_average_are_evaluated_themselves():
    state = init(MODEL, optax.adam(0.1), X.shape, 0)
    assert evaluated_params(state) is state.params


def test_an_average_of_bfloat16_parameters_is_finer_than_they_are():
    text = TEXT % ("{sgd: {learning_rate: 1e-3}}", ", average: 0.9")
    config = parse(text + "precision: {params: bfloat16}")
    batches, parts = np.arange(64).reshape(8, 8), (MODEL, build_optimizer(config), (X, LABELS))
    state, _ = take_steps(*parts, batches, precision=config.precision)
    averages = evaluated_params(state)
    assert {leaf.dtype for leaf in jax.tree.leaves(averages)} == {np.dtype("float32")}
    wide = jax.tree.map(lambda p: p.astype("float32"), state.params)
    chex.assert_trees_all_close(averages, wide, rtol=0.01, atol=1e-3)


# Optimisers that want the loss


@pytest.mark.parametrize("train", sampled("", ", accumulate: 2"))
def test_a_plateau_of_the_loss_makes_steps_smaller(train):
    parts = "[sgd: {learning_rate: 0.0}, reduce_on_plateau: {factor: 0.5, patience: 2}]"
    states = path(optimizer_of(parts, train), [np.arange(64)] * 10)
    ((_, scale),) = optax.tree.get_all_with_path(states[-1].optimizer, "scale")
    assert scale == 0.5 ** (4 if not train else 2)  # the first step sets the best so far


def test_a_polyak_step_is_the_loss_over_the_squared_gradient():
    optimizer = optimizer_of("{polyak_sgd: {max_learning_rate: 1e9}}")

    @jax.jit
    def both(state):
        D, gradients = jax.value_and_grad(lambda p: LOSS(MODEL.apply(p, {}, X)[0], LABELS))(
            state.params
        )
        rate = D / optax.tree.norm(gradients, squared=True)
        want = jax.tree.map(lambda p, g: p - rate * g, state.params, gradients)
        return make_update(MODEL, LOSS, optimizer)(state, X, LABELS)[0].params, want

    updates, want = both(init(MODEL, optimizer, X.shape, 0))
    chex.assert_trees_all_close(updates, want, rtol=1e-5, atol=1e-6)


# Rules that stop


@pytest.mark.parametrize(
    ("losses", "rule", "stops"),
    [
        ([3, 2, 1], {"patience": 1}, False),
        ([3, 2, 2], {"patience": 1}, True),
        ([3, 2, 2], {"patience": 2}, False),
        ([3, 2, 2.5, 2.5], {"patience": 2}, True),
        ([3, 2, 2.5, 1.9], {"patience": 2}, False),
        ([3, 2, 2.5, 1.9], {"patience": 2, "min_delta": 0.1}, True),
        ([3, 2, 2.5, 1.8], {"patience": 2, "min_delta": 0.1}, False),
        ([3], {"patience": 1}, False),
        ([3, math.nan], {"patience": 1}, True),
        ([3, None, 2], {"patience": 2}, False),
        ([None, 3], {"patience": 1}, False),
        ([None, None], {"patience": 1}, True),
        ([1.0, 0.95], {"epsilon": 0.1}, True),
        ([1.0, 0.85], {"epsilon": 0.1}, False),
        ([1.0, 1.05], {"epsilon": 0.1}, True),
        ([1.0], {"epsilon": 0.1}, False),
        ([1.0, 0.9, 0.95], {"epsilon": 0.1, "window": 2}, True),
        ([1.0, 0.95], {"epsilon": 0.1, "window": 2}, False),
        ([None, None], {"epsilon": 0.1}, False),
    ],
)
def test_early_stopping_waits_for_something_better_and_convergence_is_a_small_change(
    losses, rule, stops
):
    rows = [{"test_loss": loss, "train_loss": loss} for loss in losses]
    assert not stops_early(rows, None)
    assert not has_converged(rows, None)
    if "epsilon" in rule:
        assert has_converged(rows, Converge(**rule)) is stops
        return
    assert stops_early(rows, EarlyStopping(**rule)) is stops
    if None not in losses:
        grows = [{"test_accuracy": -loss} for loss in losses]
        assert stops_early(grows, EarlyStopping(metric="test_accuracy", **rule)) is stops


def test_every_option_is_written_out_and_read_again():
    options = ", average: 0.99, accumulate: 2, early_stopping: {metric: test_accuracy}"
    config = parse(TEXT % (SGD, options))
    assert config.train.early_stopping == EarlyStopping(metric="test_accuracy", patience=5)
    assert parse(dump(config)) == config


# A whole run


def run(tmp_path, *overrides):
    ready = prepare(load("configs/xor.yaml", ("train.converge=null", *overrides)))
    return ready, train(ready, tmp_path), np.load(tmp_path / "parameters.npz")


def test_a_run_stops_early_and_keeps_the_average(tmp_path):
    rule = "train.early_stopping={metric: test_accuracy, patience: 3, min_delta: 1.0}"
    options = ("train.epochs=50", "train.average=0.9", "train.accumulate=2", rule)
    ready, summary, params = run(tmp_path, *options)
    assert (summary["status"], summary["epochs"]) == ("early_stopped", 4)
    assert "early_stopped" in write_report(tmp_path).read_text()
    x, labels = jnp.asarray(ready.data.x_test), jnp.asarray(ready.data.y_test)
    tree = {}
    for name, value in params.items():
        layer, parameter = name.split("/")
        tree.setdefault(layer, {})[parameter] = jnp.asarray(value)
    evaluation = make_evaluate(ready.model, ready.loss)(tree, {}, x, labels)
    assert evaluation.loss() == pytest.approx(summary["test_loss"], rel=1e-6)


def test_a_run_in_bfloat16_leaves_arrays_that_numpy_reads(tmp_path):
    precision = "{params: bfloat16, compute: bfloat16, reduce: bfloat16}"
    _, summary, params = run(tmp_path, "train.epochs=2", f"precision={precision}")
    assert summary["status"] == "completed"
    with np.load(tmp_path / "predictions.npz") as predictions:
        assert predictions["scores"].dtype == predictions["loss"].dtype == np.float32
    assert {value.dtype for value in params.values()} == {np.dtype("float32")}
