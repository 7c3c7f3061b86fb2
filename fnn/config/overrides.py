"""Changes to a config from the command line: `train.epochs=5`, `model.1.dense.features=64`.

A path names keys, and positions of lists counted from 0; the value is YAML. A path through
another name of the same table replaces the choice: `optimizer.sgd.learning_rate=0.1` on a config
with adam trains with sgd and this one argument, since sgd has no use for adam's.
"""

from typing import Any

from ..errors import ConfigError, printable
from .loader import read_yaml
from .origin import Key, Origins, dotted, split
from .section import shown
from .tables import KINDS, table


def override(data: Any, origins: Origins, text: str) -> Any:
    """Return `data`, a config as read from YAML, with one value set; note it in `origins`.

    Raises ConfigError for a text that is not `key=value`, and for a path that does not exist.
    """
    key, equals, value = text.partition("=")
    path, text = split(key.strip()), printable(text)
    if not equals or "" in path:
        raise ConfigError(f"override {text}: expected key=value, e.g. train.epochs=5")
    return _Override(text, path, origins).set(data, (), _value(value, f"override {text}"))


def _value(text: str, place: str) -> Any:
    try:
        value, _ = read_yaml(text, place)
    except ConfigError as error:  # its line is the only one there is
        raise ConfigError(str(error).replace(f"{place}:1:", f"{place}:", 1)) from None
    return value


class _Override:
    """One override on its way down the path."""

    def __init__(self, text: str, path: tuple[Key, ...], origins: Origins):
        self.text, self.path, self.origins = text, path, origins

    def set(self, value: Any, here: tuple[Key, ...], new: Any) -> Any:
        """Return `value`, which stands at `here`, with the rest of the path set to `new`."""
        if here == self.path:
            self.origins.add_override(here, self.text)
            return new
        key = self.path[len(here)]
        if isinstance(value, list):
            return self._set_item(value, here, new)
        mapping = self._as_mapping(value, here)
        for other in [other for other in mapping if other != key and _same_table(other, key)]:
            del mapping[other]
            self.origins.add_override((*here, key), self.text)
        return mapping | {key: self.set(mapping.get(key), (*here, key), new)}

    def _set_item(self, items: list[Any], here: tuple[Key, ...], new: Any) -> list[Any]:
        key = self.path[len(here)]
        if not isinstance(key, int) or key >= len(items):
            entries = [f"{dotted((*here, i))} ({_name(item)})" for i, item in enumerate(items)]
            raise ConfigError(
                f"override {self.text}: {dotted((*here, key))}: no such entry of a list; "
                f"its entries are {', '.join(entries) or 'none'}"
            )
        return [*items[:key], self.set(items[key], (*here, key), new), *items[key + 1 :]]

    def _as_mapping(self, value: Any, here: tuple[Key, ...]) -> dict[Key, Any]:
        """A name alone is a choice without arguments: `relu` is `{relu: }`."""
        if value is None:
            return {}
        if isinstance(value, dict):
            return dict(value)
        key = self.path[len(here)]
        if isinstance(value, str) and (value == key or _same_table(value, key)):
            return {value: None}
        raise ConfigError(
            f"override {self.text}: {dotted(here)}: is {shown(value)} and has no {key!r} below it"
        )


def _same_table(name: Key, other: Key) -> bool:
    return any(name in table(kind) and other in table(kind) for kind in KINDS)


def _name(item: Any) -> str:
    return printable(str(next(iter(item), "") if isinstance(item, dict) else item))
