"""Several processes on loopback: the losses of one, and an end in bounded time when one is gone."""

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from fnn.config import parse
from fnn.errors import ConfigError
from fnn.runs.fit import train
from fnn.runs.prepare import prepare
from fnn.train import distributed

from .runs import arrays, metrics, python

EXPERIMENT = """
name: processes
data: digits
model: [flatten, dense: {features: 16}, batch_norm, relu, dense: {features: 10}]
loss: softmax_cross_entropy
optimizer: {sgd: {learning_rate: 0.1}}
train: {epochs: 1, batch_size: 32}
"""  # no Adam: it would make whole steps of the roundings that a bias before a batch norm gets


@pytest.fixture
def write(tmp_path):
    """Write the config of two processes on a free port; return its file."""

    def write(index=0, timeout=60):
        with socket.socket() as found:
            found.bind(("localhost", 0))
            port = found.getsockname()[1]
        (tmp_path / "processes.yaml").write_text(f"""{EXPERIMENT}
checkpoint: {{steps: 22, keep_last: 1}}
mesh: {{data: 4}}
sharding: {{"*dense/w": fsdp}}
distributed:
  {{address: "localhost:{port}", processes: 2, index: {index}, timeout: {timeout}}}
""")
        return tmp_path / "processes.yaml"

    return write


@contextlib.contextmanager
def processes(*commands):
    """Start Python with each command, on two devices; leave none behind."""
    two = os.environ["XLA_FLAGS"].replace("count=8", "count=2")
    started = [python("-m", *words, XLA_FLAGS=two) for words in commands]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def check_run(where, alone, epochs):
    """A run of two processes has the numbers of one on one device, and shards of both."""
    alone.mkdir()
    train(prepare(parse(EXPERIMENT, overrides=(f"train.epochs={epochs}",))), alone)
    for row, want in zip(metrics(where)[:epochs], metrics(alone), strict=True):
        for key in ("train_loss", "test_loss"):
            # Each step has some roundings of 6e-8, which training carries on.
            np.testing.assert_allclose(row[key], want[key], rtol=1e-6)
        assert row["test_accuracy"] == want["test_accuracy"]
    for name, array in arrays(alone / "parameters.npz").items():  # whole, though kept in shards
        assert arrays(where / "parameters.npz")[name].shape == array.shape
    for kept in (where / "checkpoints").glob("[0-9]*"):
        assert sorted(path.name for path in kept.iterdir()) == ["0.safetensors", "1.safetensors"]


def test_two_processes_of_two_devices_are_one_device_until_one_dies(write, tmp_path):
    file, runs = write(), tmp_path / "runs"
    with processes(*(("tests.one_process", file, i, runs) for i in (0, 1))) as (first, second):
        output, errors = first.communicate(timeout=600)
        other, _ = second.communicate(timeout=10)
    said, heard = output.splitlines(), other.splitlines()
    assert heard == ["first says process 0", "rows 16 31 16", "ended 143"], errors  # and no JSON
    assert [*said[:2], *said[3:]] == ["first says process 0", "rows 0 15 16", "ended 143"]
    told = json.loads(said[2])
    assert told["status"] == "interrupted"
    assert told["epochs"] in (2, 3)
    check_run(Path(told["run"]), tmp_path / "alone", epochs=4)
    assert (first.returncode != 0, second.returncode) == (True, -9)
    # Either the collective under way breaks, which is fnn's message, or JAX misses a heartbeat.
    assert "cannot reach another of the 2" in errors or "another task died" in errors


@pytest.mark.prove
def test_two_processes_run_and_resume_by_the_command(write, tmp_path):
    """Each in processes of its own, which compare the run at its end as well."""
    told = both("run", write(), "compare=true", "--json", "--runs", tmp_path / "runs")
    where = Path(told["run"])
    told = both("resume", where, "--json", "train.epochs=2")
    assert (told["status"], told["steps"]) == ("completed", 90)
    check_run(where, tmp_path / "alone", epochs=2)

    # The second is asked to stop, and which epoch is the best is asked of both.
    def stop(processes):
        while len(metrics(where)) < 5:
            time.sleep(0.1)
        processes[1].send_signal(signal.SIGTERM)

    worse = ("train.epochs=100000", "checkpoint.keep_best=1", "optimizer.sgd.learning_rate=0.3")
    told = both("resume", where, "--json", *worse, status=128 + signal.SIGTERM, meanwhile=stop)
    assert told["status"] == "interrupted"


def both(*words, status=0, meanwhile=lambda processes: None):
    """Run the command as two processes; return the JSON of the first, which prints alone."""
    with processes(*(("fnn", *words, f"distributed.index={i}") for i in (0, 1))) as started:
        meanwhile(started)
        (first, errors), (second, _) = (p.communicate(timeout=600) for p in started)
    assert [process.returncode for process in started] == [status, status], errors
    assert second == ""
    return json.loads(first)


def test_a_process_that_waits_alone_says_what_for(write, tmp_path):
    file = write(index=1, timeout=3)
    with processes(("fnn", "run", file)) as (process,):
        output, errors = process.communicate(timeout=240)
    assert (process.returncode, output) == (2, "")
    assert f"fnn: {file}:12: distributed: after 3 s not all processes have met at local" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == [file]


def test_an_index_beyond_the_processes_is_refused():
    config = parse(f"{EXPERIMENT}distributed: {{processes: 2, index: 2}}")
    with pytest.raises(ConfigError, match="index 2 of 2 processes; the first has index 0"):
        distributed.joined(config).__enter__()


def test_without_other_processes_nothing_is_asked():
    assert distributed.is_first()
    assert distributed.any_process(True)
    assert distributed.from_first("here") == "here"
