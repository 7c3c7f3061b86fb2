"""A function of another library: its name, how `fnn.verify` is called with it, what it finds."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

Function = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One function: its public name, how it is called, and the defects "a, b" there are to find.

    `wrap` turns what the name stands for into a function of arrays: it fixes options, or hands a
    decorator the pieces of a rule. It runs only when the row is built, so that a library that is
    not installed costs its own rows and no others. `definition` stands in for a body that has no
    derivative, or none in reverse. `make test` tries the `quick` rows alone: one of each kind.
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
        """The package that has to be installed."""
        return self.name.partition(".")[0]

    @property
    def f(self) -> Function:
        """The function to verify."""
        named = public(self.name)
        return self.wrap(named) if self.wrap else named


def row(call: str, *args: Any, **options: Any) -> Row:
    """Return the row of "name" or "name: case"."""
    name, _, case = call.partition(": ")
    return Row(name, args, case=case, **options)


def public(name: str) -> Any:
    """Import the longest prefix of a dotted name that is a module, and look the rest up in it."""
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
