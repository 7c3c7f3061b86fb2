"""Training: the step, the loop, the run folder, and what stops it."""

import json
import math
import signal
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn import ops
from fnn.config import load, parse
from fnn.errors import ConfigError, FnnError
from fnn.layers import Activation, Dense, Flatten, Serial
from fnn.report import write_report
from fnn.runs import folder as files
from fnn.runs.compare import compare, compare_experiment
from fnn.runs.fit import train
from fnn.runs.prepare import prepare
from fnn.train import make_evaluate, order
from fnn.train.plan import layer_table, step_memory
from fnn.train.step import init, make_steps, make_update

from .runs import LOSS, Stop, arrays, metrics, sampled, take_steps
from .runs import digits as digits

MODEL = Serial([Flatten(), Dense(8), Activation(ops.relu), Dense(10)])
SGD = optax.sgd(0.1, momentum=0.9)
FILES = {
    *("config.yaml", "environment.json", "metrics.jsonl", "summary.json"),
    *("parameters.npz", "predictions.npz", "checkpoints", ".lock"),
}


@pytest.fixture
def quick(tmp_path):
    """Train a small experiment in a run folder, and return what it left."""

    def run(text="", *, config="xor", overrides=(), progress=None):
        made = parse(text) if text else load(f"configs/{config}.yaml", overrides)
        ready = prepare(made)
        where = files.create(tmp_path, made.name)
        summary = train(ready, where, progress)
        return where, summary, metrics(where)

    return run


# The step


@pytest.mark.core
def test_the_three_gradients_give_the_same_losses_step_by_step(digits):
    batches = np.stack([order(3, i, 96)[:16] for i in range(20)])
    state, manual = take_steps(MODEL, optax.adam(1e-2), digits, batches)
    assert manual[-1] < manual[0]
    for gradient in ("autodiff", "backprop"):
        other, losses = take_steps(MODEL, optax.adam(1e-2), digits, batches, gradient=gradient)
        chex.assert_trees_all_close(losses, manual, rtol=1e-5)
        chex.assert_trees_all_close(other.params, state.params, rtol=1e-3, atol=1e-5)
        assert int(other.step) == 20


@pytest.mark.core
@pytest.mark.parametrize("fetch_bytes", sampled(3 * 16 * 256, 1, 2**20))
def test_many_steps_in_one_program_are_the_steps_one_by_one(digits, monkeypatch, fetch_bytes):
    """Also where several batches are copied together."""
    batches = np.asarray(order(0, 0, 96)).reshape(6, 16)
    single, losses = init(MODEL, SGD, digits[0].shape, 0), []
    step = jax.jit(make_update(MODEL, LOSS, SGD))
    for batch in batches:
        single, loss = step(single, digits[0][batch], digits[1][batch])
        losses.append(loss)
    want = single._replace(key=None), np.array(losses)
    for together in (False, True):
        if together:
            monkeypatch.setattr("fnn.train.step.SMALL_BATCH", 0)
            monkeypatch.setattr("fnn.train.step.FETCH_BYTES", fetch_bytes)
        many, losses = take_steps(MODEL, SGD, digits, batches)
        chex.assert_trees_all_close((many._replace(key=None), losses), want, rtol=1e-6, atol=1e-7)


@pytest.mark.core
def test_the_state_is_donated(digits):
    state = init(MODEL, SGD, digits[0].shape, 0)
    make_steps(make_update(MODEL, LOSS, SGD))(state, *digits, np.arange(96).reshape(6, 16))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


@pytest.mark.core
def test_one_sgd_step_is_the_formula(digits):
    state = init(MODEL, optax.sgd(0.5), digits[0].shape, 0)

    @jax.jit
    def both(state, x, labels):
        gradient = jax.grad(lambda p: LOSS(MODEL.apply(p, {}, x)[0], labels))(state.params)
        want = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, gradient)
        return make_update(MODEL, LOSS, optax.sgd(0.5))(state, x, labels)[0].params, want

    chex.assert_trees_all_close(*both(state, *digits), rtol=1e-6, atol=1e-7)


@pytest.mark.core
def test_the_order_is_a_permutation_of_seed_and_epoch_alone():
    orders = [np.asarray(order(s, e, 50)) for s, e in ((0, 1), (0, 2), (1, 1))]
    for each in orders:
        assert sorted(each) == list(range(50))
    assert len({tuple(each) for each in orders}) == 3
    chex.assert_trees_all_equal(orders[0], np.asarray(order(0, 1, 50)))


