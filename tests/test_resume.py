"""Resuming: the same numbers to the bit, and every way in which it can go wrong."""

import functools
import json
import math
import os
import re
import resource
import shutil
import signal
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn.config import dump, load, parse
from fnn.errors import ConfigError, DataError, FnnError
from fnn.report import write_report
from fnn.runs import checkpoint
from fnn.runs import folder as files
from fnn.runs.fit import resume, train
from fnn.runs.prepare import prepare
from fnn.runs.replay import replay
from fnn.runs.resume import changes
from fnn.train import init, order

from .kills import check_equal
from .runs import DIVERGES, ROOT, Stop, metrics, python
from .runs import command as command

SMALL = """
name: small
data: {moons: {points: 400}}
model: [dense: {features: 8}, batch_norm, dropout: {rate: 0.3}, dense: {features: 2}]
loss: softmax_cross_entropy
optimizer: {adam: {learning_rate: 0.01}}
train: {epochs: 2, batch_size: 16}
"""


@pytest.fixture(scope="module")
def peace(tmp_path_factory):
    """Runs of the small experiment that nobody stops, by what is changed in its config."""

    @functools.cache
    def run(*changed):
        train(prepare(parse(SMALL, overrides=changed)), where := tmp_path_factory.mktemp("peace"))
        return where

    return run


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    run = prepare(parse(SMALL, overrides=("checkpoint.steps=7",)))
    where = tmp_path_factory.mktemp("stopped")
    summary = train(run, where, Stop("steps", 4, signal.SIGINT))
    assert (summary["status"], summary["signal"]) == ("interrupted", signal.SIGINT)
    return where


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A run of the small experiment that was told to stop in its second epoch."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


@pytest.fixture
def last(stopped):
    """The last checkpoint of that run."""
    return checkpoint.latest(stopped / "checkpoints")


def go_on(where, *overrides):
    return resume(prepare(load(where / "config.yaml", overrides)), where)


# The same numbers


LAST = pytest.param("the last checkpoint", marks=pytest.mark.prove)


@pytest.mark.parametrize("gone", ["nothing", LAST, "all checkpoints"])
def test_a_run_that_is_told_to_stop_goes_on_as_if_it_had_not(stopped, last, peace, gone):
    """What comes before a checkpoint that is gone is trained again."""
    assert last.step == 27
    assert json.loads((stopped / "summary.json").read_bytes())["steps"] == 27
    if gone != "nothing":
        shutil.rmtree(last.folder if gone == "the last checkpoint" else last.folder.parent)
    assert go_on(stopped)["status"] == "completed"
    check_equal(peace("checkpoint.steps=7"), stopped)


@pytest.mark.prove
@pytest.mark.parametrize(
    ("changed", "after"),
    [
        (("checkpoint.steps=1", "checkpoint.keep_best=1"), 20),
        (("train.batch_size=full",), 1),
        (("gradient=backprop",), 1),
    ],
    ids=["single steps", "whole epochs", "backprop"],
)
def test_so_it_does_in_other_ways(tmp_path, peace, changed, after):
    run = prepare(parse(SMALL, overrides=changed))
    summary = train(run, tmp_path, Stop("steps", after, signal.SIGTERM))
    assert (summary["status"], summary["signal"]) == ("interrupted", signal.SIGTERM)
    assert checkpoint.latest(tmp_path / "checkpoints").step == summary["steps"]
    assert go_on(tmp_path)["status"] == "completed"
    check_equal(peace(*changed), tmp_path)


KILLED = """
import signal, sys
from pathlib import Path
from fnn.config import load
from fnn.runs.prepare import prepare
from fnn.runs.fit import train
from tests.runs import Stop
where = Path(sys.argv[1])
train(prepare(load(where / "small.yaml")), where, Stop("steps", 5, signal.SIGKILL))
"""


def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path, peace):
    whole = peace("checkpoint.steps=7")
    (tmp_path / "small.yaml").write_text((whole / "config.yaml").read_text())
    process = python("-c", KILLED, tmp_path)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert go_on(tmp_path)["status"] == "completed"
    check_equal(whole, tmp_path)


@pytest.mark.prove
@pytest.mark.parametrize("kills", [100])
def test_kills(kills):
    """In a process of its own, since it forks."""
    process = python("-W", "ignore", "-m", "tests.kills", "--kills", kills)
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    assert f"{kills} kills" in output.splitlines()[-1]


def test_a_run_that_is_complete_stays_what_it_is(peace):
    where = peace("checkpoint.steps=7")
    before = (where / "metrics.jsonl").read_text()
    assert go_on(where)["status"] == "completed"
    assert (where / "metrics.jsonl").read_text() == before
    last = json.loads(before.splitlines()[-1])
    assert json.loads((where / "summary.json").read_bytes())["seconds"] > last["seconds"]
    with pytest.raises(ConfigError, match=r"train.epochs: 1, and training has come to epoch 2"):
        go_on(where, "train.epochs=1")


