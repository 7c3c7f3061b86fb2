"""YAML text to plain Python values, and the line every value stands on.

The reader takes YAML 1.2's plain scalars: `1e-3` is a number and `on`, `off`, `yes`, `no` are
texts, where YAML 1.1 (PyYAML's own rules) says the opposite. Duplicate keys, tags and aliases
that contain themselves are errors. Anchors and aliases work, up to a bound on the whole size.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode
from yaml.reader import ReaderError

from ..errors import ConfigError, did_you_mean
from .origin import Key, Origins, dotted

MAX_BYTES = 256 * 1024
MAX_VALUES = 50_000  # what a file may grow to by aliases of aliases

_YAML = "tag:yaml.org,2002:"
_DIGITS = "[0-9]+(?:_[0-9]+)*"
_POINT = rf"(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS})"  # 1.5, 1. and .5
_EXPONENT = "[eE][-+]?[0-9]+"
_SCALARS = {  # tag -> pattern, first letters
    "null": ("~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": ("true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (rf"[-+]?(?:0|(?!0){_DIGITS})", list("-+0123456789")),
    "float": (
        rf"[-+]?(?:{_POINT}(?:{_EXPONENT})?|{_DIGITS}{_EXPONENT}|\.(?:inf|Inf|INF))|\.(?:nan|NaN)",
        list("-+.0123456789"),
    ),
}
_HINTS = {  # part of PyYAML's message -> what the mistake mostly is
    r"\t": "indent with spaces, not with tabs",
    "mapping values": "look for a missing ':' or '-' above, or for a key indented too far",
    "expected ',' or": "look for a bracket that is not closed",
}


class Reader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's plain scalars and without tags."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own attribute)

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose one node; a tag such as `!!python/name` is an error."""
        tag = getattr(self.peek_event(), "tag", None)
        if tag is not None:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"the tag {tag!r} is not allowed", problem_mark=mark)
        return super().compose_node(parent, index)


for _tag, (_pattern, _first) in _SCALARS.items():
    Reader.add_implicit_resolver(_YAML + _tag, re.compile(f"^(?:{_pattern})$"), _first)


def read_file(path: Path | str) -> str:
    """Return the text of a config file.

    Raises ConfigError for a file that is missing, unreadable, too large or not UTF-8.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a config file in it, e.g. {_example(path)}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_beside(path)}") from None
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


def read_yaml(text: str, filename: str) -> tuple[Any, Origins]:
    """Return the value that `text` says and where each part of it stands.

    Raises ConfigError, with the line, for anything that is not plain YAML as described above.
    """
    reader = Reader("")
    try:
        reader = Reader(text)
        node = reader.get_single_node()
        values = _Values(filename)
        value = None if node is None else values.of(node, ())
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{filename}:{line}: not valid YAML: character {chr(error.character)!r} is not allowed"
        ) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_error(error, filename)) from None
    except RecursionError:
        raise ConfigError(f"{filename}: nested too deeply") from None
    finally:
        reader.dispose()
    return value, values.origins


class _Values:
    """Turns composed nodes into values, noting the place of each."""

    def __init__(self, filename: str):
        self.origins = Origins(filename)
        self.open: set[int] = set()  # the containers that the present node stands in
        self.count = 0

    def of(self, node: Node, path: tuple[Key, ...]) -> Any:
        self.origins.add_line(path, node.start_mark.line + 1)
        self.count += 1
        if self.count > MAX_VALUES:
            raise self._error(node, path, f"more than {MAX_VALUES} values, aliases written out")
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self.open:
            raise self._error(node, path, "an alias that contains itself")
        self.open.add(id(node))
        value = (
            self._mapping(node, path) if isinstance(node, MappingNode) else self._list(node, path)
        )
        self.open.remove(id(node))
        return value

    def _list(self, node: Any, path: tuple[Key, ...]) -> list[Any]:
        return [self.of(item, (*path, i)) for i, item in enumerate(node.value)]

    def _mapping(self, node: Any, path: tuple[Key, ...]) -> dict[Key, Any]:
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
            mapping[key] = self.of(value_node, (*path, key))
            self.origins.add_line((*path, key), line)
        return mapping

    def _key(self, node: Node, path: tuple[Key, ...]) -> Key:
        key = self._scalar(node, path) if isinstance(node, ScalarNode) else None
        if isinstance(key, bool) or not isinstance(key, str | int):
            what = f"{node.value!r}" if isinstance(node, ScalarNode) else "a list or a mapping"
            raise self._error(node, path, f"a key must be a text or an integer, got {what}")
        return key

    def _scalar(self, node: ScalarNode, path: tuple[Key, ...]) -> Any:
        text = node.value
        match node.tag.removeprefix(_YAML):
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" if len(text) > 100:
                raise self._error(node, path, f"a number of {len(text)} digits")
            case "int":
                return int(text)
            case "float":
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
            case _:
                return text

    def _error(self, node: Node, path: tuple[Key, ...], what: str) -> ConfigError:
        place = f"{self.origins.name}:{node.start_mark.line + 1}"
        return ConfigError(f"{place}: {dotted(path)}: {what}" if path else f"{place}: {what}")


def _syntax_error(error: yaml.MarkedYAMLError, filename: str) -> str:
    mark = error.problem_mark or error.context_mark
    place = filename if mark is None else f"{filename}:{mark.line + 1}"
    context = error.context or ""
    if context and mark and error.context_mark and error.context_mark.line != mark.line:
        context += f" begun on line {error.context_mark.line + 1},"
    problem = f"{context} {error.problem or ''}".strip()
    hint = next((f"; {hint}" for sign, hint in _HINTS.items() if sign in problem), "")
    return f"{place}: not valid YAML: {problem}{hint}"


def _example(folder: Path) -> str:
    return str(next(iter(sorted(folder.glob("*.yaml"))), folder / "digits_mlp.yaml"))


def _beside(path: Path) -> str:
    siblings = [str(file) for file in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    return did_you_mean(str(path), siblings)
