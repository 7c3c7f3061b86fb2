"""Streamed data give the results of resident data, and leave no thread running."""

import threading
import time
from contextlib import nullcontext
from functools import partial

import chex
import numpy as np
import optax
import pytest

from fnn import ops
from fnn.config import parse
from fnn.data import Shards, Streamed, arrays
from fnn.errors import DataError
from fnn.layers import Activation, Dense, Flatten, Serial
from fnn.report import write_report
from fnn.runs import folder as files
from fnn.runs.compare import compare
from fnn.runs.fit import train
from fnn.runs.prepare import prepare
from fnn.train import make_feed
from fnn.train.feed import AHEAD, Position, steps_per_call

from . import runs
from .runs import LOSS
from .test_data import expect_error
from .test_data_arrays import NUMBERS, PIXELS, X1, M, N, Y, save_arrays

MODEL = Serial([Flatten(), Dense(8), Activation(ops.relu), Dense(4)])


@pytest.fixture
def save(tmp_path):
    return partial(save_arrays, tmp_path / "stored")


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not prefetching()


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


class Counted(Streamed):
    """Examples that count their reads."""

    shape = (N, 2)

    def __init__(self):
        self.reads = 0

    def __getitem__(self, examples):
        self.reads += 1
        return np.zeros((len(examples), 2), np.float32)


CUTS = [np.array([[k, k + 1], [k + 2, k + 3]], np.int32) for k in range(8)]


def test_resident_data_go_to_the_device_once():
    feed = make_feed(NUMBERS.astype(np.float32), Y.astype(np.int32))
    chunks = list(feed.chunks(CUTS))
    assert all(chunk.x is chunks[0].x and chunk.labels is chunks[0].labels for chunk in chunks)
    assert all(chunk.indices is cut for chunk, cut in zip(chunks, CUTS, strict=True))


def test_streamed_data_are_read_ahead_but_not_far():
    x, cuts = Counted(), iter(CUTS)
    chunks = make_feed(x, Y[:N].astype(np.int32)).chunks(cuts)
    next(chunks)
    for _ in range(200):
        if x.reads == 1 + AHEAD:
            break
        time.sleep(0.01)
    assert x.reads == 1 + AHEAD  # although nothing was requested since
    assert len(list(cuts)) == len(CUTS) - 1 - AHEAD
    assert len(list(chunks)) == AHEAD
    assert x.reads == 1 + AHEAD


def leave(chunks):
    for _ in chunks:
        break


def fail(chunks):
    for _ in chunks:
        raise ZeroDivisionError


def interrupt(chunks):
    next(chunks)
    chunks.throw(KeyboardInterrupt)


@pytest.mark.parametrize(
    ("use", "error"),
    [(list, None), (leave, None), (fail, ZeroDivisionError), (interrupt, KeyboardInterrupt)],
)
def test_no_thread_is_left_behind(use, error):
    feed = make_feed(Counted(), Y[:N].astype(np.int32))
    with pytest.raises(error) if error else nullcontext():
        use(feed.chunks(CUTS))


def test_an_error_while_reading_ahead_is_raised_in_its_turn():
    class Failing(Counted):
        def __getitem__(self, examples):
            if examples[0] == 2:
                raise DataError("gone")
            return super().__getitem__(examples)

    chunks = make_feed(Failing(), Y[:N].astype(np.int32)).chunks(CUTS)
    assert [chunk.batches[0, 0] for chunk in (next(chunks), next(chunks))] == [0, 1]
    with pytest.raises(DataError, match="gone"):
        next(chunks)
    assert not prefetching()
    with pytest.raises(ZeroDivisionError):
        list(make_feed(Counted(), Y[:N]).chunks(1 // k for k in (1, 0)))


def test_a_file_that_vanishes_while_training_ends_the_chunks(save):
    folder = save()
    feed = make_feed(arrays(folder=str(folder)).x_train, Y[:N].astype(np.int32))
    (folder / X1).unlink()
    expect_error([X1, "vanished"], list, feed.chunks([np.array([[1, 2], [3, 21]])]))


@pytest.mark.parametrize(
    ("batch_bytes", "most", "steps"),
    [(1, 256, 256), (2**20, 256, 64), (2**20, 10, 10), (2**20 + 1, 256, 63), (2**40, 256, 1)],
)
def test_the_steps_per_call_fit_in_memory(batch_bytes, most, steps):
    assert steps_per_call(batch_bytes, most) == steps


def test_reading_ahead_does_not_start_over_at_an_epochs_end(save):
    config = parse(f"""
name: streamed
data: {{arrays: {{folder: "{save()}"}}}}
model: [flatten, dense: {{features: 4}}]
loss: softmax_cross_entropy
optimizer: {{sgd: {{learning_rate: 0.1}}}}
train: {{epochs: 3, batch_size: 8}}
""")
    experiment, threads, batches = prepare(config), set(), []
    for chunk in experiment.chunks(Position()):
        threads |= set(prefetching())
        batches.append(chunk.batches.reshape(-1))
    assert len(threads) == 1
    expected = [experiment.order(epoch) for epoch in (1, 2, 3)]
    np.testing.assert_array_equal(np.concatenate(batches), np.concatenate(expected))


# Evaluation and comparison


def test_a_comparison_reads_the_first_examples(save, monkeypatch):
    monkeypatch.setattr("fnn.runs.compare.ROUNDS", 1)
    monkeypatch.setattr("fnn.runs.compare.STEPS", 3)
    data, requests = arrays(folder=str(save())), []
    original = Shards.__getitem__

    def record(self, examples):
        requests.append(examples)
        return original(self, examples)

    monkeypatch.setattr(Shards, "__getitem__", record)
    comparison = compare(MODEL, LOSS, optax.sgd(0.1), data.x_train, data.y_train, batch_size=5)
    assert requests == [slice(None, 15)]
    assert max(p["max_relative_difference"] for p in comparison["parameters"]) < 1e-5


# A run


@pytest.mark.parametrize(
    ("x", "gradient"),
    [(PIXELS, "manual"), pytest.param(NUMBERS, "backprop", marks=pytest.mark.prove)],
)
def test_a_run_on_streamed_data_is_bitwise_that_on_resident_data(
    save, tmp_path, monkeypatch, x, gradient
):
    """Chunks hold 3, 3 and 1 step, then the last 5 examples; evaluation takes 4 at a time."""
    monkeypatch.setattr("fnn.train.evaluate.CHUNK", 4)
    folder, outcomes = save(x), []
    for stream in ("true", "false"):
        config = parse(f"""
name: streamed
data: {{arrays: {{folder: "{folder}", stream: {stream}}}}}
model: [flatten, dense: {{features: 8}}, relu, dense: {{features: 4}}]
loss: softmax_cross_entropy
optimizer: {{sgd: {{learning_rate: 0.1, momentum: 0.9}}}}
train: {{epochs: 2, batch_size: 8}}
checkpoint: {{steps: 3}}
gradient: {gradient}
""")
        where = files.create(tmp_path, "run")
        ready = prepare(config)
        assert isinstance(ready.data.x_train, Streamed) is (stream == "true")
        train(ready, where)
        rows, predictions = runs.metrics(where), runs.arrays(where / "predictions.npz")
        assert rows[0]["train_loss"] != rows[1]["train_loss"]
        assert len(predictions["loss"]) == M
        outcomes.append((rows, runs.arrays(where / "parameters.npz"), predictions))
        write_report(where)
    chex.assert_trees_all_equal(*outcomes)
