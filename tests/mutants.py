"""Configs with mistakes: the shipped ones, changed at random, as trees and as text.

A mutation does not know the meaning of the sections. It walks a tree of mappings, lists and scalars
beside the JSON Schema of configs, so new sections and new names are mutated too.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from fnn.config import json_schema
from fnn.config.choice import KINDS, table
from fnn.config.source import read_yaml

ROOT = Path(__file__).parents[1]
SHIPPED = {path.stem: path.read_text() for path in sorted((ROOT / "configs").glob("*.yaml"))}
STAND_INS = {  # for files that a test does not have
    "idx": {"noise": {"shape": [28, 28, 1], "examples": 20}},
    "cifar": {"noise": {"shape": [32, 32, 3], "examples": 20}},
}
SCHEMA = json_schema()
NAMES = sorted({str(name) for kind in KINDS for name in table(kind)})
KEYS = sorted(set(SCHEMA["properties"]) | {"features", "target", "learning_rate"})

PATHS = [
    *("../../x", "/etc/passwd", "/tmp/x", "..", ".", "", "~", "~root/x", "a/../../b", "x\0y"),
    *("/dev/zero", "/dev/stdin", "/proc/self/mem", "C:\\x", "file:///etc/passwd", "a" * 5000),
]
TEXTS = [
    *(
        "",
        " ",
        "é",
        "漢字",
        "\u202e\u200b",
        "\x1b[31mred",
        "a\nb: c",
        "\r",
        "\x00",
        "\ud800",
        "{n}",
    ),
    *("<script>alert(1)</script>", "%s%n{0}{hint}", "'\"`", "null", "1e-3", "no", "=", "a: b # c"),
    *("__import__('os').system('x')", "!!python/object:os.system", "${HOME}", "x" * 20_000),
]
NUMBERS = [
    *(0, 1, -1, 2, 3, 7, 64, 1000, 10**5, 10**9, 2**31, 2**32, 2**63, 2**64, 10**30, 10**99),
    *(-(2**63), -0.0, 0.5, 1e-3, 1e-45, 1e38, 1e39, 1e308, -1e308, math.inf, -math.inf, math.nan),
]
JUNK = st.recursive(
    st.sampled_from([None, True, False, *NUMBERS, *TEXTS, *PATHS, *NAMES, *KEYS])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYS, *NAMES, *TEXTS[:-1], 3]), inner, max_size=3)
    ),
    max_leaves=4,
)

Draw = Callable[[st.SearchStrategy], Any]
Schema = dict[str, Any]


@dataclass(frozen=True)
class Mutant:
    """The arguments of `fnn run`, and the names of the mutations that led to them."""

    text: str
    overrides: tuple[str, ...]
    how: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A value in a tree: its container, key, path and schemas."""

    holder: Any
    key: Any
    path: tuple[Any, ...]
    schemas: list[Schema]

    @property
    def value(self) -> Any:
        return self.holder[self.key]

    def put(self, value: Any) -> None:
        self.holder[self.key] = value


