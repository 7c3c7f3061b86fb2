"""Several processes on loopback have the losses of one, and end soon after one of them dies."""

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
"""  # not Adam: it turns the roundings that a bias before a batch norm gets into full steps


@pytest.fixture
def write(tmp_path):
    """Write the config of two processes on a free port; return its file."""

    def write(index=0, timeout=60):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
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
    """Start Python with each command, on two devices; kill them at the end."""
    two = os.environ["XLA_FLAGS"].replace("count=8", "count=2")
    children = [python("-m", *words, XLA_FLAGS=two) for words in commands]
    try:
        yield children
    finally:
        for process in children:
            process.kill()
            process.communicate()


def check_run(where, alone, epochs):
    """Compare a run of two processes with one on one device; check its shards."""
    alone.mkdir()
    train(prepare(parse(EXPERIMENT, overrides=(f"train.epochs={epochs}",))), alone)
    for row, expected in zip(metrics(where)[:epochs], metrics(alone), strict=True):
        for key in ("train_loss", "test_loss"):
            # Each step has some roundings of 6e-8, which add up over training.
            np.testing.assert_allclose(row[key], expected[key], rtol=1e-6)
        assert row["test_accuracy"] == expected["test_accuracy"]
    for name, array in arrays(alone / "parameters.npz").items():  # whole, not in shards
        assert arrays(where / "parameters.npz")[name].shape == array.shape
    for folder in (where / "checkpoints").glob("[0-9]*"):
        assert sorted(path.name for path in folder.iterdir()) == ["0.safetensors", "1.safetensors"]


def test_two_processes_of_two_devices_are_one_device_until_one_dies(write, tmp_path):
    file, runs = write(), tmp_path / "runs"
    with processes(*(("tests.one_process", file, i, runs) for i in (0, 1))) as (first, second):
        output, errors = first.communicate(timeout=600)
        other, _ = second.communicate(timeout=10)
    lines, silent = output.splitlines(), other.splitlines()  # only the first prints JSON
    assert silent == ["first says process 0", "rows 16 31 16", "ended 143"], errors
    assert [*lines[:2], *lines[3:]] == ["first says process 0", "rows 0 15 16", "ended 143"]
    summary = json.loads(lines[2])
    assert summary["status"] == "interrupted"
    assert summary["epochs"] in (2, 3)
    check_run(Path(summary["run"]), tmp_path / "alone", epochs=4)
    assert (first.returncode != 0, second.returncode) == (True, -9)
    # Either the running collective breaks (fnn's message), or JAX misses a heartbeat.
    assert "cannot reach another of the 2" in errors or "another task died" in errors


@pytest.mark.prove
def test_two_processes_run_and_resume_by_the_command(write, tmp_path):
    """Each command has new processes; they also compare the run at its end."""
    summary = both("run", write(), "compare=true", "--json", "--runs", tmp_path / "runs")
    where = Path(summary["run"])
    summary = both("resume", where, "--json", "train.epochs=2")
    assert (summary["status"], summary["steps"]) == ("completed", 90)
    check_run(where, tmp_path / "alone", epochs=2)

    # The second process gets the signal; both must agree on the best epoch.
    def stop(processes):
        while len(metrics(where)) < 5:
            time.sleep(0.1)
        processes[1].send_signal(signal.SIGTERM)

    worse = ("train.epochs=100000", "checkpoint.keep_best=1", "optimizer.sgd.learning_rate=0.3")
    summary = both("resume", where, "--json", *worse, status=128 + signal.SIGTERM, meanwhile=stop)
    assert summary["status"] == "interrupted"


def both(*words, status=0, meanwhile=lambda processes: None):
    """Run the command as two processes; return the JSON of the first, the only one that prints."""
    with processes(*(("fnn", *words, f"distributed.index={i}") for i in (0, 1))) as children:
        meanwhile(children)
        (first, errors), (second, _) = (p.communicate(timeout=600) for p in children)
    assert [process.returncode for process in children] == [status, status], errors
    assert second == ""
    return json.loads(first)


def test_a_process_that_waits_alone_names_what_it_lacks(write, tmp_path):
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


def test_a_single_process_answers_by_itself():
    assert distributed.is_first()
    assert distributed.any_process(True)
    assert distributed.from_first("here") == "here"
