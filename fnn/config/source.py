"""The text of a config: YAML to plain values, the source location of each, and back to YAML.

The loader takes YAML 1.2's plain scalars: `1e-3` is a number and `on`, `off`, `yes`, `no` are
texts, where YAML 1.1 (PyYAML's own rules) says the opposite. Duplicate keys, tags and aliases
that contain themselves are errors. Anchors and aliases work, up to a bound on the whole size.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode
from yaml.reader import ReaderError

from ..errors import ConfigError, did_you_mean, printable

Key = str | int
KeyPath = tuple[Key, ...]
"""The keys and list positions that lead to a value: `("model", 1, "dense")`."""

MAX_BYTES = 256 * 1024
MAX_VALUES = 50_000  # in one file, with aliases expanded

_YAML = "tag:yaml.org,2002:"
_DIGITS = "[0-9]+(?:_[0-9]+)*"
_POINT = rf"(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS})"  # 1.5, 1. and .5
_EXPONENT = "[eE][-+]?[0-9]+"
_INF = r"\.(?:inf|Inf|INF)"
_SCALARS = {  # tag -> the texts that have it
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": rf"[-+]?(?:0|(?!0){_DIGITS})",
    "float": rf"[-+]?(?:{_POINT}(?:{_EXPONENT})?|{_DIGITS}{_EXPONENT}|{_INF})|\.(?:nan|NaN)",
}
_HINTS = {  # part of PyYAML's message -> the usual mistake
    r"\t": "indent with spaces, not with tabs",
    "mapping values": "look for a missing ':' or '-' above, or for a key indented too far",
    "expected ',' or": "look for a bracket that is not closed",
}


def format_path(path: Iterable[Key]) -> str:
    """Return `model.1.dense` for `("model", 1, "dense")`; a blank key stands in quotes."""
    texts = (str(key) for key in path)
    return ".".join(printable(text) if text.strip() else repr(text) for text in texts)


def parse_path(text: str) -> KeyPath:
    """Return `("model", 1, "dense")` for `model.1.dense` or `model.1 dense`."""
    keys = re.split(r"[. ]", text)
    return tuple(int(key) if re.fullmatch("[0-9]{1,9}", key) else key for key in keys)


def flatten(value: Any, path: KeyPath = ()) -> dict[str, Any]:
    """Return nested mappings and lists as one mapping by dotted key; an empty one is a value."""
    if not isinstance(value, Mapping | list) or not value:
        return {format_path(path): value}
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    return {k: v for key, item in items for k, v in flatten(item, (*path, key)).items()}


class SourceLocations:
    """The line or the override that set each value of a config."""

    def __init__(self, filename: str):
        self.filename = filename
        self._locations: dict[KeyPath, int | str] = {}  # a line, or the text of an override

    def add_line(self, path: KeyPath, line: int) -> None:
        """Record that the value at `path` stands on `line`."""
        self._locations[path] = line

    def add_override(self, path: KeyPath, override: str) -> None:
        """Record that `override` set the value at `path` and everything below it."""
        for below in [other for other in self._locations if other[: len(path)] == path]:
            del self._locations[below]
        self._locations[path] = override

    def where(self, path: KeyPath) -> str:
        """Return `configs/x.yaml:7`, `override train.epochs=5`, or the file's name alone.

        A path without a location has that of its parent. A value of the file that an override
        changed in part has both.
        """
        location = self._nearest(path)
        if isinstance(location, str):
            return f"override {location}"
        place = f"{self.filename}:{location}" if location else self.filename
        inside = [
            text
            for other, text in self._locations.items()
            if isinstance(text, str) and path and other[: len(path)] == path
        ]
        return f"{place} with override {' '.join(inside)}" if inside else place

    def order(self, path: KeyPath) -> tuple[bool, int]:
        """Return a sorting key: by line, then the overrides."""
        location = self._nearest(path)
        return (True, 0) if isinstance(location, str) else (False, location)

    def _nearest(self, path: KeyPath) -> int | str:
        starts = (path[:length] for length in range(len(path), 0, -1))
        return next((self._locations[start] for start in starts if start in self._locations), 0)

    def __eq__(self, other: object) -> bool:
        """Return true: configs with the same values are equal, wherever each was written."""
        return isinstance(other, SourceLocations)

    __hash__ = None  # type: ignore[assignment]


class PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's plain scalars, without tags, with source locations."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own attribute)

    def __init__(self, text: str, filename: str = ""):
        super().__init__(text)
        self.source_locations = SourceLocations(filename)
        self.open_nodes: set[int] = set()  # the containers around the current node
        self.count = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose one node; a tag such as `!!python/name` is an error."""
        tag = getattr(self.peek_event(), "tag", None)
        if tag is not None:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"the tag {tag!r} is not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def read(self, node: Node | None, path: KeyPath = ()) -> Any:
        """Return the value of a composed node and record the locations of its parts."""
        if node is None:
            return None
        self.source_locations.add_line(path, node.start_mark.line + 1)
        self.count += 1
        if self.count > MAX_VALUES:
            raise self._error(node, path, f"more than {MAX_VALUES} values, aliases written out")
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self.open_nodes:
            raise self._error(node, path, "an alias that contains itself")
        self.open_nodes.add(id(node))
        value = (
            self._mapping(node, path)
            if isinstance(node, MappingNode)
            else [self.read(item, (*path, i)) for i, item in enumerate(node.value)]
        )
        self.open_nodes.remove(id(node))
        return value

    def _mapping(self, node: Any, path: KeyPath) -> dict[Key, Any]:
        mapping: dict[Key, Any] = {}
        lines: dict[Key, int] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            line = key_node.start_mark.line + 1
            if key in lines:
                raise self._error(
                    key_node, (*path, key), f"duplicate key {key!r}, first on line {lines[key]}"
                )
            lines[key] = line
            mapping[key] = self.read(value_node, (*path, key))
            self.source_locations.add_line((*path, key), line)
        return mapping

    def _key(self, node: Node, path: KeyPath) -> Key:
        key = self._scalar(node, path) if isinstance(node, ScalarNode) else None
        if isinstance(key, bool) or not isinstance(key, str | int):
            text = f"{node.value!r}" if isinstance(node, ScalarNode) else "a list or a mapping"
            raise self._error(node, path, f"a key must be a text or an integer, got {text}")
        return key

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        if node.tag == f"{_YAML}int" and len(node.value) > 100:
            raise self._error(node, path, f"a number of {len(node.value)} digits")
        return self.construct_object(node)

    def _error(self, node: Node, path: KeyPath, message: str) -> ConfigError:
        place = f"{self.source_locations.filename}:{node.start_mark.line + 1}"
        return ConfigError(": ".join([place, *([format_path(path)] if path else []), message]))


