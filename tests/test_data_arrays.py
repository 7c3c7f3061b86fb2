"""Folders of stored arrays: reading, and errors of damage, at once or while reading."""

import dataclasses
import os
import time
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnn.data import arrays, none_of_the_above, npz, one_vs_rest
from fnn.data.npy_files import open_npy

from .test_data import IN_ONE_FOLDER, expect_error, fuzz, same
from .test_data_files import header

N, M, SHARDS = 61, 11, 3
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(256, size=(N + M, 4, 3), dtype=np.uint8)
NUMBERS = RNG.normal(size=(N + M, 4, 3))
Y = RNG.integers(4, size=N + M)


def shard(key, index, total=SHARDS):
    return f"{key}-{index:05}-of-{total:05}.npy"


def save_arrays(folder, x=NUMBERS, shards=SHARDS):
    """Save 61 and 11 examples, whole or in shards, in a new folder, and return it."""
    folder.mkdir()
    for key, array in named(x).items():
        if shards is None:
            np.save(folder / f"{key}.npy", array)
        else:
            for i, part in enumerate(np.array_split(array, shards)):
                np.save(folder / shard(key, i, shards), part)
    return folder


def named(x):
    return {"x_train": x[:N], "y_train": Y[:N], "x_test": x[N:], "y_test": Y[N:]}


@pytest.fixture
def save(tmp_path):
    return partial(save_arrays, tmp_path / "stored")


@pytest.mark.parametrize("shards", [None, 1, SHARDS])
@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f4", "<f2", "<f8", ">i2", "?"])
def test_stored_arrays_equal_those_of_npz(save, tmp_path, dtype, shards):
    x = PIXELS if dtype == "u1" else NUMBERS.astype(dtype)
    np.savez(tmp_path / "stored.npz", **named(x))
    folder = str(save(x, shards))
    want, whole = npz(path=str(tmp_path / "stored.npz")), arrays(folder=folder, stream=False)
    streamed = arrays(folder=folder)
    assert (whole.resident, streamed.resident) == (True, False)
    assert whole.name == streamed.name == "stored"
    assert same(whole, want)
    for split in ("x_train", "x_test"):
        x, want_x = getattr(streamed, split), getattr(want, split)
        for attribute in ("shape", "dtype", "ndim", "size", "nbytes"):
            assert getattr(x, attribute) == getattr(want_x, attribute)
        assert len(x) == len(want_x)
    assert streamed.x_shape == want.x_shape == ((4, 3, 1) if dtype == "u1" else (4, 3))
    some = [60, 0, 0, 21, 20, 22, 40], [5], range(N), RNG.permutation(N).astype(np.int32)
    slices = slice(None), slice(18, 45), slice(50, 99), slice(3, 3), slice(None, None, 7)
    for examples in (*map(np.array, some), *slices):
        got = streamed.x_train[examples]
        assert np.array_equal(got, want.x_train[examples])
        assert got.dtype == np.float32
    for examples in ([-1], [N], [0, 1 << 40]):
        with pytest.raises(IndexError, match="expected indices below 61"):
            streamed.x_train[np.array(examples)]


def test_a_large_array_is_read_where_a_cpu_device_takes_it_without_a_copy(save):
    x = arrays(folder=str(save())).x_train[:]
    assert x.ctypes.data % 64 == 0
    assert jax.device_put(x, jax.devices("cpu")[0]).unsafe_buffer_pointer() == x.ctypes.data


def test_classes_are_named_by_their_file_and_targets_can_be_changed(save):
    folder = save()
    dataset = arrays(folder=str(folder))
    binary = one_vs_rest(dataset, label=2)
    assert binary.x_train is dataset.x_train
    assert np.array_equal(binary.y_train, Y[:N] == 2)
    expect_error(["streamed", "stream: false"], none_of_the_above, dataset)
    assert dataset.classes == ("0", "1", "2", "3")
    (folder / NAMES).write_text("ant\nbee\n\ncat\ndog\nelk\n")
    assert arrays(folder=str(folder)).classes == ("ant", "bee", "cat", "dog", "elk")


def rewrite(name, change):
    """Return a function that replaces the array in a file of a folder."""
    return lambda folder: np.save(folder / name, change(np.load(folder / name)))


