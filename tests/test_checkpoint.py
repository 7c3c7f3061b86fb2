"""Checkpoints: which are kept, what comes back from them, and the positions that they hold."""

import math
import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from fnn.runs import checkpoint
from fnn.runs.checkpoint import Checkpoints
from fnn.train.feed import Position, cut_epoch


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
    latest = checkpoint.latest(tmp_path)
    assert (latest.step, latest.metadata, latest.score) == (5, {"a": [1.25, None]}, None)
    back = checkpoint.restore(latest, jax.tree.map(jnp.zeros_like, state) | {"key": state["key"]})
    chex.assert_trees_all_equal_dtypes(back, state)
    for tree in (state, back):
        tree["key"] = jax.random.key_data(tree["key"])
    chex.assert_trees_all_equal(back, state)


def test_a_file_is_read_by_the_library(tmp_path):
    saved = Checkpoints(tmp_path, keep_last=1)
    for step, size in enumerate((3000, 5, 9000)):
        arrays = {"flag": np.asarray(True), "a": np.arange(size, dtype=np.float32)}
        saved.save(jax.tree.map(jnp.asarray, arrays), step, {})
        saved.wait()
        back = load_file(tmp_path / f"{step:08}" / "0.safetensors")
        for name in ("flag", "a"):
            np.testing.assert_array_equal(back[name], arrays[name], strict=True)
    saved.close()


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


# Positions


@pytest.mark.parametrize("longest", [1, 3, 4, 100])
@pytest.mark.parametrize("done", [0, 1, 4, 6, 7])
def test_calls_from_the_middle_are_those_from_the_start(longest, done):
    examples = np.arange(27)
    whole = list(cut_epoch(examples, 4, 0, longest))
    rest = [row for cut in cut_epoch(examples, 4, done, longest) for row in cut]
    steps = [row for cut in whole for row in cut]
    assert [list(row) for row in rest] == [list(row) for row in steps[done:]]
    assert np.concatenate(steps).tolist() == examples.tolist()
    ends = np.cumsum([len(cut) for cut in whole])[:-1]
    assert all(end % longest == 0 or end == 6 for end in ends)
    first = [row for cut in cut_epoch(examples, 4, 0, longest, until=done) for row in cut]
    assert [list(row) for row in first] == [list(row) for row in steps[:done]]


def test_a_position_sums_what_is_finite():
    at = Position(2).after(np.zeros((3, 4)), np.asarray([1.0, math.nan, 2.0]))
    assert (at.epoch, at.done, at.examples, at.mean()) == (2, 3, 8, 1.5)
    assert at.step(10) == 13
