"""Files from outside: found and opened, with an error that says what to mend."""

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
    """Return the path of the first name, as it is or with `.gz`, that the folder has."""
    paths = [os.path.join(folder, name) for name in with_gz(spellings)]
    for exists in (os.path.isfile, os.path.lexists):  # a file is better than a folder of that name
        for path in filter(exists, paths):
            return path
    return None


def with_gz(names: Sequence[str]) -> list[str]:
    """Return each name as it is and with `.gz`."""
    return [name + suffix for name in names for suffix in ("", ".gz")]


def nearest(folder: str, name: str) -> str:
    """Return the end of an error about a missing `name`: what in the folder is most like it."""
    if not os.path.isdir(folder):
        return f"; the folder {folder} does not exist either; check the path"
    with suppress(OSError):  # a folder may be searched but not listed
        return did_you_mean(name, os.listdir(folder)) or "; check the path"
    return "; check the path"


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading bytes; whatever the system refuses, then or later, is a DataError."""
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {_reason(error)}") from None


@contextmanager
def open_unpacked(path: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file, plain or gzip (told apart by its first bytes) -> its bytes, the most there are.

    A gzip stream is inflated as it is read; damage that comes to light then is a DataError.
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
    """Read `count` bytes, or as many as there are, piece by piece."""
    data = bytearray()
    while len(data) < count and (chunk := stream.read(min(CHUNK, count - len(data)))):
        data += chunk
    return data


def read_names(path: str) -> tuple[str, ...]:
    """Read the names of classes, one a line; empty lines are skipped."""
    with open_file(find_file(path, "the names of the classes")) as file:
        text = file.read(MAX_NAMES).decode("utf-8", "replace")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


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
