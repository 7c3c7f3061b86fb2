"""Finding and opening files; every error says how to mend it."""

import gzip
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO, cast

from ..errors import DataError, did_you_mean

GZIP_MAGIC = b"\x1f\x8b"
MAX_INFLATION = 1032  # deflate spends at least two bits on 258 bytes
CHUNK = 1 << 20
MAX_NAMES = 1 << 22


def absolute(path: str) -> str:
    """Return `path` with `~` expanded, made absolute; links are left as they are."""
    return os.path.abspath(os.path.expanduser(path))


def find_file(path: str, expected: str) -> str:
    """Return the absolute path of a regular file; `expected` says what it should hold.

    Raises DataError if nothing is there (with the nearest name that is), or a folder, or a device
    or pipe, or if the system refuses to look.
    """
    path = absolute(path)
    mode = _mode(path)
    if mode is None:
        raise DataError(f"{path}: no such file; expected {expected}{nearest(*os.path.split(path))}")
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: is a folder; expected {expected}; give the path of the file")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is a device, pipe or socket; expected {expected}, a plain file")
    return path


def find_folder(path: str, expected: str) -> str:
    """Return the absolute path of a folder; `expected` says what it should hold.

    Raises DataError if nothing is there, or something other than a folder.
    """
    path = absolute(path)
    mode = _mode(path)
    if mode is None:
        raise DataError(
            f"{path}: no such folder; expected {expected}{nearest(*os.path.split(path))}"
        )
    if not stat.S_ISDIR(mode):
        raise DataError(f"{path}: is a file; expected {expected}; give the folder that holds it")
    return path


def first_spelling(folder: str, *spellings: str) -> str | None:
    """Return the path of the first name that is in the folder, with or without `.gz`."""
    paths = [os.path.join(folder, name) for name in with_gz(spellings)]
    for exists in (os.path.isfile, os.path.lexists):  # a file is better than a folder of that name
        for path in filter(exists, paths):
            return path
    return None


def with_gz(names: Sequence[str]) -> list[str]:
    """Return each name without and with `.gz`."""
    return [name + suffix for name in names for suffix in ("", ".gz")]


def nearest(folder: str, name: str) -> str:
    """Return the end of an error about a missing `name`: the most similar name in the folder."""
    if not os.path.isdir(folder):
        return f"; the folder {folder} does not exist either; check the path"
    with suppress(OSError):  # a folder can be searchable but not listable
        return did_you_mean(name, os.listdir(folder)) or "; check the path"
    return "; check the path"


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading bytes; an OSError, then or later, becomes a DataError."""
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {_reason(error)}") from None


@contextmanager
def open_numpy(path: str, kind: str, writer: str) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open a file of NumPy's -> the stream, the file's state; any error of a parser means damage.

    Damaged bytes make zipfile, zlib and NumPy's header parser raise some ten kinds of error.
    """
    with open_file(path) as file:
        try:
            yield file, os.fstat(file.fileno())
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{path}: damaged, or no {kind}: {error}; expected a file that {writer} wrote; "
                "write or fetch it again"
            ) from None


@contextmanager
def open_unpacked(path: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file, plain or gzip by its first bytes -> its bytes, the largest possible count.

    A gzip stream is inflated while it is read; damage in it is a DataError.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        if not packed:
            yield file, size
            return
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                yield cast(BinaryIO, stream), size * MAX_INFLATION
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(
                f"{path}: damaged gzip file ({error}); expected a whole one; fetch it again"
            ) from None


def read_up_to(stream: BinaryIO, count: int) -> bytearray:
    """Read `count` bytes piece by piece, or fewer at the end of the stream."""
    data = bytearray()
    while len(data) < count and (chunk := stream.read(min(CHUNK, count - len(data)))):
        data += chunk
    return data


def class_names(path: str, count: int, more: str = "") -> tuple[str, ...]:
    """Read class names, one per line, or number `count` classes where there is no such file.

    Raises DataError unless there are `count` different names; with a clause `more`, which says why
    there may be more, at least `count`.
    """
    if not os.path.lexists(path):
        return tuple(str(k) for k in range(count))
    with open_file(find_file(path, "the names of the classes")) as file:
        lines = file.read(MAX_NAMES).decode("utf-8", "replace").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if len(set(names)) != len(names) or len(names) < count or (len(names) > count and not more):
        raise DataError(
            f"{path}: holds {len(names)} names, {len(set(names))} of them different; expected "
            f"{count}{more}, one per line; mend the file, or remove it to have the classes numbered"
        )
    return names


def _mode(path: str) -> int | None:
    """Return the kind and permissions of what is at `path`, or None if nothing is."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise DataError(f"{path!r}: cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