@pytest.mark.core
def test_evaluation_in_chunks_is_evaluation_at_once(digits, monkeypatch):
    state, labels = init(MODEL, SGD, digits[0].shape, 0), np.asarray(digits[1])
    whole = make_evaluate(MODEL, LOSS)(state.params, state.layers, *digits)
    monkeypatch.setattr("fnn.train.evaluate.CHUNK", 40)
    parts = make_evaluate(MODEL, LOSS)(state.params, state.layers, *digits)
    chex.assert_trees_all_close(parts, whole, rtol=1e-6, atol=1e-6)
    assert whole.loss() == pytest.approx(float(LOSS(jnp.asarray(whole.scores), labels)), rel=1e-5)
    assert whole.accuracy(labels) == np.mean(whole.scores.argmax(-1) == labels)


# The loop


@pytest.mark.parametrize("gradient", sampled("manual", "autodiff", "backprop"))
def test_a_run_leaves_all_its_files_and_a_report(quick, monkeypatch, gradient):
    compares = gradient == "manual"  # a comparison does not depend on it
    monkeypatch.setattr("fnn.runs.compare.ROUNDS", 1)
    overrides = ("train.epochs=2", f"gradient={gradient}", f"compare={compares}".lower())
    where, summary, rows = quick(config="digits_2_or_not_2", overrides=overrides)
    assert {path.name for path in where.iterdir()} == FILES | (
        {"comparison.json"} if compares else set()
    )
    assert (summary["status"], summary["gradient"]) == ("completed", gradient)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[0].keys() == {"epoch", "step", "train_loss", "test_loss", "test_accuracy"}
    assert rows[-1]["step"] == 2 * math.ceil(summary["train_examples"] / summary["batch_size"])
    assert rows[-1]["test_accuracy"] == summary["test_accuracy"]
    assert 0 < summary["seconds_to_first_step"] < summary["seconds"]
    predictions = arrays(where / "predictions.npz")
    assert np.mean(predictions["y_true"] == predictions["y_pred"]) == summary["test_accuracy"]
    assert predictions["loss"].mean() == pytest.approx(summary["test_loss"], rel=1e-5)
    assert (np.diff(predictions["loss"][predictions["worst_index"]]) <= 0).all()
    sizes = [array.size for array in arrays(where / "parameters.npz").values()]
    assert sum(sizes) == summary["parameters"]
    if compares:
        comparison = json.loads((where / "comparison.json").read_text())
        # A float32 gradient that is summed in another order differs by some roundings of 6e-8.
        assert all(p["max_relative_difference"] < 1e-5 for p in comparison["parameters"])
    assert write_report(where).stat().st_size > 10_000
    again = load(where / "config.yaml")
    assert again.gradient == gradient
    assert again.train.epochs == 2


@pytest.mark.parametrize("batch_size", ["full", pytest.param(1, marks=pytest.mark.prove), 3, 1000])
def test_full_batch_mini_batch_and_online_are_batch_sizes(quick, batch_size):
    overrides = ("train.epochs=2", f"train.batch_size={batch_size}")
    _, summary, rows = quick(overrides=overrides)
    examples = summary["train_examples"]
    size = examples if batch_size == "full" else min(batch_size, examples)
    assert [row["step"] for row in rows] == [math.ceil(examples / size) * e for e in (1, 2)]


def test_training_stops_when_the_loss_stands_still_even_outside_the_main_thread(quick):
    results, rule = [], "train.converge={epsilon: 10.0, window: 3}"
    overrides = ("train.epochs=50", rule)
    thread = threading.Thread(target=lambda: results.append(quick(overrides=overrides)))
    thread.start()
    thread.join()
    ((_, summary, rows),) = results
    assert summary["status"] == "converged"
    assert len(rows) == 4


STATE = """
name: state
data: {moons: {points: 64}}
model: [dense: {features: 2}, batch_norm, dropout: {rate: 0.5}]
loss: softmax_cross_entropy
optimizer: {sgd: {learning_rate: 0.1}}
train: {epochs: 2, batch_size: 16}
"""


def test_the_same_seed_gives_the_same_run_and_another_another(quick):
    """Running statistics and drawn masks are a run's own."""
    where, _, rows = quick(STATE)
    assert {path.name for path in where.iterdir()} == FILES | {"state.npz"}
    state = arrays(where / "state.npz")
    assert set(state) == {"1_batch_norm/mean", "1_batch_norm/var"}
    assert np.all(state["1_batch_norm/mean"] != 0)
    assert quick(STATE)[2] == rows
    other = quick(STATE + "seed: 1")[2]
    assert all(other[-1][key] != rows[-1][key] for key in ("train_loss", "test_loss"))


@pytest.mark.prove
def test_running_statistics_and_drawn_masks_are_those_of_backprop(quick):
    by_hand = quick(STATE + "gradient: backprop")[2]
    for row, same in zip(quick(STATE)[2], by_hand, strict=True):
        assert row["test_loss"] == pytest.approx(same["test_loss"], rel=1e-4)


