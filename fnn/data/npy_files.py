"""Arrays as NumPy stores them: headers, conversion to examples and labels, single .npy files."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from typing import IO

import numpy as np

from ..errors import DataError
from .dataset import as_float32, as_labels
from .files import find_file, open_numpy

ALIGNMENT = 64
"""Bytes: the CPU device uses an array at a multiple of them without a copy."""


def read_header(stream: IO[bytes], where: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of `size` bytes in .npy format -> shape, whether columns come first, dtype.

    Raises DataError, beginning with `where`, for an array of objects, and where the bytes after the
    header are not those of the shape; NumPy's parser raises other errors for damaged bytes.
    """
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, by_columns, dtype = np.lib.format.read_array_header_2_0(stream)
    else:  # 3.0 differs only for arrays of records with non-Latin field names
        raise ValueError(f"an array in .npy format {version}, which holds no plain numbers")
    if dtype.hasobject:
        raise DataError(
            f"{where} is an object array, which only pickle could read; expected numbers; "
            "save it with a numeric dtype (are its rows of different lengths?)"
        )
    expected, actual = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if expected != actual or min(shape, default=0) < 0:
        raise DataError(
            f"{where} is truncated or damaged: its header says shape {shape} of {dtype}, expected "
            f"{expected} bytes of numbers, but it holds {actual}; write or fetch the file again"
        )
    return shape, by_columns, dtype


def check_examples(dtype: np.dtype, shape: tuple[int, ...], where: str) -> None:
    """Raise DataError unless this is (n, features...) of real numbers, at least one."""
    if dtype.kind not in "fiub":
        raise DataError(f"{where} is {dtype}; expected real numbers")
    if len(shape) < 2 or math.prod(shape) == 0:
        raise DataError(
            f"{where} has shape {shape}; expected (n, features...), with n and every size "
            "at least 1; for single numbers, x[:, None]"
        )


def examples_shape(dtype: np.dtype, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of stored examples as float32: pixels (n, h, w) get a channel axis."""
    return (*shape, 1) if dtype == np.uint8 and len(shape) == 3 else shape


def as_examples(values: np.ndarray, where: str) -> np.ndarray:
    """Return stored examples as float32: uint8 values are pixels, divided by 255.

    Raises DataError, beginning with `where`, for a dtype or shape that cannot be examples, and for
    a value that is not finite.
    """
    check_examples(values.dtype, values.shape, where)
    if values.dtype != np.uint8:
        return as_float32(values, where)
    pixels = np.divide(values, np.float32(255), dtype=np.float32)
    return pixels.reshape(examples_shape(values.dtype, values.shape))


def as_stored_labels(labels: np.ndarray, where: str) -> np.ndarray:
    """Return stored labels (n,) as int32.

    Raises DataError, beginning with `where`, for another dtype or shape, or a label out of range.
    """
    if labels.ndim != 1 or labels.size == 0:
        raise DataError(
            f"{where} has shape {labels.shape}; expected (n,), n at least 1; "
            "for one-hot labels, y.argmax(axis=1)"
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{where} is {labels.dtype.name}; expected integers; if all are whole, y.astype(int)"
        )
    return as_labels(labels, where)


@dataclass(frozen=True)
class NpyFile:
    """A .npy file whose header matches its size."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int  # of the numbers, in bytes
    size: int  # of the file, in bytes
    modified: int  # in nanoseconds

    def read(self, rows: np.ndarray, into: np.ndarray, places: np.ndarray) -> None:
        """Read `rows`, which ascend, into those `places` of an array (k, *shape[1:]) of the dtype.

        The file is opened at each call and not mapped into memory: reading past the end of a
        mapped file that is shortened meanwhile kills the process (SIGBUS).

        Raises DataError where the file has vanished, has changed, or cannot be read.
        """
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        view = memoryview(into.reshape(-1).view(np.uint8))
        together = (np.diff(rows) == 1) & (np.diff(places) == 1)
        first = np.flatnonzero(np.concatenate([[True], ~together]))  # of each run of neighbours
        last = np.append(first[1:], len(rows))
        with self._open() as file:
            for start, place, count in zip(
                (self.start + rows[first] * row).tolist(),
                (places[first] * row).tolist(),
                ((last - first) * row).tolist(),
                strict=True,
            ):
                file.seek(start)
                self._fill(file, view[place : place + count])

    def read_all(self) -> np.ndarray:
        """Read the whole array; raises as `read` does."""
        values, rows = np.empty(self.shape, self.dtype), np.arange(self.shape[0])
        self.read(rows, values, rows)
        return values

    def _fill(self, file: FileIO, view: memoryview) -> None:
        while len(view):  # the system reads at most 2 GiB at once
            count = file.readinto(view)
            if not count:
                raise DataError(
                    f"{self.path}: truncated while it was read; expected {self.size} bytes, as "
                    "when training began; bring back the whole file and start again"
                )
            view = view[count:]

    @contextmanager
    def _open(self) -> Iterator[FileIO]:
        try:
            with open(self.path, "rb", buffering=0) as file:
                now = os.fstat(file.fileno())
                if (now.st_size, now.st_mtime_ns) != (self.size, self.modified):
                    raise DataError(
                        f"{self.path}: changed since training began: it has {now.st_size} bytes; "
                        f"expected the file of {self.size} bytes as it was; data must stay as they "
                        "are while a run reads them; bring them back and start again"
                    )
                yield file
        except FileNotFoundError:
            raise DataError(
                f"{self.path}: vanished since training began; expected the file of {self.size} "
                "bytes that was there; bring it back and start again"
            ) from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from None


def open_npy(path: str) -> NpyFile:
    """Open a .npy file whose header matches its size.

    Raises DataError, naming the file, for one that is missing, no .npy file, truncated or too
    long, of objects, or stored column by column.
    """
    path = find_file(path, "a file that np.save wrote")
    with open_numpy(path, ".npy file", "np.save") as (file, stat):
        shape, by_columns, dtype = read_header(file, path, stat.st_size)
        start = file.tell()
    if by_columns:
        raise DataError(
            f"{path}: stored column by column (Fortran order), so that no example lies in one "
            "piece; expected row by row; save np.ascontiguousarray(x)"
        )
    return NpyFile(path, shape, dtype, start, stat.st_size, stat.st_mtime_ns)