def content(name, change):
    """Return a function that replaces the bytes of a file of a folder."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def write(name, content=""):
    return lambda folder: (folder / name).write_text(content)


def unshard_labels(folder):
    for k in range(SHARDS):
        (folder / shard("y_train", k)).unlink()
    np.save(folder / "y_train.npy", Y[:N])


X, X1, X7 = "x_train-*-of-00003.npy", shard("x_train", 1), shard("x_train", 7)
Y1, NAMES = shard("y_train", 1), "classes.txt"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / X1).unlink(), [X1, "no such file", "expected 3 shards, found 2"]),
        (lambda f: (f / shard("x_test", 2)).unlink(), [shard("x_test", 2), "3 shards, found 2"]),
        (lambda f: [p.unlink() for p in f.glob("y_test*")], ["y_test.npy", "no such file, nor"]),
        (lambda f: (f / X1).rename(f / "x_train-1-of-00003.npy"), [X1, "no such file"]),
        (write(X7), [X7, "not one of 3 shards", "move it away"]),
        (
            write(shard("x_train", 0, 9)),
            [f"{X} and x_train-*-of-00009.npy", "expected one of them"],
        ),
        (write("x_train.npy"), [f"{X} and x_train.npy", "move the rest away"]),
        (unshard_labels, ["x_train is in 3 files, but y_train in 1"]),
        (rewrite(X1, lambda x: x[..., :2]), [X1, "(4, 2) of float64", "(4, 3)", "one shape"]),
        (rewrite(X1, lambda x: x.astype("f4")), [X1, "of float32", "of float64", "dtype"]),
        (rewrite(X1, lambda x: x.astype(str)), [X1, "<U", "real numbers"]),
        (rewrite(X1, lambda x: x[:0]), [X1, "(0, 4, 3)", "at least 1"]),
        (rewrite(X1, lambda x: x[:, 0, 0]), [X1, "(n, features...)", "x[:, None]"]),
        (rewrite(X1, np.asfortranarray), [X1, "column by column", "np.ascontiguousarray"]),
        (rewrite(X1, lambda x: x[1:]), [X1, "holds 19 examples", Y1, "holds 20 labels"]),
        (content(X1, lambda b: b[:-1]), [X1, "truncated", "(20, 4, 3)", "1920 bytes", "1919"]),
        (content(X1, lambda b: b + b"0"), [X1, "damaged", "1920 bytes", "1921"]),
        *((content(X1, lambda b, n=n: b[:n]), [X1, "damaged", "np.save"]) for n in (50, 0)),
        (content(X1, lambda b: b"\x1f\x8b" + b), [X1, "no .npy file"]),
        (content(X1, lambda b: header("(1, 2)", "'|O'") + b), [X1, "object array", "pickle"]),
        (content(X1, lambda b: header("(-1, -2)") + bytes(16)), [X1, "(-1, -2)"]),
        (rewrite(Y1, lambda y: y[:, None]), [Y1, "(20, 1)", "argmax"]),
        (rewrite(Y1, lambda y: y.astype(float)), [Y1, "float64", "y.astype(int)"]),
        (rewrite(Y1, lambda y: y - 9), [Y1, "label at index [0] is -", "from 0"]),
        (content(Y1, lambda b: b[:-1]), [Y1, "truncated"]),
        (
            write(NAMES, "ant\nbee\ncat\n"),
            [NAMES, "holds 3 names", "expected 4 or more", "largest label is 3"],
        ),
        (write(NAMES, "a\na\nb\nc\n"), [NAMES, "4 names, 3 of them"]),
    ],
)
def test_a_folder_that_cannot_be_right_is_refused_before_training(save, damage, words):
    folder = save()
    damage(folder)
    expect_error([str(folder), *words], arrays, folder=str(folder))


def test_splits_of_two_shapes_and_folders_that_are_none(save, tmp_path, monkeypatch):
    folder = save(shards=None)
    expect_error(["no such folder"], arrays, folder=str(tmp_path / "nowhere"))
    np.save(folder / "x_test.npy", NUMBERS[N:, :, :2])
    expect_error(["'stored'", "(4, 3)", "(4, 2)"], arrays, folder=str(folder))

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.listdir", refuse)
    expect_error(["cannot be listed", "Permission denied"], arrays, folder=str(folder))


@IN_ONE_FOLDER
@given(data=st.data(), name=st.sampled_from(["x_train.npy", "y_train.npy"]))
def test_any_mutated_file_is_a_dataset_or_a_data_error(tmp_path, data, name):
    for key, array in (("x", NUMBERS[:4].astype("f4")), ("y", Y[:4])):
        for split in ("train", "test"):
            np.save(tmp_path / f"{key}_{split}.npy", array)

    def read(content):
        (tmp_path / name).write_bytes(content)
        dataset = arrays(folder=str(tmp_path))
        assert dataset.x_train[:].dtype == np.float32
        return dataset

    fuzz(data, (tmp_path / name).read_bytes(), read)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.unlink(), ["vanished since training began", "bring it back"]),
        (lambda p: os.truncate(p, 900), ["changed since training began", "it has 900 bytes"]),
        (lambda p: os.truncate(p, 0), ["changed since training began", "it has 0 bytes"]),
        (lambda p: p.write_bytes(p.read_bytes()), ["changed since training began", "as it was"]),
        (lambda p: (p.unlink(), p.mkdir()), ["cannot be read: Is a directory"]),
    ],
)
def test_a_file_that_changes_while_training_is_a_clear_error(save, damage, words):
    folder = save()
    x = arrays(folder=str(folder)).x_train
    assert len(x[20:50]) == 30
    time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
    damage(folder / X1)
    assert len(x[:20]) == 20  # of another shard
    expect_error([str(folder / X1), *words], x.__getitem__, slice(20, 50))


def test_a_file_cut_short_between_the_check_and_the_reading(save):
    path = save() / X1
    file = open_npy(str(path))
    os.truncate(path, 1000)
    cut = dataclasses.replace(file, size=1000, modified=path.stat().st_mtime_ns)
    expect_error([X1, "truncated while it was read"], cut.read_all)


@pytest.mark.parametrize(("dtype", "value"), [("f4", np.nan), ("f8", 1e300), (">f2", np.inf)])
def test_a_value_that_is_not_finite_is_an_error_on_reading(save, dtype, value):
    x = NUMBERS.astype(dtype)
    x[25, 1, 2] = value
    folder = save(x)
    dataset = arrays(folder=str(folder))
    assert np.isfinite(dataset.x_train[np.array([24, 26])]).all()
    words = [X1, "example 4:", "index [1, 2]", "expected a finite number"]  # 25 is 21 + 4
    expect_error(words, dataset.x_train.__getitem__, np.array([3, 60, 25, 24]))
    expect_error(words, arrays, folder=str(folder), stream=False)
