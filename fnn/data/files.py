"""Files from outside: found and opened, with an error that says what to mend."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from ..errors import DataError, did_you_mean


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
