"""Dataset: examples and labels in a training and a test split, checked on construction."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from ..errors import DataError

MAX_CLASSES = 65_536  # a larger label is a damaged file or an identifier, not a class


class Streamed(ABC):
    """Examples that stay on disk and are read on access, with a float32 array's shape and sizes."""

    dtype = np.dtype(np.float32)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape (n, *shape) of all examples."""

    @abstractmethod
    def __getitem__(self, examples: slice | np.ndarray) -> np.ndarray:
        """Read a slice, or the examples of these indices (k,) -> (k, *shape) float32, finite.

        Raises DataError, naming the file, for an example that can no longer be read or has a value
        that is not finite; IndexError for an index that is not 0 <= index < n.
        """

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """The rank of all examples together."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The count of numbers."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all examples as float32."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled examples in two splits.

    Shapes: x_train (n, *shape) and x_test (m, *shape) are float32; y_train (n,) and y_test (m,)
    are int32 with 0 <= label < len(classes). Images are (n, height, width, channels).
    `classes` are the labels' names, in order. Examples lie in memory, or are streamed; values of
    streamed examples are checked when they are read.

    Raises DataError, naming the dataset, the split, the index and the value, when a split is empty,
    an array has another dtype or rank, the counts or the shapes of the splits disagree, a value is
    not finite, a label is out of range, or two classes share a name.
    """

    name: str
    x_train: np.ndarray | Streamed  # (n, *shape)
    y_train: np.ndarray  # (n,)
    x_test: np.ndarray | Streamed  # (m, *shape)
    y_test: np.ndarray  # (m,)
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check every property that training relies on."""
        if not self.classes or len(set(self.classes)) != len(self.classes):
            self._fail(f"classes are {self.classes}; expected at least one name, and no name twice")
        self._check_split("train", self.x_train, self.y_train)
        self._check_split("test", self.x_test, self.y_test)
        train, test = self.x_train.shape[1:], self.x_test.shape[1:]
        if train != test:
            self._fail(
                f"examples of x_train have shape {train}, those of x_test {test}; expected one "
                "shape for both"
            )

    @property
    def x_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.x_train.shape[1:]

    @property
    def resident(self) -> bool:
        """Whether all examples lie in memory."""
        return not isinstance(self.x_train, Streamed) and not isinstance(self.x_test, Streamed)

    def _fail(self, problem: str) -> NoReturn:
        raise DataError(f"dataset {self.name!r}: {problem}")

    def _check_split(self, split: str, x: np.ndarray | Streamed, y: np.ndarray) -> None:
        self._check_array(f"x_{split}", x, np.float32, "(n, features...)", ranks=range(2, 65))
        self._check_array(f"y_{split}", y, np.int32, "(n,)", ranks=range(1, 2))
        check_counts(f"dataset {self.name!r}: x_{split}", len(x), f"y_{split}", len(y))
        if not isinstance(x, Streamed) and not np.isfinite(x).all():
            index = first_index(~np.isfinite(x))
            self._fail(
                f"x_{split}[{format_index(index)}] is {x[index]}; expected finite numbers; clean "
                "or drop the example"
            )
        outside = (y < 0) | (y >= len(self.classes))
        if outside.any():
            index = first_index(outside)
            self._fail(
                f"y_{split}[{format_index(index)}] is {y[index]}; expected a label from 0 to "
                f"{len(self.classes) - 1}, one for each of {len(self.classes)} classes"
            )

    def _check_array(
        self, field: str, array: np.ndarray | Streamed, dtype: type, shape: str, *, ranks: range
    ) -> None:
        if not isinstance(array, np.ndarray | Streamed) or array.dtype != dtype:
            kind = getattr(array, "dtype", type(array).__name__)
            self._fail(f"{field} is {kind}; expected a NumPy array of {np.dtype(dtype)}")
        if array.ndim not in ranks:
            self._fail(f"{field} has shape {array.shape}; expected {shape}")
        if array.size == 0:
            self._fail(
                f"{field} is empty, shape {array.shape}; expected at least one example of at least "
                "one number"
            )


def check_counts(x: str, examples: int, y: str, labels: int) -> None:
    """Raise DataError, naming `x` and `y`, where the counts of examples and labels differ."""
    if examples != labels:
        raise DataError(
            f"{x} holds {examples} examples, but {y} holds {labels} labels; expected one label for "
            "each example"
        )


def as_float32(values: np.ndarray, where: str) -> np.ndarray:
    """Return real numbers of any dtype as float32, of the same shape.

    Raises DataError, beginning with `where` and giving index and value, for a value that is not
    finite or lies outside the range of float32. A float32 array is not copied.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        x = values.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        index = first_index(~np.isfinite(x))
        raise DataError(
            f"{where}: the value at index [{format_index(index)}] is {values[index]}; expected a "
            f"finite number within ±{np.finfo(np.float32).max:.3g}; clean or drop the example"
        )
    return x


def as_labels(labels: np.ndarray, where: str) -> np.ndarray:
    """Return integers of any dtype, shape (n,), as int32 labels.

    Raises DataError, beginning with `where` and giving index and value, for a label below 0 or
    from 65536 on.
    """
    outside = (labels < 0) | (labels >= MAX_CLASSES)
    if outside.any():
        index = first_index(outside)
        raise DataError(
            f"{where}: the label at index [{format_index(index)}] is {labels[index]}; "
            f"expected 0 to {MAX_CLASSES - 1}; number the classes from 0"
        )
    return labels.astype(np.int32)


def numbered_classes(*labels: np.ndarray) -> tuple[str, ...]:
    """Return the class names "0", "1", ... up to the largest of the labels."""
    return tuple(str(k) for k in range(max(int(y.max()) for y in labels) + 1))


def first_index(mask: np.ndarray) -> tuple[int, ...]:
    """Return the index of the first true element of `mask`, in row-major order."""
    return tuple(int(i) for i in np.unravel_index(int(mask.argmax()), mask.shape))


def format_index(index: tuple[int, ...]) -> str:
    """Return an index as text between brackets: `3, 0, 2`."""
    return ", ".join(str(i) for i in index)
