"""CIFAR's binary files, on small examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnn.data import cifar

from .test_data import IN_ONE_FOLDER, expect_bomb, expect_error, fuzz, packed, write_files

SIZE = 3 * 32 * 32


def record(*labels: int, red: int = 0, green: int = 0, blue: int = 0) -> bytes:
    planes = np.repeat(np.array([red, green, blue], np.uint8), 32 * 32)
    return bytes(labels) + planes.tobytes()


def noisy(*labels: int) -> bytes:
    return bytes(labels) + np.random.default_rng(labels).bytes(SIZE)


TEN = {
    **{f"data_batch_{k}.bin": noisy(k) + noisy(k - 1) for k in range(1, 6)},
    "test_batch.bin": noisy(9),
}
HUNDRED = {"train.bin": noisy(0, 7) + noisy(19, 99) + noisy(3, 31), "test.bin": noisy(4, 50)}


@pytest.fixture
def folder(tmp_path):
    """Write a kind's files, some of them changed (None: left out), and return the folder."""

    def write(files=TEN, **changes: bytes | None) -> str:
        changed = {name.replace("__", "."): content for name, content in changes.items()}
        return write_files(tmp_path, files | changed)

    return write


def test_reads_cifar_10_in_the_order_of_its_batches(folder):
    dataset = cifar(folder=folder())
    assert dataset.x_train.shape == (10, 32, 32, 3)
    assert dataset.y_train.tolist() == [1, 0, 2, 1, 3, 2, 4, 3, 5, 4]
    assert (dataset.y_test.tolist(), dataset.classes) == ([9], tuple("0123456789"))
    assert folder().endswith(dataset.name)


def test_reads_both_labels_of_cifar_100(folder):
    path = folder(HUNDRED)
    fine, coarse = (cifar(folder=path, labels=labels) for labels in ("fine", "coarse"))
    assert (fine.y_train.tolist(), fine.y_test.tolist()) == ([7, 99, 31], [50])
    assert (coarse.y_train.tolist(), coarse.y_test.tolist()) == ([0, 19, 3], [4])
    assert fine.classes == tuple(str(k) for k in range(100))
    assert coarse.classes == tuple(str(k) for k in range(20))
    for dataset in (fine, coarse):
        assert np.array_equal(dataset.x_train, cifar(folder=path).x_train)


@pytest.mark.parametrize(("files", "head"), [(TEN, 1), (HUNDRED, 2)])
def test_pixels_lie_in_planes_of_rows(folder, files, head):
    pixel = np.arange(SIZE) % 251  # tells plane, row and column apart
    content = bytes(head) + pixel.astype(np.uint8).tobytes()
    x = cifar(folder=folder(files | dict.fromkeys(files, content)), standardize=False).x_train
    assert x.dtype == np.float32
    for row, column, channel in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1), (31, 30, 2)]:
        expected = pixel[1024 * channel + 32 * row + column] / 255
        assert x[0, row, column, channel] == np.float32(expected)


def test_standardizes_by_the_training_split(folder):
    raw, scaled = cifar(folder=folder(), standardize=False), cifar(folder=folder())
    assert (raw.x_train.min(), raw.x_train.max()) == (0, 1)
    (mean, deviation), standard = (
        [f(d.x_train.astype(np.float64), axis=(0, 1, 2)) for f in (np.mean, np.std)]
        for d in (raw, scaled)
    )
    np.testing.assert_allclose(standard, [[0] * 3, [1] * 3], rtol=0, atol=1e-6)
    np.testing.assert_allclose(scaled.x_test, (raw.x_test - mean) / deviation, atol=1e-5)


def test_a_channel_of_one_value_is_only_centred(folder):
    train = record(0, 0, red=7, green=0, blue=255) + record(0, 1, red=7, green=255, blue=255)
    path = folder({"train.bin": train, "test.bin": record(0, 0, red=58)})
    dataset = cifar(folder=path)
    assert dataset.x_train[:, 0, 0].tolist() == [[0, -1, 0], [0, 1, 0]]
    np.testing.assert_allclose(dataset.x_test[0, 0, 0], [0.2, -1, -1], rtol=1e-6)


def test_reads_gzip_under_either_name(folder):
    train, test = map(packed, HUNDRED.values())
    path = folder({"train.bin": train, "test.bin.gz": test})
    assert cifar(folder=path).y_train.tolist() == [7, 99, 31]


@pytest.mark.parametrize(
    ("files", "name", "count", "labels"),
    [
        (TEN, "batches.meta.txt", 10, "fine"),
        (HUNDRED, "fine_label_names.txt", 100, "fine"),
        (HUNDRED, "coarse_label_names.txt", 20, "coarse"),
    ],
)
def test_names_of_classes(folder, files, name, count, labels):
    names = [f"kind {k}" for k in range(count)]
    path = folder(files | {name: "\r\n".join([*names, "", ""]).encode()})
    assert cifar(folder=path, labels=labels).classes == tuple(names)