def variants(schema: Schema) -> list[Schema]:
    """Return the alternatives of a schema, with references resolved."""
    if "$ref" in schema:
        return variants(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    several = schema.get("anyOf") or schema.get("oneOf")
    if several:
        return [kind for one in several for kind in variants(one)]
    return [] if schema.get("enum") == [] else [schema]


def below(schemas: list[Schema], key: Any) -> list[Schema]:
    """Return the schemas of the value under `key`."""
    inner = [s.get("properties", {}).get(key) or s.get("items") for s in schemas]
    return [kind for schema in inner if schema for kind in variants(schema)]


def parts(holder: Any, path: tuple[Any, ...], schemas: list[Schema]) -> list[Part]:
    """Return all values below `holder`, each after its container."""
    values = []
    for key in range(len(holder)) if isinstance(holder, list) else list(holder):
        part = Part(holder, key, (*path, key), below(schemas, key))
        inside = isinstance(part.value, dict | list)
        values += [part, *(parts(part.value, part.path, part.schemas) if inside else ())]
    return values


def valid(draw: Draw, schemas: list[Schema], depth: int = 0) -> Any:
    """Draw a value that these schemas allow, mostly a plausible one."""
    if not schemas:
        return draw(JUNK)
    schema = draw(st.sampled_from(schemas))
    if "enum" in schema or "const" in schema:
        return draw(st.sampled_from(schema.get("enum") or [schema["const"]]))
    kinds = schema.get("type", "null")
    match kinds if isinstance(kinds, str) else kinds[0]:
        case "integer":
            return draw(st.integers(1, 8) | st.integers(0, 16) | st.sampled_from(NUMBERS[:16]))
        case "number":
            likely = st.floats(0, 1) | st.floats(0, 1) | st.integers(0, 8)
            return draw(likely | st.sampled_from(NUMBERS))
        case "boolean":
            return draw(st.booleans())
        case "string":
            return draw(st.sampled_from(["SAME", "x"]) | st.sampled_from([*PATHS, *TEXTS]))
        case "array":
            size = draw(st.integers(0, 3 - min(depth, 2)))
            return [valid(draw, below([schema], 0), depth + 1) for _ in range(size)]
        case "object" if schema.get("maxProperties") or depth < 4:
            return _mapping(draw, schema, depth)
        case _:
            return None


def _mapping(draw: Draw, schema: Schema, depth: int) -> Schema:
    fields, needed = schema.get("properties", {}), schema.get("required", [])
    if schema.get("maxProperties"):  # a choice: one name
        keys = [draw(st.sampled_from(sorted(fields)))]
    else:
        keys = [key for key in fields if key in needed or draw(st.integers(0, 3 + depth)) == 0]
    return {key: valid(draw, variants(fields[key]), depth + 1) for key in keys}


def _rename(draw, part, tree):
    old = str(part.key)
    at = draw(st.integers(0, len(old)))
    new = draw(st.sampled_from([old[:at] + old[at + 1 :], f"{old}s", *KEYS, *NAMES, *TEXTS[:-1]]))
    if isinstance(part.holder, dict):  # the order of the keys stays
        items = [(new if key == part.key else key, part.holder[key]) for key in part.holder]
        part.holder.clear()
        part.holder.update(items)
    else:
        part.put({new: part.value})


def _swap_name(draw, part, tree):
    """Replace a name by another of its table, with the same arguments."""
    name = _name(part.value)
    tables = [sorted(table(kind)) for kind in KINDS if name in list(table(kind))]
    other = draw(st.sampled_from(tables[0]))
    part.put({other: part.value[name]} if isinstance(part.value, dict) else other)


def _name(value: Any) -> Any:
    """Return the name of a choice, or None for any other value."""
    name = next(iter(value), None) if isinstance(value, dict) else value
    return name if isinstance(name, str) and name in NAMES else None


def _nudge(draw, part, tree):
    """Change a number, a little or a lot."""
    n = part.value
    near = [n + 1, n - 1, n * 2, n // 2 if isinstance(n, int) else n / 2]
    part.put(draw(st.sampled_from(near) | st.sampled_from(NUMBERS)))


def _repeat(draw, part, tree):
    times = draw(st.sampled_from([1, 1, 1, 2, 30]))
    part.holder[part.key : part.key] = [copy.deepcopy(part.value) for _ in range(times)]


def _add(draw, part, tree):
    """Add a key that the schema allows: an argument, a section, a layer."""
    value = part.value
    if isinstance(value, list):
        at = draw(st.integers(0, len(value)))
        value.insert(at, valid(draw, below(part.schemas, 0)))
        return
    if isinstance(value, str):
        part.put(value := {value: {}})
    if isinstance(value, dict) and (fields := _fields(part.schemas)):
        name = next(iter(value), "")
        inner = below(part.schemas, name)
        if _fields(inner) and (value[name] is None or isinstance(value[name], dict)):
            key = draw(st.sampled_from(_fields(inner)))
            value[name] = {**(value[name] or {}), key: valid(draw, below(inner, key))}
        else:
            key = draw(st.sampled_from(fields))
            value[key] = valid(draw, below(part.schemas, key))


def _fields(schemas: list[Schema]) -> list[str]:
    return sorted({key for schema in schemas for key in schema.get("properties", {})})


def _section(draw, part, tree):
    """Replace a section of the config by a drawn one."""
    key = draw(st.sampled_from(sorted(SCHEMA["properties"])))
    tree[key] = valid(draw, below([SCHEMA], key))


def in_list(part: Part) -> bool:
    return isinstance(part.holder, list)


def _transplant(draw, part, tree):
    part.put(copy.deepcopy(draw(st.sampled_from(parts(tree, (), []))).value))


def _down(draw, part, tree):
    part.put({draw(st.sampled_from([*KEYS, *NAMES, part.key])): part.value})


def _move(draw, part, tree):
    part.holder.insert(draw(st.integers(0, len(part.holder))), part.holder.pop(part.key))


ANYWHERE: dict[str, Callable] = {
    "delete": lambda draw, part, tree: part.holder.pop(part.key),
    "rename": _rename,
    "junk": lambda draw, part, tree: part.put(draw(JUNK)),
    "path": lambda draw, part, tree: part.put(draw(st.sampled_from(PATHS))),
    "transplant": _transplant,
    "wrap": lambda draw, part, tree: part.put([part.value] * draw(st.integers(0, 3))),
    "down": _down,
    "section": _section,
}
TREE_MUTATIONS: dict[str, tuple[Callable, Callable[[Part], Any]]] = {  # and the parts for each
    **{name: (make, lambda part: True) for name, make in ANYWHERE.items()},
    "up": (  # as if indented too little
        lambda draw, part, tree: part.holder.update(part.value),
        lambda part: isinstance(part.holder, dict) and isinstance(part.value, dict),
    ),
    "valid": (
        lambda draw, part, tree: part.put(valid(draw, part.schemas)),
        lambda part: part.schemas,
    ),
    "swap_name": (_swap_name, lambda part: _name(part.value)),
    "nudge": (_nudge, lambda part: type(part.value) in (int, float)),
    "repeat": (_repeat, in_list),
    "move": (_move, in_list),
    "add": (_add, lambda part: part.schemas and isinstance(part.value, dict | list | str)),
}
PLAUSIBLE = ["valid", "valid", "swap_name", "nudge", "repeat", "move", "add", "add"]
"""Mutations after which a config is mostly valid, so that layers and optimisers are checked too."""


def _edit(draw, text):
    start = draw(st.integers(0, len(text)))
    end = start + draw(st.integers(0, 6))
    junk = draw(st.text("{}[]:-&*!|>'\"%@`#,?\t\n\r x0.\x00\x1bé\ufeff\u2028", max_size=4))
    return text[:start] + junk + text[end:]


def _edit_line(draw, text):
    lines = text.splitlines()
    i, j = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    line = lines[i]
    key, colon, value = line.partition(":")
    several = [
        *([], [line, line], [f" {line}"], [f"\t{line}"], [line[1:]], [lines[j]]),
        *([f"{key}{colon} {tag} {value}"] for tag in TAGS),
        *([f"{key}{colon} &a {value}", "x: *a"], [line, "<<: *a"], [f"{key}: *a"]),
        *(["---", line], [line, "..."], ["%YAML 1.1", line], [f"{line} # #"], ["? a", line]),
        *([f"{line}\r"], [f"{key}{colon} |", f"  {value}"], [f"{key}{colon} '{value}'"]),
    ]
    new = draw(st.sampled_from(several))
    return "\n".join([*lines[:i], *new, *lines[i + 1 :]]) + "\n"


def _bomb(draw, text):
    """Aliases of aliases: a billion values in ten lines."""
    wide = draw(st.integers(2, 10))
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * wide)}]" for i in range(1, 20)]
    depth = draw(st.sampled_from([0, 10, 5000]))
    return "\n".join([*lines, text, f"deep: {'[' * depth}{']' * depth}"])


