"""Tables as comma-separated text: one example per row, one column of labels."""

import math
import os
from collections.abc import Iterator
from csv import Error as CsvError
from csv import reader as csv_reader
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import chain, islice

import numpy as np

from ..errors import DataError, did_you_mean
from .arguments import check_integer, check_number
from .dataset import Dataset
from .files import find_file, open_file
from .split import check_split_arguments, split_dataset

FLOAT32_MAX = float(np.finfo(np.float32).max)

Row = tuple[int, list[str]]  # the line it ends on, and its cells


@dataclass(frozen=True)
class _Layout:
    """The columns of a table, from the first rows and the arguments."""

    path: str
    label: int  # index of the label's column, 0 <= label < columns
    columns: int
    names: list[str] | None  # of the columns, if the file has a header

    def cell(self, line: int, column: int) -> str:
        """Return the place of a cell; lines and columns count from 1."""
        name = f" ({self.names[column]!r})" if self.names else ""
        return f"{self.path}, line {line}, column {column + 1}{name}"


def csv(
    *,
    path: str,
    label: int | str = -1,
    header: bool | None = None,
    delimiter: str = ",",
    test_fraction: float = 0.2,
    split_seed: int = 0,
    shape: tuple[int, ...] | None = None,
    scale: float = 1.0,
) -> Dataset:
    """Load a table of numbers and one column of labels from UTF-8 text, one example per row.

    `label` is the label's column, by index (0 is the first, -1 the last) or by its name in the
    header. Labels are integers or words; the classes are the distinct ones, sorted. With
    `header=None` the first row is a header if none of its features is a number, or if its label is
    a word and the next row's is a number. Features are multiplied by `scale` and reshaped to
    `shape`. Rows of empty cells are skipped. The dataset is named after the file.

    Shapes: x (n, columns - 1) or (n, *shape) float32, y (n,) int32; the split is stratified.
    Raises DataError as all loaders of files, naming line and column; also for a cell that is not a
    finite number, a missing label, a row of another length, broken quotes or text, an empty file,
    an unknown label column, and a shape that does not fit.
    Source: RFC 4180.
    """
    check_split_arguments("csv", test_fraction, "split_seed", split_seed)
    check_number("csv", "scale", scale, 1e-30, 1e30)
    _check_delimiter(delimiter)
    path = find_file(path, "a CSV file")

    rows = _rows(path, delimiter)
    head = list(islice(rows, 2))
    layout = _layout(path, head, label, header, delimiter)
    examples = chain(head, rows) if layout.names is None else chain(head[1:], rows)
    x, labels, lines = _read_examples(examples, layout, scale)
    y, classes = _classes(labels, lines, layout)
    if header is None and layout.names is None:
        _check_first_label(labels, lines, layout)

    name = os.path.splitext(os.path.basename(path))[0]
    x = x if shape is None else _reshape(x, shape, path)
    return split_dataset(name, x, y, classes, test_fraction=test_fraction, seed=split_seed)


def _check_delimiter(delimiter: str) -> None:
    if len(delimiter) != 1 or delimiter.isalnum() or delimiter in "\"'.+-_\r\n\0":
        raise DataError(
            f"csv: delimiter is {delimiter!r}; expected one character that is not part of a number "
            'or a word, such as "," or ";" or "|" or a tab, in YAML "\\t" with double quotes'
        )


def _rows(path: str, delimiter: str) -> Iterator[Row]:
    """Yield the rows with a value in some cell, stripped of white space."""
    with open_file(path) as file:
        text = TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv_reader(
            text, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=True
        )
        try:
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield reader.line_num, cells
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, after line {reader.line_num}: byte {error.object[error.start]:#04x} is "
                "not UTF-8; expected text; save the file as UTF-8"
            ) from None
        except CsvError as error:
            raise DataError(
                f"{path}, line {reader.line_num}: {error}; expected cells separated by "
                f"{delimiter!r}, and every quote closed"
            ) from None


def _layout(
    path: str, head: list[Row], label: int | str, header: bool | None, delimiter: str
) -> _Layout:
    """Find the label's column and the header from the first two rows."""
    if not head:
        raise DataError(f"{path}: empty; expected one example per row")
    line, first = head[0]
    if len(first) < 2:
        raise DataError(
            f"{path}, line {line}: one column, {first[0]!r}; expected features and a label; "
            f"is the delimiter {delimiter!r} the right one?"
        )
    if isinstance(label, str):
        if header is False:
            raise DataError(
                f"csv: label is {label!r}, a column's name, but header is false; "
                "give the column's index, or header: true"
            )
        return _Layout(path, _find_label(path, label, first), len(first), first)
    check_integer(f"{path}", "label", label, -len(first), len(first) - 1)
    label %= len(first)
    if header is None:
        header = _is_header(first, head[1][1] if len(head) > 1 else first, label)
    return _Layout(path, label, len(first), first if header else None)