GOOD = TEN["data_batch_3.bin"]
PACKED = packed(GOOD)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file", "nor data_batch_3.bin.gz", "test_batch.bin for CIFAR-10"]),
        (b"", ["truncated", "0 records of 3073 bytes and 0 bytes more"]),
        (GOOD[:-1], ["truncated", "1 records of 3073 bytes and 3072 bytes more", "fetch it"]),
        (GOOD + b"\0", ["2 records of 3073 bytes and 1 bytes more"]),
        (noisy(3) + noisy(10), ["the fine label of record 1 is 10", "0 to 9", "CIFAR-10"]),
        *((bad, ["damaged gzip"]) for bad in (PACKED[:-9], PACKED[:30], PACKED + b"junk")),
        (PACKED[:-5] + b"\0" + PACKED[-4:], ["damaged gzip", "CRC"]),
        (packed(GOOD[:-1]), ["truncated", "3072 bytes more"]),
    ],
)
def test_errors_of_one_file(folder, content, words):
    path = folder(data_batch_3__bin=content)
    expect_error([f"{path}/data_batch_3.bin", *words], cifar, folder=path)


@pytest.mark.parametrize(
    ("files", "arguments", "words"),
    [
        ({}, {}, ["no file of either", "data_batch_1.bin", "train.bin, test.bin (CIFAR-100)"]),
        ({"data_batch_1": b""}, {}, ["no file of either", "binary version"]),
        (TEN | HUNDRED, {}, ["test_batch.bin, train.bin", "a folder of its own"]),
        ({"train.bin": noisy(0, 7)}, {}, ["/test.bin: no such file", "CIFAR-100"]),
        (HUNDRED | {"test.bin": noisy(20, 0)}, {}, ["test.bin", "coarse label of record 0 is 20"]),
        (HUNDRED | {"test.bin": noisy(0, 100)}, {}, ["fine label of record 0 is 100", "0 to 99"]),
        (TEN, {"labels": "coarse"}, ["CIFAR-10 has no 'coarse' labels", "expected fine"]),
        (HUNDRED, {"labels": "rough"}, ["CIFAR-100 has no 'rough' labels", "coarse or fine"]),
        (TEN | {"batches.meta.txt": b"a\nb\n"}, {}, ["batches.meta.txt", "2 names", "expected 10"]),
        (TEN | {"batches.meta.txt": b"a\n" * 10}, {}, ["10 names, 1 of them different"]),
        (TEN | {"batches.meta.txt": b"\xff" * 99_999}, {}, ["1 names", "remove it"]),
    ],
)
def test_errors_of_the_folder(folder, files, arguments, words):
    path = folder(files)
    expect_error([path, *words], cifar, folder=path, **arguments)


def test_folders_and_files_in_each_others_place(folder, tmp_path):
    path = folder(data_batch_3__bin=None)
    expect_error(["no such folder"], cifar, folder=f"{path}/nowhere")
    expect_error(["is a file", "give the folder"], cifar, folder=f"{path}/test_batch.bin")
    (tmp_path / "data_batch_3.bin").mkdir()
    expect_error(["data_batch_3.bin", "is a folder", "CIFAR-10"], cifar, folder=path)
    (tmp_path / "data_batch_3.bin.gz").write_bytes(PACKED)
    assert len(cifar(folder=path).x_train) == 10
    (tmp_path / "batches.meta.txt").mkdir()
    expect_error(["batches.meta.txt", "is a folder", "names"], cifar, folder=path)
    (tmp_path / "around/cifar-100-binary").mkdir(parents=True)
    expect_error(["did you mean its folder 'cifar-100-binary'?"], cifar, folder=f"{path}/around")


def test_a_stream_is_inflated_no_further_than_the_largest_file(folder, monkeypatch):
    monkeypatch.setattr("fnn.data.cifar_files.MAX_RECORDS", 5)
    path = folder(data_batch_1__bin=packed(bytes(64 << 20)))
    words = ["data_batch_1.bin", "more than 5 records", "CIFAR-10"]
    expect_bomb(words, cifar, folder=path)


@IN_ONE_FOLDER
@given(data=st.data(), name=st.sampled_from(list(HUNDRED)), pack=st.sampled_from([bytes, packed]))
def test_any_mutated_file_is_a_dataset_or_a_data_error(folder, data, name, pack):

    def read(content):
        return cifar(folder=folder(HUNDRED | {name: content}))

    fuzz(data, pack(HUNDRED[name]), read)