TAGS = ["!!python/object:os.system", "!!python/object/apply:os.system [x]", "!x", "!!int", "!!set"]
TEXT_MUTATIONS = {"edit": _edit, "edit_line": _edit_line, "bomb": _bomb}


def _override(draw: Draw, tree: Any) -> str:
    """Return `key=value` for a path of the tree, whole or damaged, and a value of any kind."""
    part = draw(st.sampled_from(parts(tree, (), [SCHEMA])))
    path = [str(key) for key in part.path]
    match draw(st.integers(0, 7)):
        case 0:
            path.append(draw(st.sampled_from([*KEYS, *NAMES, "0", "99", "", *TEXTS[:-1]])))
        case 1:
            path.pop()
        case 2:
            path[-1] = draw(st.sampled_from([*KEYS, *NAMES, "-1", "0", "1" * 5000, "é", "\0"]))
    value = valid(draw, part.schemas) if draw(st.booleans()) else draw(JUNK)
    written = _written(value, flow=True).removesuffix("\n").removesuffix("\n...")
    equals = draw(st.sampled_from(["="] * 20 + ["", "==", " = "]))
    text = f"{'.'.join(path)}{equals}{written}"
    return _edit(draw, text) if draw(st.integers(0, 9)) == 0 else text


def _written(tree: Any, flow: bool | None) -> str:
    return yaml.safe_dump(
        tree, default_flow_style=flow, sort_keys=False, allow_unicode=True, width=10**6
    )


@st.composite
def mutants(draw) -> Mutant:
    """Draw a shipped config with one to four mutations of its tree, its text or by overrides."""
    name = draw(st.sampled_from(sorted(SHIPPED)))
    text, how = SHIPPED[name], []
    tree, _ = read_yaml(text, name)
    (dataset,) = list(tree["data"])[:1] if isinstance(tree["data"], dict) else [tree["data"]]
    if dataset in STAND_INS and draw(st.integers(0, 4)):
        tree["data"] = copy.deepcopy(STAND_INS[dataset])
        text = _written(tree, flow=None)
    mild = draw(st.booleans())
    targets = draw(st.lists(st.sampled_from("TTTTo" if mild else "TTTTxo"), min_size=1, max_size=4))
    if "T" in targets:
        for _ in range(targets.count("T")):
            mutation = draw(st.sampled_from(PLAUSIBLE if mild else sorted(TREE_MUTATIONS)))
            make, suits = TREE_MUTATIONS[mutation]
            if places := [part for part in parts(tree, (), [SCHEMA]) if suits(part)]:
                make(draw, draw(st.sampled_from(places)), tree)
                how.append(mutation)
        text = _written(tree, flow=draw(st.sampled_from([None, False, True])))
    overrides = [_override(draw, tree) for _ in range(targets.count("o")) if tree]
    how += ["override"] * len(overrides)
    for _ in range(targets.count("x")):
        mutation = draw(st.sampled_from(["edit", "edit", "edit_line", "edit_line", "bomb"]))
        text = TEXT_MUTATIONS[mutation](draw, text)
        how.append(mutation)
    return Mutant(text, tuple(overrides), tuple(how))