def test_ctrl_c_leaves_a_whole_run_of_what_was_done(quick):
    before = signal.getsignal(signal.SIGINT)
    stop = Stop("epoch", 2, signal.SIGINT)
    overrides = ("train.epochs=50", "compare=true")
    where, summary, rows = quick(overrides=overrides, progress=stop)
    assert summary["status"] == "interrupted"
    assert len(rows) in (2, 3)
    assert {path.name for path in where.iterdir()} == FILES
    assert "interrupted" in write_report(where).read_text()
    assert signal.getsignal(signal.SIGINT) is before


# What cannot start leaves nothing behind


WRONG = """
name: wrong
data: digits
model:
  - {}
loss: softmax_cross_entropy
optimizer: {{sgd: {{learning_rate: 0.1}}}}
train: {{epochs: 1}}
"""
NESTED = """residual:
      body:
        - relu
        - conv: {features: 1, window: 9%s}
  - scan_1d: {window: 3, body: [conv: {features: 1, window: 7}]}"""


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("flatten\n  - dense: {features: 9}", r"wrong.yaml:4: model: the model ends with shape"),
        ("flatten\n  - masked_dense: {fan_in: 70, features: 9}", "6: model.1 masked_dense: fan_in"),
        (NESTED % "", r"wrong.yaml:8: model.0.body.1 conv: the window 9×9 is"),
        (NESTED % ", padding: 4", r"wrong.yaml:9: model.1.1 conv: the window 7×7 is"),
        ("alexnet", r"wrong.yaml:5: model.0.0 conv: the window 11×11 is"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused_with_its_own_line(layers, message):
    with pytest.raises(ConfigError, match=message):
        prepare(parse(WRONG.format(layers), "wrong.yaml"))


def test_run_folders_never_meet(tmp_path):
    made = {files.create(tmp_path, "x") for _ in range(3)}
    assert len(made) == 3
    (tmp_path / "file").write_text("")
    with pytest.raises(FnnError, match="cannot make the run folder"):
        files.create(tmp_path / "file", "x")


def test_a_file_that_cannot_be_written_is_named_and_not_left_in_part(tmp_path):
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(FnnError, match=r"cannot write .*summary\.json: Is a directory"):
        files.write_json(tmp_path / "summary.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    with pytest.raises(FnnError, match=r"cannot write .*summary\.json"):
        files.append_metrics(tmp_path / "summary.json", {})


# Plan and comparison


@pytest.mark.core
def test_the_layer_table_counts():
    rows = layer_table(MODEL, (32, 8, 8, 1))
    assert [row.output_shape for row in rows] == [(64,), (8,), (8,), (10,)]
    assert [row.parameters for row in rows] == [0, 64 * 8 + 8, 0, 8 * 10 + 10]
    assert [row.multiply_adds for row in rows] == [0, 64 * 8, 0, 8 * 10]
    assert [row.path for row in rows] == ["model.0", "model.1", "model.2", "model.3"]


@pytest.mark.core
def test_the_memory_of_a_step_is_read_from_the_compiler():
    shapes = (8, 8, 8, 1), (800, 8, 8, 1)
    small, large = (step_memory(MODEL, LOSS, optax.sgd(0.1), shape) for shape in shapes)
    assert large.arguments - small.arguments == pytest.approx(792 * (64 + 1) * 4, rel=0.01)
    assert large.temporary > small.temporary > 0


@pytest.mark.core
def test_the_comparison_finds_a_wrong_rule(digits, monkeypatch):
    def comparison():
        return compare(MODEL, LOSS, optax.sgd(0.1), *digits, batch_size=32)

    monkeypatch.setattr("fnn.runs.compare.ROUNDS", 1)
    assert max(p["max_relative_difference"] for p in comparison()["parameters"]) < 1e-5
    right = ops.relu.bwd_rule
    monkeypatch.setattr(
        ops.relu, "bwd_rule", lambda *args, **statics: 1.01 * right(*args, **statics)
    )
    wrong = {p["path"]: p["max_relative_difference"] for p in comparison()["parameters"]}
    assert wrong["1_dense/w"] == pytest.approx(0.01, rel=0.01)
    assert wrong["3_dense/w"] < 1e-5


@pytest.mark.core
def test_a_gradient_of_nothing_but_roundings_is_no_difference(monkeypatch):
    """A batch norm takes away what a bias before it adds."""
    monkeypatch.setattr("fnn.runs.compare.ROUNDS", 1)
    text = STATE.replace(", dropout: {rate: 0.5}", "").replace("points: 64", "points: 200")
    run = prepare(parse(text, overrides=["train.batch_size=32"]))
    differences = {
        p["path"]: p["max_relative_difference"] for p in compare_experiment(run)["parameters"]
    }
    assert "0_dense/b" in differences
    assert max(differences.values()) < 1e-5
