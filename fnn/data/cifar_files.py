"""The binary files of CIFAR-10 and CIFAR-100: records, with nothing before or between them.

    CIFAR-10    1 byte    the label
    CIFAR-100   2 bytes   the coarse label, the fine label
    both        3072      the pixels: a plane of red, of green and of blue, each 32 rows of 32

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .files import class_names, find_file, find_folder, first_spelling, open_unpacked, read_up_to

PLANES = (3, 32, 32)
MAX_RECORDS = 50_000  # of the largest file, train.bin of CIFAR-100


@dataclass(frozen=True)
class _Kind:
    """One of the two: its files and, per label byte, the label's name, names' file and classes."""

    name: str
    train: tuple[str, ...]
    test: str
    labels: dict[str, tuple[str, int]]
    archive: str

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test)

    @property
    def record(self) -> int:
        """The bytes of one record."""
        return len(self.labels) + int(np.prod(PLANES))


KINDS = (
    _Kind(
        "CIFAR-10",
        train=tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
        test="test_batch.bin",
        labels={"fine": ("batches.meta.txt", 10)},
        archive="cifar-10-batches-bin",
    ),
    _Kind(
        "CIFAR-100",
        train=("train.bin",),
        test="test.bin",
        labels={"coarse": ("coarse_label_names.txt", 20), "fine": ("fine_label_names.txt", 100)},
        archive="cifar-100-binary",
    ),
)


def cifar(
    *, folder: str, labels: Literal["fine", "coarse"] = "fine", standardize: bool = True
) -> Dataset:
    """Load CIFAR-10 or CIFAR-100 from a folder with the files of its binary version.

    Its files are data_batch_1.bin to data_batch_5.bin and test_batch.bin, or train.bin and
    test.bin, each plain or gzip, with or without `.gz` in its name. CIFAR-100 has 100 fine or 20
    coarse labels. Classes are named by batches.meta.txt, fine_label_names.txt or
    coarse_label_names.txt, if it is in the folder, and numbered otherwise. The dataset is named
    after the folder.

    Pixels are divided by 255. Then each channel is scaled to mean 0 and deviation 1 over the
    training split; with `standardize` false it stays in [0, 1].

    Shapes: x (n, 32, 32, 3) float32, red, green, blue; y (n,) int32.
    Raises DataError as all loaders of files; also for a folder with neither or both of the two, for
    coarse labels of CIFAR-10, and for names that are not one per class.
    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    folder = find_folder(folder, "a folder of CIFAR's binary files")
    kind, paths = _find(folder)
    if labels not in kind.labels:
        raise DataError(
            f"{folder}: {kind.name} has no {labels!r} labels; expected {' or '.join(kind.labels)}"
        )
    names, count = kind.labels[labels]
    classes = class_names(os.path.join(folder, names), count)
    x_train, y_train = _read_split(kind, paths[:-1], labels)
    x_test, y_test = _read_split(kind, paths[-1:], labels)
    if standardize:
        _standardize(x_train, x_test)
    name = os.path.basename(folder) or "cifar"
    return Dataset(name, x_train, y_train, x_test, y_test, classes)


def _find(folder: str) -> tuple[_Kind, list[str]]:
    """Return the kind of the folder and the paths of all its files, the test split's last."""
    spellings = {name: first_spelling(folder, name) for kind in KINDS for name in kind.files}
    present = [name for name, path in spellings.items() if path]
    kinds = [kind for kind in KINDS if set(present) & set(kind.files)]
    if len(kinds) != 1:
        fix = "give each a folder of its own" if kinds else "give the folder of the unpacked files"
        for kind in KINDS:
            if os.path.isdir(os.path.join(folder, kind.archive)):
                fix = f"did you mean its folder {kind.archive!r}?"
        either = ", or ".join(f"{', '.join(kind.files)} ({kind.name})" for kind in KINDS)
        raise DataError(
            f"{folder}: holds {', '.join(present) or 'no file of either'}; expected the binary "
            f"version, {either}; {fix}"
        )
    kind, paths = kinds[0], []
    for name in kind.files:
        path = spellings[name]
        if path is None:
            raise DataError(
                f"{os.path.join(folder, name)}: no such file, nor {name}.gz; expected all of "
                f"{', '.join(kind.files)} for {kind.name}; unpack its archive again"
            )
        paths.append(path)
    return kind, paths


def _read_split(kind: _Kind, paths: list[str], labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the files of one split in order -> (n, 32, 32, 3) in [0, 1], (n,)."""
    records = np.concatenate([_read_records(kind, path) for path in paths])
    planes = records[:, len(kind.labels) :].reshape(-1, *PLANES)  # (n, 3, 32, 32)
    x = planes.transpose(0, 2, 3, 1).astype(np.float32, order="C")  # (n, 32, 32, 3)
    x /= 255
    return x, records[:, list(kind.labels).index(labels)].astype(np.int32)


def _read_records(kind: _Kind, path: str) -> np.ndarray:
    """Read one file -> (n, bytes of a record) uint8, its labels in range."""
    path = find_file(path, f"records of {kind.name}")
    # No first label is 31, the byte that begins gzip. A small gzip file may inflate to a huge one.
    with open_unpacked(path) as (stream, _):
        data = read_up_to(stream, MAX_RECORDS * kind.record + 1)
    count, rest = divmod(len(data), kind.record)
    if len(data) > MAX_RECORDS * kind.record:
        raise DataError(
            f"{path}: more than {MAX_RECORDS} records of {kind.record} bytes; expected no more in "
            f"a file of {kind.name}; fetch it again"
        )
    if rest or not count:
        raise DataError(
            f"{path}: truncated, or not of {kind.name}: {count} records of {kind.record} bytes and "
            f"{rest} bytes more; expected whole records, at least one; fetch it again"
        )
    records = np.frombuffer(data, np.uint8).reshape(count, kind.record)
    for column, (labels, (_, classes)) in enumerate(kind.labels.items()):
        outside = records[:, column] >= classes
        if outside.any():
            index = int(outside.argmax())
            raise DataError(
                f"{path}: the {labels} label of record {index} is {records[index, column]}; "
                f"expected 0 to {classes - 1}, as {kind.name} has; is it a file of {kind.name}?"
            )
    return records


def _standardize(x_train: np.ndarray, x_test: np.ndarray) -> None:
    """Scale each channel to mean 0 and deviation 1 over the training split, in place."""
    mean = x_train.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)  # (3,)
    x_train -= mean
    x_test -= mean
    squares = np.einsum("nhwc,nhwc->c", x_train, x_train, dtype=np.float64)
    deviation = np.sqrt(squares / (x_train.size / len(mean))).astype(np.float32)  # (3,)
    deviation[deviation == 0] = 1  # a channel of one value has nothing to scale
    x_train /= deviation
    x_test /= deviation
