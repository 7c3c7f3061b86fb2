"""Examples in files that need not fit into memory, read on access."""

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from ..errors import DataError
from .dataset import Streamed, as_float32
from .npy_files import ALIGNMENT, NpyFile, check_examples, examples_shape


class Shards(Streamed):
    """The examples of one or several .npy files in order, as float32.

    uint8 values are pixels: divided by 255, and (n, height, width) becomes (n, height, width, 1).
    Other real numbers are converted, and checked to be finite.

    Raises DataError, naming the file, where a file holds no examples, or examples of another shape
    or dtype than the first file's.
    """

    def __init__(self, files: Sequence[NpyFile]):
        first = files[0]
        for file in files:
            check_examples(file.dtype, file.shape, file.path)
            if (file.dtype, file.shape[1:]) != (first.dtype, first.shape[1:]):
                raise DataError(
                    f"{file.path}: examples have shape {file.shape[1:]} of {file.dtype}, those of "
                    f"{first.path} {first.shape[1:]} of {first.dtype}; expected one shape and "
                    "dtype in all shards; write them again"
                )
        self._files = tuple(files)
        self._ends = np.array(list(accumulate(file.shape[0] for file in files)))
        self._stored = first.dtype, first.shape[1:]
        self._shape = examples_shape(first.dtype, (int(self._ends[-1]), *first.shape[1:]))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (n, *shape) of all examples."""
        return self._shape

    def __getitem__(self, examples: slice | np.ndarray) -> np.ndarray:
        """Read a slice, or the examples of these indices (k,) -> (k, *shape) float32, finite."""
        if isinstance(examples, slice):
            examples = np.arange(*examples.indices(len(self)))
        if len(examples) and not 0 <= examples.min() <= examples.max() < len(self):
            raise IndexError(f"examples {examples}; expected indices below {len(self)}")
        dtype, shape = self._stored
        x = _empty((len(examples), *shape))
        if dtype == x.dtype:
            self._read(examples, x)
        else:
            raw = np.empty(x.shape, dtype)
            self._read(examples, raw)
            with np.errstate(over="ignore", invalid="ignore"):
                np.divide(raw, np.float32(255 if dtype == np.uint8 else 1), out=x, dtype=np.float32)
        if dtype.kind == "f" and not np.isfinite(x).all():
            self._refuse(examples, x)
        return x.reshape(len(examples), *self._shape[1:])

    def _read(self, examples: np.ndarray, into: np.ndarray) -> None:
        """Read the examples as they are stored, in the files' order, which is fastest on disks."""
        places = np.argsort(examples, kind="stable")
        ascending = examples[places].astype(np.int64)
        cuts = np.searchsorted(ascending, self._ends)
        for file, end, low, high in zip(
            self._files, self._ends, [0, *cuts[:-1]], cuts, strict=True
        ):
            if low < high:
                rows = ascending[low:high] - (end - file.shape[0])
                file.read(rows, into, places[low:high])

    def _refuse(self, examples: np.ndarray, x: np.ndarray) -> None:
        """Raise DataError for the first value that is not finite, with its file and example."""
        bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
        example = int(examples[bad.argmax()])
        shard = int(np.searchsorted(self._ends, example, side="right"))
        file = self._files[shard]
        row = example - int(self._ends[shard]) + file.shape[0]
        value = np.empty((1, *file.shape[1:]), file.dtype)
        file.read(np.array([row]), value, np.array([0]))
        as_float32(value[0], f"{file.path}: example {row}")


def _empty(shape: tuple[int, ...]) -> np.ndarray:
    """Allocate float32 numbers, aligned so that the CPU device does not copy them."""
    buffer = np.empty(math.prod(shape) * 4 + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + math.prod(shape) * 4].view(np.float32).reshape(shape)
