"""Where each value of a config was written: a line of the file, or an override."""

import re
from collections.abc import Iterable

from ..errors import printable

Key = str | int


def dotted(path: Iterable[Key]) -> str:
    """Return `model.1.dense` for `("model", 1, "dense")`; a key of blanks stands in quotes."""
    texts = (str(key) for key in path)
    return ".".join(printable(text) if text.strip() else repr(text) for text in texts)


def split(path: str) -> tuple[Key, ...]:
    """Return `("model", 1, "dense")` for `model.1.dense` or `model.1 dense`."""
    keys = re.split(r"[. ]", path)
    return tuple(int(key) if re.fullmatch("[0-9]{1,9}", key) else key for key in keys)


class Origins:
    """The place of every path of one config; a path not known has its parent's place."""

    def __init__(self, name: str):
        """Start with a file of this name and no known lines."""
        self.name = name
        self._lines: dict[tuple[Key, ...], int] = {}
        self._overrides: dict[tuple[Key, ...], str] = {}

    def add_line(self, path: tuple[Key, ...], line: int) -> None:
        """Note that the value at `path` stands on `line`."""
        self._lines[path] = line

    def add_override(self, path: tuple[Key, ...], override: str) -> None:
        """Note that `override` set the value at `path`, and all below it."""
        for known in [*self._lines, *self._overrides]:
            if known[: len(path)] == path:
                self._lines.pop(known, None)
                self._overrides.pop(known, None)
        self._overrides[path] = override

    def where(self, path: tuple[Key, ...]) -> str:
        """Return `configs/x.yaml:7`, `override train.epochs=5`, or the file's name alone.

        A value of the file that an override changed in part has both.
        """
        override, line = self._nearest(path)
        if override is not None:
            return f"override {override}"
        place = self.name if line is None else f"{self.name}:{line}"
        inside = [
            text for known, text in self._overrides.items() if path and known[: len(path)] == path
        ]
        return f"{place} with override {' '.join(inside)}" if inside else place

    def order(self, path: tuple[Key, ...]) -> tuple[bool, int]:
        """Return a sorting key: by line, then what the overrides say."""
        override, line = self._nearest(path)
        return override is not None, line or 0

    def _nearest(self, path: tuple[Key, ...]) -> tuple[str | None, int | None]:
        for length in range(len(path), 0, -1):
            if path[:length] in self._overrides:
                return self._overrides[path[:length]], None
            if path[:length] in self._lines:
                return None, self._lines[path[:length]]
        return None, None

    def __eq__(self, other: object) -> bool:
        """Two configs that say the same are equal, wherever each was written."""
        return isinstance(other, Origins)

    __hash__ = None  # type: ignore[assignment]
