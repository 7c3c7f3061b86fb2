"""A function of another library: its name, its arguments, the defects that `fnn.verify` finds."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

Function = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One function: its public name, its arguments, and the expected defects "a, b".

    `wrap` turns the named object into a function of arrays: it fixes options, or passes a rule to a
    decorator. It runs only when the row is verified, so a missing library affects its own rows
    alone. `definition` replaces a body without a derivative, or without one in reverse. `make test`
    verifies the `quick` rows alone: one per kind.
    """

    name: str
    args: tuple[Any, ...]
    statics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    case: str = ""
    wrap: Callable[[Any], Function] | None = None
    definition: Function | None = None
    expected: str = ""
    quick: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.case}" if self.case else self.name

    @property
    def library(self) -> str:
        """The package that must be installed."""
        return self.name.partition(".")[0]

    @property
    def f(self) -> Function:
        """The function to verify."""
        function = public(self.name)
        return self.wrap(function) if self.wrap else function


def row(call: str, *args: Any, **options: Any) -> Row:
    """Return the row of a call "name" or "name: case"."""
    name, _, case = call.partition(": ")
    return Row(name, args, case=case, **options)


def public(name: str) -> Any:
    """Return the object of a dotted name, from the longest prefix that is a module."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if not name.startswith(f"{error.name}."):
                raise
            continue
        return functools.reduce(getattr, parts[end:], module)
    raise ModuleNotFoundError(f"no module holds {name}", name=parts[0])


def fix(*args: Any, **options: Any) -> Callable[[Function], Function]:
    """Fix trailing arguments and options of a function."""
    return lambda f: lambda *arrays: f(*arrays, *args, **options)