class _PlainDumper(yaml.SafeDumper):
    """Quotes a text that YAML 1.1 or 1.2 would read as something else, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern in _SCALARS.items():
    for _class in (PlainLoader, _PlainDumper):
        _class.add_implicit_resolver(_YAML + _tag, re.compile(f"^(?:{_pattern})$"), None)


def read_file(path: Path | str) -> str:
    """Return the text of a config file.

    Raises ConfigError for a file that is missing, unreadable, too large or not UTF-8.
    """
    path = Path(path)
    if path.is_dir():
        example = next(iter(sorted(path.glob("*.yaml"))), path / "digits_mlp.yaml")
        raise ConfigError(f"{path}: is a folder; name a config file in it, e.g. {example}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        siblings = map(str, path.parent.glob("*.yaml"))
        raise ConfigError(f"{path}: no such file{did_you_mean(str(path), siblings)}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{path}: larger than {MAX_BYTES // 1024} KiB; a config is a page of text"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{data[error.start]:02x}"
        raise ConfigError(f"{path}:{line}: {byte} is not UTF-8; save the file as UTF-8") from None


def read_yaml(text: str, filename: str) -> tuple[Any, SourceLocations]:
    """Return the value of a YAML text and the source locations of its parts.

    Raises ConfigError, with the line, for anything that is not plain YAML as described above.
    """
    try:
        loader = PlainLoader(text, filename)
        return loader.read(loader.get_single_node()), loader.source_locations
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{filename}:{line}: not valid YAML: character {chr(error.character)!r} is not allowed"
        ) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_error(error, filename)) from None
    except RecursionError:
        raise ConfigError(f"{filename}: nested too deeply") from None


def read_argument(text: str, place: str) -> Any:
    """Return the YAML value of a command-line argument, which has one line and no line number.

    Raises ConfigError, beginning with `place`.
    """
    try:
        return read_yaml(text, place)[0]
    except ConfigError as error:
        raise ConfigError(str(error).replace(f"{place}:1:", f"{place}:", 1)) from None


def _syntax_error(error: yaml.MarkedYAMLError, filename: str) -> str:
    mark = error.problem_mark or error.context_mark
    place = filename if mark is None else f"{filename}:{mark.line + 1}"
    context = error.context or ""
    if context and mark and error.context_mark and error.context_mark.line != mark.line:
        context += f" begun on line {error.context_mark.line + 1},"
    problem = f"{context} {error.problem or ''}".strip()
    hint = next((f"; {hint}" for sign, hint in _HINTS.items() if sign in problem), "")
    return f"{place}: not valid YAML: {problem}{hint}"


def write_yaml(sections: Mapping[str, Any]) -> str:
    """Return YAML of a config's sections: one line per section, and one per entry of a list."""
    lines: list[str] = []
    for key, value in sections.items():
        lines += [f"{key}:" if isinstance(value, list) else f"{key}: {write_line(value)}"]
        lines += [f"  - {_entry(entry)}" for entry in value] if isinstance(value, list) else []
    return "\n".join(lines) + "\n"


def write_line(value: Any) -> str:
    """Return a value as one line of YAML: `{features: 10}`."""
    text = yaml.dump(
        value, Dumper=_PlainDumper, default_flow_style=True, sort_keys=False, width=10**6
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _entry(choice: Any) -> str:
    """Return `dense: {features: 10}`, without the outer braces."""
    if isinstance(choice, str):
        return write_line(choice)
    return ", ".join(f"{write_line(name)}: {write_line(args)}" for name, args in choice.items())
