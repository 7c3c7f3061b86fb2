"""The IDX reader, on small examples."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnn.data import idx, read_idx

from .test_data import IN_ONE_FOLDER, expect_bomb, expect_error, fuzz, packed, write_files
from .test_data import write as write

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}
NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def header(*shape: int, dtype: str = "u1") -> bytes:
    return bytes([0, 0, CODES[dtype], len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def encode(array, dtype: str = "u1") -> bytes:
    array = np.asarray(array)
    return header(*array.shape, dtype=dtype) + array.astype(dtype).tobytes()


PIXELS = np.arange(5 * 4 * 3).reshape(5, 4, 3)
LABELS = [0, 1, 2, 1, 0]
GOOD = {
    "train_images": encode(PIXELS),
    "train_labels": encode(LABELS),
    "test_images": encode(PIXELS[:2] + 100),
    "test_labels": encode([2, 3]),
}


PACKED = packed(GOOD["train_images"])


@pytest.fixture
def folder(tmp_path):
    """Write the four files, some of them changed (None: left out), and return the folder."""

    def write(**changes: bytes | None) -> str:
        files = GOOD | changes
        return write_files(tmp_path, {NAMES[role]: files[role] for role in files})

    return write


def test_reads_mnist_style_files(folder):
    dataset = idx(folder=folder())
    assert dataset.x_shape == (4, 3, 1)
    assert dataset.classes == ("0", "1", "2", "3")
    np.testing.assert_allclose(dataset.x_train[..., 0], PIXELS / 255, rtol=1e-7)
    assert dataset.x_train.dtype == np.float32
    assert (dataset.y_train.tolist(), dataset.y_test.tolist()) == (LABELS, [2, 3])
    assert folder().endswith(dataset.name)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("pack", [bytes, packed])
@pytest.mark.parametrize("dash", ["-", "."])
def test_finds_every_spelling_and_knows_gzip_by_its_first_bytes(tmp_path, dash, pack, suffix):
    for role, name in NAMES.items():
        path = tmp_path / (name.replace("-idx", f"{dash}idx") + suffix)
        path.write_bytes(pack(GOOD[role]))
    assert idx(folder=str(tmp_path)).y_train.tolist() == LABELS


def test_prefers_a_file_to_a_folder_of_its_name_and_the_configured_name(folder, tmp_path):
    path = folder(train_images=None)
    (tmp_path / NAMES["train_images"]).mkdir()
    expect_error(["is a folder", NAMES["train_images"]], idx, folder=path)
    (tmp_path / "mine").write_bytes(GOOD["train_images"])
    assert len(idx(folder=path, train_images="mine").x_train) == 5
    (tmp_path / f"{NAMES['train_images']}.gz").write_bytes(PACKED)
    assert len(idx(folder=path).x_train) == 5


@pytest.mark.parametrize("dtype", CODES)
def test_reads_every_element_type(write, dtype):
    values = [[[1, 2], [3, 100]]] if dtype == "u1" else [[[1, -2], [3, -100]]]
    array = read_idx(write(encode(values, dtype)), rank=3)
    assert array.tolist() == values
    assert array.dtype == np.dtype(dtype)


def test_other_element_types_are_not_scaled(folder):
    path = folder(train_images=encode(PIXELS, ">f4"), train_labels=encode(LABELS, ">i4"))
    dataset = idx(folder=path)
    np.testing.assert_array_equal(dataset.x_train[..., 0], PIXELS)
    assert dataset.y_train.tolist() == LABELS


def big(dtype: str, *values: float) -> bytes:
    return encode(np.array(values).reshape(-1, 1, 1), dtype)


@pytest.mark.parametrize(
    ("role", "content", "words"),
    [
        ("train_images", b"", ["truncated", "0 bytes", "IDX header"]),
        ("train_images", b"\0\0\x08", ["truncated", "3 bytes"]),
        ("train_images", b"\0\0\x08\x03\0\0", ["truncated", "6 bytes", "16 bytes"]),
        ("train_images", GOOD["train_images"][:-1], ["truncated", "60 bytes", "only 59"]),
        ("train_images", GOOD["train_images"] + b"\0", ["trailing bytes", "60 bytes"]),
        ("train_images", b"\x89PNG" * 9, ["wrong magic", "89 50 4e 47", "08, 09, 0b"]),
        ("train_images", b"\0\0\x0a\x03" + bytes(99), ["wrong magic", "00 00 0a 03"]),
        ("train_images", GOOD["train_labels"], ["rank 1", "expected rank 3", "other way round"]),
        ("test_labels", GOOD["test_images"], ["rank 3", "expected rank 1", "labels, (n,)"]),
        ("train_images", header(0, 4, 3), ["(0, 4, 3)", "at least one"]),
        ("train_images", header(2**31, 28, 28), ["truncated", "2147483648", "too small"]),
        ("train_images", header(*[2**32 - 1] * 3, dtype=">f8"), ["truncated", "too small"]),
        ("train_labels", encode([0, 1, 2]), ["5 examples", "3 labels", "labels-idx1"]),
        ("train_labels", encode([0] * 5, ">f4"), ["is float32", "integers"]),
        ("train_labels", encode([0, 0, -1, 0, 0], "i1"), ["index [2] is -1", "from 0"]),
        ("train_labels", encode([0, 0, 0, 0, 2**30], ">i4"), ["index [4] is 1073741824"]),
        ("test_images", big(">f4", 0, np.nan), ["index [1, 0, 0, 0] is nan", "finite"]),
        ("test_images", big(">f8", 1e300, 0), ["is 1e+300"]),
        *(("train_images", PACKED[:end], ["damaged gzip"]) for end in (-9, 30)),
        ("train_images", b"\x1f\x8b" + bytes(30), ["damaged gzip", "fetch it again"]),
        ("train_images", b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 30, ["damaged gzip"]),
        ("train_images", PACKED + b"junk", ["damaged gzip"]),
        ("train_images", packed(GOOD["train_images"] + b"\0"), ["trailing bytes"]),
        ("train_images", packed(GOOD["train_images"][:-1]), ["truncated", "only 59"]),
        ("train_images", packed(header(2**31, 28, 28)), ["truncated", "too small"]),
        ("train_images", None, ["no such file", "train-images.idx3-ubyte.gz"]),
    ],
)
def test_errors(folder, role, content, words):
    path = folder(**{role: content})
    expect_error([path, NAMES[role], *words], idx, folder=path)


def test_gzip_checksum_is_checked(write):
    content = bytearray(packed(GOOD["train_labels"]))
    content[-5] ^= 1
    expect_error(["damaged gzip", "CRC"], read_idx, write(content), rank=1)


def test_folder_and_names(folder, tmp_path, monkeypatch):
    path = folder()
    expect_error(["no such folder"], idx, folder=f"{path}/nowhere")
    expect_error(["is a file", "folder"], idx, folder=f"{path}/{NAMES['test_labels']}")
    expect_error(["did you mean"], idx, folder=path, train_images="train-image-idx3-ubyte")
    (tmp_path / "loop").symlink_to("loop")
    expect_error(["loop", "cannot be read"], idx, folder=path, train_images="loop")
    folder(test_images=encode(PIXELS[:2, :3]))
    expect_error(["(4, 3, 1)", "(3, 3, 1)"], idx, folder=path)
    folder(train_images=b"")
    monkeypatch.chdir(path)
    expect_error([path], idx, folder=".")


def test_a_stream_is_inflated_no_further_than_its_header_needs(write):
    bomb = write(packed(header(5) + bytes(64 << 20)))
    expect_bomb(["trailing bytes"], read_idx, bomb, rank=1)


@IN_ONE_FOLDER
@given(data=st.data(), role=st.sampled_from(list(NAMES)), pack=st.sampled_from([bytes, packed]))
def test_any_mutated_file_is_a_dataset_or_a_data_error(folder, data, role, pack):
    fuzz(data, pack(GOOD[role]), lambda c: idx(folder=folder(**{role: c})))
