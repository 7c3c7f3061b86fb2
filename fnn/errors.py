"""Errors that the user can correct.

The message of each names the actual value, the expected one, the place and the fix. The command
line prints it without a traceback and exits with status 2.
"""

import difflib
from collections.abc import Iterable


class FnnError(Exception):
    """A mistake in the input of fnn: a config, a file, a shape."""


class ConfigError(FnnError):
    """A config that does not describe a valid experiment."""


class DataError(FnnError):
    """A data file that is missing, damaged or of another format."""


class ShapeError(FnnError, ValueError):
    """Layers whose shapes do not fit together; `path` `(3,)` means layer 3 of the model."""

    def __init__(self, message: str, path: tuple[int | str, ...] = ()):
        super().__init__(message)
        self.path = path

    def inside(self, part: int | str) -> "ShapeError":
        """Return the error with its path as seen from the container of layer or branch `part`."""
        return ShapeError(self.args[0], (part, *self.path))

    def __str__(self) -> str:
        where = ".".join(("model", *map(str, self.path)))
        return f"{where} {self.args[0]}" if self.path else self.args[0]


def printable(text: str) -> str:
    """Return one line for a terminal: unprintable characters are escaped as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean 'adam'?` for the closest of `names`, or an empty string."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
