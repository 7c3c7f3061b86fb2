"""What a user can get wrong.

Every error of this family is the user's to mend, so its message says what came, what was
expected, where, and the fix; the command line prints it without a traceback and exits with 2.
"""

import difflib
from collections.abc import Iterable


class FnnError(Exception):
    """A mistake in what fnn was given: a config, a file, a shape."""


class ConfigError(FnnError):
    """A config that does not say a valid experiment."""


class DataError(FnnError):
    """A data file that is missing, damaged or not what it says."""


class ShapeError(FnnError, ValueError):
    """Layers whose shapes do not fit together; `path` is where: `(3,)` is the model's layer 3."""

    def __init__(self, message: str, path: tuple[int | str, ...] = ()):
        super().__init__(message)
        self.path = path

    def inside(self, part: int | str) -> "ShapeError":
        """Return the error as the container sees it, whose layer or branch `part` raised it."""
        return ShapeError(self.args[0], (part, *self.path))

    def __str__(self) -> str:
        where = ".".join(("model", *map(str, self.path)))
        return f"{where} {self.args[0]}" if self.path else self.args[0]


def printable(text: str) -> str:
    """Return one line that a terminal can show: what is not printable, escaped as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'adam'?` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
