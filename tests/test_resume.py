"""Checkpoints and resuming: the same numbers to the bit, and every way in which it can go wrong."""

import errno
import functools
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from fnn.config import dump, load, parse
from fnn.errors import ConfigError, DataError, FnnError
from fnn.train import checkpoint, image, init, order, prepare, replay, resume, train
from fnn.train import folder as files
from fnn.train.changes import changes
from fnn.train.checkpoint import Checkpoints
from fnn.train.position import Position, calls

from .kills import check_equal
from .runs import Stop, metrics
from .runs import command as command
from .runs import uncompared as uncompared

ROOT = Path(__file__).parents[1]
SMALL = """
name: small
data: {moons: {points: 400}}
model: [dense: {features: 8}, batch_norm, dropout: {rate: 0.3}, dense: {features: 2}]
loss: softmax_cross_entropy
optimizer: {adam: {learning_rate: 0.01}}
train: {epochs: 4, batch_size: 16}
"""
DIVERGES = """
name: diverges
data: {rings: {points: 100}}
model: [dense: {features: 2}]
loss: squared_error
optimizer: {sgd: {learning_rate: 1.0e+30}}
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
    assert train(run, where, Stop("steps", 3, signal.SIGTERM))["status"] == "interrupted"
    return where


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A run of the small experiment that was told to stop after its third call of steps."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


def go_on(where, *overrides):
    return resume(prepare(load(where / "config.yaml", overrides)), where)


# The same numbers


@pytest.mark.parametrize(
    ("changed", "after", "number"),
    [
        (("checkpoint.steps=7",), 2, signal.SIGINT),
        pytest.param(
            *(("checkpoint.steps=1", "checkpoint.keep_best=1"), 20, signal.SIGTERM),
            marks=pytest.mark.prove,
        ),
        pytest.param(("train.batch_size=full",), 2, signal.SIGINT, marks=pytest.mark.prove),
        pytest.param(("gradient=backprop",), 1, signal.SIGTERM, marks=pytest.mark.prove),
    ],
    ids=["within an epoch", "single steps", "whole epochs", "backprop"],
)
def test_a_run_that_is_told_to_stop_goes_on_as_if_it_had_not(
    tmp_path, peace, changed, after, number
):
    run = prepare(parse(SMALL, overrides=changed))
    summary = train(run, tmp_path, Stop("steps", after, number))
    assert (summary["status"], summary["signal"]) == ("interrupted", number)
    where = checkpoint.latest(tmp_path / "checkpoints")
    assert where.step == summary["steps"]
    assert go_on(tmp_path)["status"] == "completed"
    check_equal(peace(*changed), tmp_path)


KILLED = """
import signal, sys
from pathlib import Path
from fnn.config import load
from fnn.train import prepare, train
from tests.runs import Stop
where = Path(sys.argv[1])
train(prepare(load(where / "small.yaml")), where, Stop("steps", 5, signal.SIGKILL))
"""


def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path, peace):
    changed = ("checkpoint.steps=7",)
    whole = peace(*changed)
    (tmp_path / "small.yaml").write_text((whole / "config.yaml").read_text())
    programs = {  # which are there already
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    words = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, env=os.environ | programs
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert go_on(tmp_path)["status"] == "completed"
    check_equal(whole, tmp_path)


@pytest.mark.prove
@pytest.mark.parametrize("kills", [100])
def test_kills(kills):
    """In a process of its own, since it forks."""
    words = [sys.executable, "-W", "ignore", "-m", "tests.kills", "--kills", str(kills)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} kills" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("gone", ["the last checkpoint", "all checkpoints"])
def test_what_comes_before_a_checkpoint_that_is_gone_is_trained_again(stopped, peace, gone):
    last = checkpoint.latest(stopped / "checkpoints").folder
    shutil.rmtree(last if gone == "the last checkpoint" else last.parent)
    go_on(stopped)
    check_equal(peace("checkpoint.steps=7"), stopped)


def test_a_run_that_is_complete_stays_what_it_is(peace):
    where = peace("checkpoint.steps=7")
    before = (where / "metrics.jsonl").read_text()
    assert go_on(where)["status"] == "completed"
    assert (where / "metrics.jsonl").read_text() == before
    last = json.loads(before.splitlines()[-1])
    assert json.loads((where / "summary.json").read_bytes())["seconds"] > last["seconds"]
    with pytest.raises(ConfigError, match=r"train.epochs: 3, and training has come to epoch 4"):
        go_on(where, "train.epochs=3")


# Which are kept


def test_the_last_and_the_best_are_kept(tmp_path):
    saved = Checkpoints(tmp_path, keep_last=2, keep_best=2)
    for step, score in enumerate([3.0, 1.0, None, 2.0, 5.0, None, 4.0, math.nan]):
        if score is None or saved.is_among_best(score):
            saved.save({"a": jnp.arange(3)}, step, {}, score)
    saved.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("00000001", "00000003"),  # the best
        *("00000005",),  # the last, beside 3
    ]


def test_the_best_epoch_is_kept(tmp_path):
    overrides = ("checkpoint.keep_best=1", "checkpoint.keep_last=1", "checkpoint.steps=7")
    train(prepare(parse(SMALL, overrides=overrides)), tmp_path)
    rows = metrics(tmp_path)
    best = min(rows, key=lambda row: row["test_loss"])["step"]
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {best, rows[-1]["step"]}


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {
        "key": jax.random.key(7),
        "half": jnp.asarray([1.5, -2], jnp.bfloat16),
        "empty": jnp.zeros((0, 3)),
        "count": jnp.asarray(3),
        "flag": jnp.asarray([True, False]),
    }
    saved = Checkpoints(tmp_path)
    saved.save(state, 5, {"a": [1.25, None]}, score=math.nan)
    saved.wait()
    found = checkpoint.latest(tmp_path)
    assert (found.step, found.meta) == (5, {"a": [1.25, None]})
    back = checkpoint.restore(found, jax.tree.map(jnp.zeros_like, state) | {"key": state["key"]})
    assert found.score is None
    chex.assert_trees_all_equal_dtypes(back, state)
    for name in state:
        one, other = back[name], state[name]
        if name == "key":
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("direct", [True, False])
def test_a_file_written_over_another_is_read_by_the_library(tmp_path, monkeypatch, direct):
    def opened(path, flags, *rest, within=os.open):
        if flags & image.DIRECT:
            raise OSError(errno.EINVAL, "no direct writes here")
        return within(path, flags, *rest)

    if not direct:
        monkeypatch.setattr(os, "open", opened)
    file, made = tmp_path / "file", image.Image()
    for size in (3000, 5, 9000):
        arrays = {"flag": np.asarray(True), "a": np.arange(size, dtype=np.float32)}
        made.fill(arrays, {"step": size})
        made.write(file)
        back = load_file(file)
        assert file.stat().st_size % image.BLOCK == 0
        for name in ("flag", "a"):
            np.testing.assert_array_equal(back[name], arrays[name], strict=True)


def test_a_checkpoint_is_not_written_through_links(tmp_path):
    """A copy of hard links, as `cp -al` makes it, and a file that points elsewhere."""
    copy, victim = tmp_path / "copy", tmp_path / "victim"
    saved = Checkpoints(tmp_path / "saved", keep_last=1)
    for step in (1, 2, 3, 4):
        saved.save({"w": jnp.full(5, step)}, step, {})
        saved.wait()
        (file,) = (tmp_path / "saved").glob("*/0.safetensors")
        if step == 1:
            os.link(file, copy)
            before = copy.read_bytes()
        elif step == 3:
            file.rename(victim)
            file.symlink_to(victim)
    assert copy.read_bytes() == before
    assert load_file(victim)["w"].tolist() == [3] * 5
    assert checkpoint.latest(tmp_path / "saved").step == 4


def test_what_else_lies_beside_checkpoints_stays(tmp_path):
    for step in (99_999_999, 100_000_000):
        saved = Checkpoints(tmp_path)
        saved.save({"w": jnp.ones(3)}, step, {})
        saved.close()
        (tmp_path / ".DS_Store").touch()
        (tmp_path / ".00000007.partial").mkdir()
    Checkpoints(tmp_path).close()
    assert checkpoint.latest(tmp_path).step == 100_000_000
    assert {p.name for p in tmp_path.glob(".*")} == {".DS_Store"}


def test_a_folder_with_a_training_is_not_trained_in_anew(stopped):
    with pytest.raises(FnnError, match=r"holds a training that has come to step \d+; resume it"):
        train(prepare(load(stopped / "config.yaml")), stopped)


# Another config


def test_a_changed_config_is_said_and_followed(stopped):
    found = checkpoint.latest(stopped / "checkpoints")
    overrides = ["train.epochs=5", "optimizer.adam.b1=0.8"]
    config = load(stopped / "config.yaml", overrides)
    assert [(c.key, c.before, c.after) for c in changes(found, config)] == [
        ("optimizer.adam.b1", 0.9, 0.8),
        ("train.epochs", 4, 5),
    ]
    assert all(c.meaning != "another experiment" for c in changes(found, config))
    assert resume(prepare(config), stopped)["epochs"] == 5
    assert load(stopped / "config.yaml").train.epochs == 5


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
    stopped, command, damage, message
):
    last = checkpoint.latest(stopped / "checkpoints").folder
    damage(last / "0.safetensors")
    status, _, err = command("resume", stopped)
    assert status == 2
    assert message in err
    (step,) = re.findall(r"take the folder away, and fnn resume resumes after step (\d+)", err)
    shutil.rmtree(last)
    assert checkpoint.latest(stopped / "checkpoints").step == int(step)


def test_metrics_that_a_checkpoint_vouches_for_and_that_are_gone(stopped):
    if not checkpoint.latest(stopped / "checkpoints").meta["metrics_bytes"]:
        go_on(stopped, "train.epochs=5")
    os.truncate(stopped / "metrics.jsonl", 10)
    with pytest.raises(FnnError, match=r"metrics.jsonl is damaged: 10 bytes long, where"):
        go_on(stopped)


def test_what_cannot_be_resumed_is_one_message(stopped, command):
    with files.locked(stopped):
        status, _, err = command("resume", stopped)
    assert status == 2
    assert "another process is training in" in err
    status, _, err = command("resume", ROOT / "docs")
    assert status == 2
    assert "expected a run folder or a folder of runs, and found no run" in err


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


def test_a_folder_that_cannot_be_written_in(stopped):
    (stopped / ".lock").unlink()
    (stopped / ".lock").mkdir()
    with pytest.raises(FnnError, match=r"cannot train in .*: Is a directory"):
        go_on(stopped)


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


@pytest.mark.parametrize(("policy", "skipped"), [("roll_back", 0), ("skip", 4)])
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
    rolled_back = checkpoint.latest(tmp_path / "checkpoints").meta["roll_backs"]
    assert (summary["skipped_steps"], rolled_back) == (skipped, 4 - skipped)  # once an epoch
    if policy == "skip":
        assert math.isfinite(replay(run, tmp_path, 15).loss)
    else:
        with pytest.raises(FnnError, match=r"step 15 cannot be replayed: between steps 0 and"):
            replay(run, tmp_path, 15)


@pytest.mark.parametrize("policy", ["stop", "skip", "roll_back"])
def test_a_hopeless_training_says_what_was_not_finite_first(tmp_path, policy):
    overrides = ("train.epochs=9", f"train.on_nan={policy}", "checkpoint.steps=1")
    run = prepare(parse(DIVERGES + "train: {epochs: 1}", overrides=overrides))
    for summary in (train(run, tmp_path), resume(run, tmp_path)):
        assert summary["status"] == "diverged"
        assert summary["first_nonfinite"]["step"] == 1
        assert summary["first_nonfinite"]["place"] is not None


def test_replay_finds_the_step_again(tmp_path, peace):
    where = peace("checkpoint.steps=7")
    run = prepare(load(where / "config.yaml"))
    steps = {step: replay(run, where, step) for step in (0, 26)}
    shutil.copytree(where, tmp_path / "without")
    shutil.rmtree(tmp_path / "without" / "checkpoints")
    again = replay(run, tmp_path / "without", 26)
    assert again == steps[26]
    assert steps[0].loss != steps[26].loss
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
    changed = prepare(load(where / "config.yaml", ["seed=1", "train.epochs=5"]))
    last = checkpoint.latest(where / "checkpoints").step
    with pytest.raises(FnnError, match=rf"step 5 .* the config was another one until step {last}"):
        replay(changed, where, 5)
    assert math.isfinite(replay(changed, where, last + 7).loss)
    resume(changed, where)
    for epochs in (5, 6):  # which changes no step
        again = prepare(load(where / "config.yaml", [f"train.epochs={epochs}"]))
        with pytest.raises(FnnError, match=f"the config was another one until step {last}"):
            replay(again, where, last + 7)


# Positions


@pytest.mark.parametrize("longest", [1, 3, 4, 100])
@pytest.mark.parametrize("done", [0, 1, 4, 6, 7])
def test_calls_from_the_middle_are_those_from_the_start(longest, done):
    examples = np.arange(27)
    whole = list(calls(examples, 4, 0, longest))
    rest = [row for cut in calls(examples, 4, done, longest) for row in cut]
    steps = [row for cut in whole for row in cut]
    assert [list(row) for row in rest] == [list(row) for row in steps[done:]]
    assert np.concatenate(steps).tolist() == examples.tolist()
    ends = np.cumsum([len(cut) for cut in whole])[:-1]
    assert all(end % longest == 0 or end == 6 for end in ends)
    first = [row for cut in calls(examples, 4, 0, longest, until=done) for row in cut]
    assert [list(row) for row in first] == [list(row) for row in steps[:done]]


def test_a_position_sums_what_is_finite():
    at = Position(2).after(np.zeros((3, 4)), np.asarray([1.0, math.nan, 2.0]))
    assert (at.epoch, at.done, at.seen, at.mean()) == (2, 3, 8, 1.5)
    assert at.step(10) == 13
