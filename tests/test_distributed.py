"""Several processes on loopback: the losses of one, and an end in bounded time when one is gone."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fnn.config import parse
from fnn.errors import ConfigError
from fnn.train import distributed, prepare, train

from . import one_process

EXPERIMENT = """
name: processes
data: digits
model: [flatten, dense: {features: 16}, batch_norm, relu, dense: {features: 10}]
loss: softmax_cross_entropy
optimizer: {adam: {learning_rate: 1.0e-3}}
train: {epochs: 1, batch_size: 32}
"""


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def processes(sections, *, dies_after=-1):
    """Start a process for each config, with two devices; leave none behind."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.one_process", EXPERIMENT + section, str(dies_after)],
            env={**os.environ, "XLA_FLAGS": "", "JAX_NUM_CPU_DEVICES": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for section in sections
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def section(port, index, timeout=60):
    return f"""
mesh: {{data: 4}}
sharding: {{"*dense/w": fsdp}}
distributed: {{address: "localhost:{port}", processes: 2, index: {index}, timeout: {timeout}}}
"""


def losses(output):
    lines = [line.split() for line in output.splitlines()]
    return np.array([float(words[1]) for words in lines if words[:1] == ["loss"]])


def test_two_processes_of_two_devices_have_one_devices_losses():
    port = free_port()
    with processes([section(port, 0), section(port, 1)]) as started:
        first, second = (process.communicate(timeout=120) for process in started)
        assert [process.returncode for process in started] == [0, 0], (first, second)
    alone = list(one_process.losses(parse(EXPERIMENT)))
    # 30 steps, each with some roundings of 6e-8, which training carries on.
    np.testing.assert_allclose(losses(first[0]), alone, rtol=1e-6)
    np.testing.assert_array_equal(losses(first[0]), losses(second[0]))
    assert "rows 0 15 16" in first[0]
    assert "rows 16 31 16" in second[0]
    assert "first says process 0" in second[0]


def test_two_processes_run_and_resume_by_the_command(tmp_path):
    """Each writes its shards of a checkpoint, and the first one all else.

    A bias before a batch norm has a gradient of nothing but roundings, and Adam would make whole
    steps of them, which the running mean is late to follow.
    """
    config, port = tmp_path / "processes.yaml", free_port()
    text = EXPERIMENT.replace("adam: {learning_rate: 1.0e-3}", "sgd: {learning_rate: 0.1}")
    saves = "checkpoint: {steps: 20, keep_last: 1}\n"
    config.write_text(text + saves + section(port, 0))
    told = both("run", config, "--json", "--runs", tmp_path / "runs")
    where = Path(told["run"])
    assert checkpoint_files(where) == {"00000045": ["0.safetensors", "1.safetensors"]}
    told = both("resume", where, "--json", "train.epochs=2")
    assert (told["status"], told["steps"]) == ("completed", 90)
    assert checkpoint_files(where) == {"00000090": ["0.safetensors", "1.safetensors"]}
    rows = [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]
    alone = tmp_path / "alone"
    alone.mkdir()
    train(prepare(parse(text, overrides=("train.epochs=2",))), alone)
    for row, line in zip(rows, (alone / "metrics.jsonl").read_text().splitlines(), strict=True):
        want = json.loads(line)
        for key in ("train_loss", "test_loss"):
            np.testing.assert_allclose(row[key], want[key], rtol=1e-6)
        assert row["test_accuracy"] == want["test_accuracy"]

    # The second is asked to stop, and which epoch is the best is asked of both.
    worse = ("train.epochs=100000", "checkpoint.keep_best=1", "optimizer.sgd.learning_rate=0.3")

    def stop(processes):
        while len((where / "metrics.jsonl").read_text().splitlines()) < 5:
            time.sleep(0.1)
        processes[1].send_signal(signal.SIGTERM)

    told = both("resume", where, "--json", *worse, status=128 + signal.SIGTERM, meanwhile=stop)
    assert told["status"] == "interrupted"


def both(*words, status=0, meanwhile=lambda processes: None):
    """Run the command as two processes; return the JSON of the first, which prints alone."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "fnn", *map(str, words), f"distributed.index={index}"],
            env={**os.environ, "XLA_FLAGS": "", "JAX_NUM_CPU_DEVICES": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    try:
        meanwhile(started)
        (first, errors), (second, _) = (p.communicate(timeout=240) for p in started)
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [status, status], errors
    assert second == ""
    return json.loads(first)


def checkpoint_files(run):
    kept = (run / "checkpoints").iterdir()
    return {path.name: sorted(file.name for file in path.iterdir()) for path in kept}


def test_when_a_process_dies_the_other_ends_and_says_so():
    port = free_port()
    with processes([section(port, i) for i in (0, 1)], dies_after=10) as (first, second):
        output, errors = first.communicate(timeout=120)
        assert second.wait(timeout=10) == -9
    assert first.returncode != 0
    assert 10 <= len(losses(output)) < 30
    # Either the collective under way breaks, which is fnn's message, or JAX misses a heartbeat.
    assert "cannot reach another of the 2" in errors or "another task died" in errors


def test_a_process_that_waits_alone_says_what_for():
    port = free_port()
    with processes([section(port, 1, timeout=3)]) as (process,):
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    waited = f"after 3 s not all processes have met at localhost:{port}"
    assert f"fnn: processes.yaml:11: distributed: {waited}" in errors
    assert "Traceback" not in errors


def test_what_a_config_cannot_say_of_processes():
    def refused(section, message):
        with (
            pytest.raises(ConfigError, match=message),
            distributed.joined(parse(EXPERIMENT + section, "processes.yaml")),
        ):
            pass

    refused("distributed: {address: here}", "distributed.address: expected host:port, got 'here'")
    refused("distributed: 2", "distributed: expected a mapping with the keys address, .*, got 2")
    refused("distributed: Auto", "distributed: expected auto or a mapping, got 'Auto'")
    refused(
        "distributed: {processes: 2, index: 2}", "index 2 of 2 processes; the first has index 0"
    )


def test_without_other_processes_nothing_is_asked():
    assert distributed.is_first()
    assert distributed.any_process(True)
    assert distributed.from_first("here") == "here"
