"""Folders of NumPy arrays, whole or in shards, possibly larger than memory."""

import os
import re

import numpy as np

from ..errors import DataError
from .dataset import Dataset, check_counts
from .files import class_names, find_folder, nearest
from .npy_files import NpyFile, as_stored_labels, open_npy
from .shards import Shards


def arrays(*, folder: str, stream: bool = True) -> Dataset:
    """Load x_train, y_train, x_test and y_test from a folder of files that `np.save` wrote.

    Each is one file, x_train.npy, or shards x_train-00000-of-00010.npy to
    x_train-00009-of-00010.npy, with one shard of labels per shard of examples. Labels are read at
    once. Examples stay on disk and are read batch by batch, so they need not fit into memory; with
    `stream` false they are read at once, which is faster. Training is the same either way.

    uint8 values are pixels: divided by 255, and (n, height, width) becomes (n, height, width, 1).
    Classes are named by the lines of classes.txt, if it is in the folder, and numbered otherwise.
    The dataset is named after the folder. Nothing is unpickled, nothing is written, and the files
    must not change while a run reads them.

    Shapes: x (n, *shape) of real numbers -> float32; y (n,) of integers from 0 -> int32.
    Raises DataError as all loaders of files; also for an array of objects or stored column by
    column, shards of different shape or dtype, and too few names. Values are checked when read.
    Source: NumPy Enhancement Proposal 1, the .npy format.
    """
    folder = find_folder(folder, "a folder of .npy files")
    (x_train, y_train), (x_test, y_test) = (_open_split(folder, s) for s in ("train", "test"))
    largest = max(int(y.max()) for y in (y_train, y_test))
    more = f" or more, as the largest label is {largest}"
    classes = class_names(os.path.join(folder, "classes.txt"), largest + 1, more)
    name = os.path.basename(folder) or "arrays"
    if stream:
        return Dataset(name, x_train, y_train, x_test, y_test, classes)
    return Dataset(name, x_train[:], y_train, x_test[:], y_test, classes)


def _open_split(folder: str, split: str) -> tuple[Shards, np.ndarray]:
    """Open the examples of one split and read its labels -> (n, *shape), (n,) int32."""
    x_files, y_files = _open_shards(folder, f"x_{split}"), _open_shards(folder, f"y_{split}")
    if len(x_files) != len(y_files):
        raise DataError(
            f"{folder}: x_{split} is in {len(x_files)} files, but y_{split} in {len(y_files)}; "
            "expected a file of labels for each file of examples"
        )
    x = Shards(x_files)
    labels = []
    for x_file, y_file in zip(x_files, y_files, strict=True):
        labels.append(as_stored_labels(y_file.read_all(), y_file.path))
        check_counts(x_file.path, x_file.shape[0], y_file.path, y_file.shape[0])
    return x, np.concatenate(labels)


def _open_shards(folder: str, key: str) -> list[NpyFile]:
    """Open `key`.npy, or all of its shards, in order."""
    single = os.path.join(folder, f"{key}.npy")
    shards = [name for name in _names(folder) if re.fullmatch(rf"{key}-\d+-of-\d+\.npy", name)]
    kinds = sorted({re.sub(r"-\d+-", "-*-", name) for name in shards})
    if os.path.lexists(single):
        kinds.append(f"{key}.npy")
    if len(kinds) > 1:
        raise DataError(
            f"{folder}: holds {' and '.join(kinds)}; expected one of them; move the rest away"
        )
    if shards:
        return [open_npy(os.path.join(folder, name)) for name in _in_order(folder, shards)]
    if not kinds:
        raise DataError(
            f"{single}: no such file, nor shards {key}-00000-of-00010.npy; expected one or the "
            f"other{nearest(folder, f'{key}.npy')}"
        )
    return [open_npy(single)]


def _in_order(folder: str, shards: list[str]) -> list[str]:
    """Return the names of shards in order, none missing and none extra."""
    key, _, _, total = shards[0].removesuffix(".npy").rsplit("-", 3)
    names = []
    for i in range(int(total)):
        names.append(f"{key}-{i:0{len(total)}}-of-{total}.npy")
        if names[-1] not in shards:
            raise DataError(
                f"{os.path.join(folder, names[-1])}: no such file; expected {int(total)} shards, "
                f"found {len(shards)}; fetch or write it again"
            )
    for name in sorted(set(shards) - set(names)):
        raise DataError(
            f"{os.path.join(folder, name)}: not one of {int(total)} shards, which are numbered "
            f"from 0 with {len(total)} digits; rename it or move it away"
        )
    return names


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None