def _find_label(path: str, label: str, names: list[str]) -> int:
    if names.count(label) == 1:
        return names.index(label)
    if label in names:
        raise DataError(
            f"{path}: {names.count(label)} columns are named {label!r}; give the label's index"
        )
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise DataError(
        f"{path}: no column is named {label!r}; expected a name from the first row: {listed}"
        + did_you_mean(label, names)
    )


def _is_header(first: list[str], second: list[str], label: int) -> bool:
    features = first[:label] + first[label + 1 :]
    if any(features) and not any(map(_is_number, features)):
        return True
    above, below = first[label], second[label] if label < len(second) else ""
    return above != "" and not _is_number(above) and _is_number(below)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_examples(
    rows: Iterator[Row], layout: _Layout, scale: float
) -> tuple[np.ndarray, list[str], list[int]]:
    """Read all rows -> features (n, columns - 1) float32, labels, and the line of each."""
    features, labels, lines = [], [], []
    for line, cells in rows:
        if len(cells) != layout.columns:
            raise DataError(
                f"{layout.path}, line {line}: {len(cells)} columns; expected {layout.columns}, "
                "as in the first row; complete the row or remove it"
            )
        features.append(_read_features(line, cells, layout, scale))
        labels.append(cells[layout.label])
        lines.append(line)
    if not features:
        raise DataError(f"{layout.path}: a header only; expected one example per row after it")
    return np.stack(features), labels, lines


def _read_features(line: int, cells: list[str], layout: _Layout, scale: float) -> np.ndarray:
    columns = [k for k in range(layout.columns) if k != layout.label]
    try:
        values = np.array([float(cells[k]) for k in columns])  # (columns - 1,) float64
    except ValueError:
        bad = next(k for k in columns if not _is_number(cells[k]))
        hint = "; is this row a header? then say header: true" if line == 1 else ""
        raise DataError(
            f"{layout.cell(line, bad)}: {cells[bad]!r} is not a number; expected a feature; "
            f"mend the cell or drop the row or column{hint}"
        ) from None
    with np.errstate(over="ignore", invalid="ignore"):
        values *= scale
        usable = np.abs(values) <= FLOAT32_MAX  # false for nan
    if not usable.all():
        bad = columns[int(usable.argmin())]
        raise DataError(
            f"{layout.cell(line, bad)}: {cells[bad]} times scale {scale:g} is not a finite float32 "
            f"number; expected at most {FLOAT32_MAX:.3g} in size; mend the cell or drop the row"
        )
    return values.astype(np.float32)


def _classes(
    labels: list[str], lines: list[int], layout: _Layout
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number the distinct labels in order -> y (n,) int32, names."""
    if "" in labels:
        line = lines[labels.index("")]
        raise DataError(
            f"{layout.cell(line, layout.label)}: the label is missing; expected an integer or a "
            "word; complete the row or remove it"
        )
    if all(map(_is_number, labels)):
        cells = (layout.cell(line, layout.label) for line in lines)
        labels = [str(_whole(label, cell)) for label, cell in zip(labels, cells, strict=True)]
        classes = sorted(set(labels), key=int)
    else:
        classes = sorted(set(labels))
    number = {name: k for k, name in enumerate(classes)}
    return np.array([number[label] for label in labels], np.int32), tuple(classes)


def _whole(label: str, cell: str) -> int:
    """Return an integer written as `3` or as `3.0`."""
    try:
        return int(label)
    except ValueError:
        value = float(label)
    if not math.isfinite(value) or value != int(value):
        raise DataError(
            f"{cell}: the label is {label}; expected an integer or a word; "
            "is the label column the right one?"
        )
    return int(value)


def _check_first_label(labels: list[str], lines: list[int], layout: _Layout) -> None:
    """Raise DataError where the first row may be an example or a header of numbered columns."""
    if not _is_number(labels[0]) and labels.count(labels[0]) == 1:
        raise DataError(
            f"{layout.cell(lines[0], layout.label)}: the label {labels[0]!r} is in no other "
            "row, so the first row may be an example or a header; say header: true or false"
        )


def _reshape(x: np.ndarray, shape: tuple[int, ...], path: str) -> np.ndarray:
    """Return x (n, features) as (n, *shape)."""
    if not shape or min(shape) < 1 or math.prod(shape) != x.shape[1]:
        raise DataError(
            f"{path}: shape is {tuple(shape)}, {math.prod(shape)} numbers, but a row has "
            f"{x.shape[1]} features; expected positive sizes whose product is {x.shape[1]}"
        )
    return x.reshape(-1, *shape)
