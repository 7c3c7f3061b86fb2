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
    """Arrays or layers whose shapes do not fit together."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'adam'?` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