def test_the_best_epoch_is_kept(tmp_path):
    overrides = ("checkpoint.keep_best=1", "checkpoint.keep_last=1", "checkpoint.steps=7")
    train(prepare(parse(SMALL, overrides=(*overrides, "train.epochs=4"))), tmp_path)
    rows = metrics(tmp_path)
    best = min(rows, key=lambda row: row["test_loss"])["step"]
    steps = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {best, rows[-1]["step"]}


# Another config


def test_a_changed_config_is_said_and_followed(stopped, last):
    config = load(stopped / "config.yaml", ["train.epochs=3", "optimizer.adam.b1=0.8"])
    assert [(c.key, c.before, c.after) for c in changes(last, config)] == [
        ("optimizer.adam.b1", 0.9, 0.8),
        ("train.epochs", 2, 3),
    ]
    assert all(c.meaning != "another experiment" for c in changes(last, config))
    assert resume(prepare(config), stopped)["epochs"] == 3
    assert load(stopped / "config.yaml").train.epochs == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=8", r"an epoch has \d+ steps now, and had \d+ \(train.batch_size\)"),
        ("data.moons.points=100", r"an epoch has \d+ steps now, and had \d+ \(data.moons.points\)"),
        ("model.0.dense.features=7", r"params/0_dense/b is float32\[8\], .* needs float32\[7\]"),
        ("optimizer.sgd.learning_rate=0.1", r"holds optimizer/0/count, unlike the config"),
    ],
)
def test_a_config_that_the_state_does_not_fit_is_refused(stopped, override, message):
    def written():
        files = [path for path in stopped.rglob("*") if path.is_file() and path.name != ".lock"]
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    with pytest.raises(FnnError, match=message):
        go_on(stopped, override)
    assert written() == before


# What is damaged


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def another_position(file):
    content = file.read_bytes()
    (done,) = re.findall(rb'\\"done\\": (\d)', content)
    other = b"2" if done == b"1" else b"1"
    file.write_bytes(content.replace(b'\\"done\\": ' + done, b'\\"done\\": ' + other))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "is damaged"),
        (flip, "is not what was written"),
        (another_position, "its header is not what was written"),
        (Path.unlink, "0.safetensors is missing"),
        (lambda file: file.write_bytes(b""), "is damaged"),
        (lambda file: file.write_bytes(b"\x00" * 1000), "is damaged"),
    ],
    ids=["truncated", "a bit flipped", "another position", "missing", "empty", "zeros"],
)
def test_a_damaged_checkpoint_is_an_error_and_the_one_before_it_is_there(
    stopped, last, command, damage, message
):
    damage(last.folder / "0.safetensors")
    status, _, err = command("resume", stopped)
    assert status == 2
    assert message in err
    (step,) = re.findall(r"take the folder away, and fnn resume resumes after step (\d+)", err)
    shutil.rmtree(last.folder)
    assert checkpoint.latest(stopped / "checkpoints").step == int(step)


def test_what_cannot_be_trained_in_or_resumed_is_one_message(stopped, command):
    with pytest.raises(FnnError, match=r"holds a training that has come to step \d+; resume it"):
        train(prepare(load(stopped / "config.yaml")), stopped)
    with files.locked(stopped):
        status, _, err = command("resume", stopped)
    assert status == 2
    assert "another process is training in" in err
    status, _, err = command("resume", ROOT / "docs")
    assert status == 2
    assert "expected a run folder or a folder of runs, and found no run" in err
    os.truncate(stopped / "metrics.jsonl", 10)  # which a checkpoint vouches for
    with pytest.raises(FnnError, match=r"metrics.jsonl is damaged: 10 bytes long, where"):
        go_on(stopped)
    (stopped / ".lock").unlink()
    (stopped / ".lock").mkdir()
    with pytest.raises(FnnError, match=r"cannot train in .*: Is a directory"):
        go_on(stopped)


