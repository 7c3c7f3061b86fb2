"""Several processes on loopback: the losses of one, and an end in bounded time when one is gone."""

import contextlib
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from fnn.config import parse
from fnn.errors import ConfigError
from fnn.train import distributed

EXPERIMENT = """
name: processes
data: digits
model: [flatten, dense: {features: 16}, batch_norm, relu, dense: {features: 10}]
loss: softmax_cross_entropy
optimizer: {adam: {learning_rate: 1.0e-2}}
train: {epochs: 1, batch_size: 32}
"""
PROGRAM = """
import os, sys
import jax, numpy as np
from fnn.config import parse
from fnn.errors import FnnError
from fnn.train import distributed, init, make_steps, make_update, order, prepare
from fnn.train.mesh import place

text, ends_at = sys.argv[1], int(sys.argv[2])
distributed.HEARTBEAT = 5

def main():
    config = parse(text, "processes.yaml")
    with distributed.joined(config):
        run = prepare(config)
        placement = place(config, run.model, run.x_shape)
        state = placement.init(lambda: init(run.model, run.optimizer, run.x_shape, 0))
        data = placement.resident(run.data.x_train), placement.resident(run.data.y_train)
        update = placement.update(make_update(run.model, run.loss, run.optimizer))
        steps = make_steps(update, (placement.state(state), placement.sharding()))
        examples = np.asarray(order(0, 1, len(data[0])))
        for i in range(30):
            state, loss = steps(state, *data, examples[32 * i : 32 * i + 32].reshape(1, 32))
            print("loss", repr(float(loss)), flush=True)
            if i == ends_at and jax.process_index() == 1:
                os.kill(os.getpid(), 9)
        assert distributed.any_process(jax.process_index() == 1) == (jax.process_count() > 1)
        assert not distributed.any_process(False)
        print("first says", distributed.from_first(f"process {jax.process_index()}"))
        print("rows", *placement.rows(32)[[0, -1]], len(placement.rows(32)))
        local = np.asarray(run.data.x_train[:32])[None, placement.rows(32)]
        total = jax.jit(lambda x: x.sum(), out_shardings=placement.sharding())
        print("sum", float(total(placement.batches(local, 32))), run.data.x_train[:32].sum())
        print("bias", placement.whole(state.params)["1_dense"]["b"].shape)

try:
    main()
except FnnError as error:
    print("fnn:", error, file=sys.stderr)
    sys.exit(2)
"""


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def processes(sections, *, ends_at=-1):
    """Start the program above once for each config, with two devices each; leave none behind."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, EXPERIMENT + section, str(ends_at)],
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


def section(port, index, *, timeout=60, mesh="{data: 4}"):
    return (
        f"mesh: {mesh}\n"
        f"distributed: {{address: 'localhost:{port}', processes: 2, index: {index}, "
        f"timeout: {timeout}}}\n"
    )


def losses(output):
    lines = [line.split() for line in output.splitlines()]
    return np.array([float(words[1]) for words in lines if words[:1] == ["loss"]])


@pytest.mark.parametrize("mesh", ["{data: 4}", "{data: 2, model: 2}\nsharding: {'*/w': fsdp}"])
def test_two_processes_of_two_devices_have_one_devices_losses(mesh):
    port = free_port()
    with processes(["", *(section(port, i, mesh=mesh) for i in (0, 1))]) as started:
        alone, first, second = (process.communicate(timeout=120) for process in started)
        assert [process.returncode for process in started] == [0, 0, 0], (alone, first, second)
    # 30 steps, each with some roundings of 6e-8, which training carries on.
    np.testing.assert_allclose(losses(first[0]), losses(alone[0]), rtol=1e-6)
    np.testing.assert_array_equal(losses(first[0]), losses(second[0]))
    assert len(losses(alone[0])) == 30
    assert "rows 0 15 16" in first[0]
    assert "rows 16 31 16" in second[0]
    assert "first says process 0" in second[0]
    for output in (first[0], second[0]):
        (line,) = (line.split() for line in output.splitlines() if line.startswith("sum"))
        assert float(line[1]) == pytest.approx(float(line[2]), rel=1e-6)


def test_when_a_process_dies_the_other_ends_and_says_so():
    port = free_port()
    with processes([section(port, i) for i in (0, 1)], ends_at=10) as (first, second):
        output, errors = first.communicate(timeout=120)
        assert second.wait(timeout=10) == -9
    assert first.returncode != 0
    assert 10 <= len(losses(output)) < 30
    # Either the collective under way breaks, which is fnn's message, or JAX misses a heartbeat.
    assert "cannot reach another of the 2" in errors or "another task died" in errors


def test_a_process_that_waits_alone_says_what_for():
    port = free_port()
    with processes([section(port, i, timeout=3) for i in (1,)]) as (process,):
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert (
        f"processes.yaml:10: distributed: after 3 s not all processes have met at localhost:{port}"
        in errors
    )
    assert "Traceback" not in errors


def test_what_a_config_cannot_say_of_processes():
    def refused(section, message):
        with (
            pytest.raises(ConfigError, match=message),
            distributed.joined(parse(EXPERIMENT + section, "processes.yaml")),
        ):
            pass

    refused("distributed: {address: here}", "distributed.address: expected host:port, got 'here'")
    refused("distributed: yes", "distributed: expected a mapping with the keys address, .*")
    refused("distributed: Auto", "distributed: expected auto or a mapping, got 'Auto'")
    refused(
        "distributed: {processes: 2, index: 2}", "index 2 of 2 processes; the first has index 0"
    )


def test_without_other_processes_nothing_is_asked():
    assert distributed.is_first()
    assert distributed.any_process(True)
    assert distributed.from_first("here") == "here"