def test_a_full_disk_stops_training_and_keeps_what_was_complete(tmp_path, command):
    """A checkpoint, of 2 MB, is longer than a file may be; compiled programs are not."""
    model = "model=[dense: {features: 100000}, dense: {features: 2}]"
    large = [model, "optimizer={sgd: {learning_rate: 0.01}}"]
    large += ["data.moons.points=40", "train.epochs=2"]
    (config := tmp_path / "large.yaml").write_text(SMALL)

    runs = tmp_path / "runs"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        status, _, err = command("run", config, "--runs", runs, *large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2
    assert "cannot write a checkpoint in" in err
    assert "make room, then fnn resume" in " ".join(err.split())
    assert "Traceback" not in err
    (where,) = runs.glob("*/*")
    assert command("resume", where)[0] == 0


def test_a_data_file_that_is_gone(tmp_path):
    rows = "".join(f"{i % 7},{i % 5},{i % 2}\n" for i in range(40))
    (tmp_path / "points.csv").write_text("a,b,label\n" + rows)
    text = SMALL.replace("moons: {points: 400}", f"csv: {{path: {tmp_path / 'points.csv'}}}")
    run = prepare(parse(text))
    (where := files.create(tmp_path, "gone")).mkdir(exist_ok=True)
    (where / "config.yaml").write_text(dump(run.config))  # as training does
    (tmp_path / "points.csv").unlink()
    with pytest.raises(DataError, match=r"config.yaml:\d+: data.csv: .*points.csv"):
        prepare(load(where / "config.yaml"))


# A loss that is not finite


@pytest.mark.parametrize(("policy", "skipped"), [("roll_back", 0), ("skip", 2)])
def test_training_goes_on_after_a_step_that_is_not_finite(tmp_path, policy, skipped):
    """One example is a poison: its step is passed over, or with all since the checkpoint."""
    length = {"roll_back": 7, "skip": 5}[policy]  # whose programs are there, and are few
    overrides = (f"train.on_nan={policy}", f"checkpoint.steps={length}")
    run = prepare(parse(SMALL, overrides=overrides))
    poison = int(np.asarray(order(0, 1, len(run.data.x_train)))[10 * 16])  # in step 10
    run.data.x_train[poison] = np.nan
    summary = train(run, tmp_path)
    assert summary["status"] == "completed"
    assert summary["first_nonfinite"]["step"] == 10
    assert "model.0 dense" in summary["first_nonfinite"]["place"]
    assert math.isfinite(summary["train_loss"])
    rolled_back = checkpoint.latest(tmp_path / "checkpoints").metadata["roll_backs"]
    assert (summary["skipped_steps"], rolled_back) == (skipped, 2 - skipped)  # once an epoch
    if policy == "skip":
        assert math.isfinite(replay(run, tmp_path, 15).loss)
    else:
        with pytest.raises(FnnError, match=r"step 15 cannot be replayed: between steps 0 and"):
            replay(run, tmp_path, 15)


@pytest.mark.parametrize("policy", ["stop", "skip", "roll_back"])
def test_a_hopeless_training_says_what_was_not_finite_first(tmp_path, policy):
    overrides = ("train.epochs=9", f"train.on_nan={policy}", "checkpoint.steps=1")
    run = prepare(parse(DIVERGES, overrides=overrides))
    for summary in (train(run, tmp_path), resume(run, tmp_path)):
        assert summary["status"] == "diverged"
        assert summary["first_nonfinite"]["step"] == 1
        assert summary["first_nonfinite"]["place"] is not None
    rows = metrics(tmp_path)
    assert len(rows) < 9
    assert rows[-1]["train_loss"] is None
    write_report(tmp_path)


def test_replay_finds_the_step_again(tmp_path, peace):
    where = peace("checkpoint.steps=7")
    run = prepare(load(where / "config.yaml"))
    steps = {step: replay(run, where, step) for step in (0, 36)}  # a checkpoint has step 34
    without = shutil.copytree(where, tmp_path / "without")
    shutil.rmtree(without / "checkpoints")
    assert replay(run, without, 36) == steps[36]
    assert steps[0].loss != steps[36].loss
    assert [a.name for a in steps[0].arrays][:3] == ["b", "w", "y"]
    state = init(run.model, optax.adam(0.1), run.x_shape, seed=0)
    low, high = (float(f(state.params["0_dense"]["w"])) for f in (jnp.min, jnp.max))
    w = steps[0].arrays[1]
    assert (w.forward.low, w.forward.high, w.forward.nonfinite) == (low, high, 0)
    assert w.after.low != w.forward.low
    with pytest.raises(FnnError, match="there is no step 10000: this training has steps 0 to"):
        replay(run, where, 10_000)


def test_a_step_under_another_config_is_not_replayed(tmp_path, peace):
    where = shutil.copytree(peace("checkpoint.steps=7"), tmp_path / "changed")
    changed = prepare(load(where / "config.yaml", ["seed=1", "train.epochs=3"]))
    last = checkpoint.latest(where / "checkpoints").step
    with pytest.raises(FnnError, match=rf"step 5 .* the config was another one until step {last}"):
        replay(changed, where, 5)
    assert math.isfinite(replay(changed, where, last + 7).loss)
    resume(changed, where)
    for epochs in (3, 4):  # which changes no step
        again = prepare(load(where / "config.yaml", [f"train.epochs={epochs}"]))
        with pytest.raises(FnnError, match=f"the config was another one until step {last}"):
            replay(again, where, last + 7)
