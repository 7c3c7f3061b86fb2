"""The JSON Schema of a config, for an editor to complete names and to check arguments."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from .choice import SCHEMA_MARK, arguments_of
from .config import Config
from .tables import KINDS, table


class _Untitled(GenerateJsonSchema):
    """Without titles, which would only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a config; every table is a definition of its own.

    Its optimisers and schedules are those of the optax that is installed, which it names.
    """
    import optax

    schema = Config.model_json_schema(schema_generator=_Untitled)
    definitions = schema.setdefault("$defs", {})
    definitions |= {kind: _choice(kind) for kind in KINDS}
    definitions["data"] = _data(definitions["dataset"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_with_references(schema),
        "title": "fnn experiment",
        "$comment": f"optax {optax.__version__}",
    }


def _choice(kind: str) -> dict[str, Any]:
    arguments = {
        name: arguments_of(kind, name).model_json_schema(schema_generator=_Untitled)
        for name in table(kind)
    }
    bare = [name for name, schema in arguments.items() if "required" not in schema]
    for name in bare:
        arguments[name]["type"] = ["object", "null"]
    return {
        "anyOf": [
            {"enum": bare},
            {
                "type": "object",
                "properties": arguments,
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
            },
        ]
    }


def _data(dataset: dict[str, Any]) -> dict[str, Any]:
    names, mapping = dataset["anyOf"]
    target = {
        "description": "what to ask of the labels",
        "anyOf": [{SCHEMA_MARK: "transform"}, {"type": "null"}],
    }
    with_target = mapping | {
        "properties": mapping["properties"] | {"target": target},
        "maxProperties": 2,
    }
    return {"anyOf": [names, with_target]}


def _with_references(schema: Any) -> Any:
    """Turn each mark of a choice into a reference to its definition."""
    match schema:
        case {"x-fnn-choice": kind, **others}:
            return {"$ref": f"#/$defs/{kind}"} | others
        case dict():
            return {key: _with_references(value) for key, value in schema.items()}
        case list():
            return [_with_references(item) for item in schema]
        case _:
            return schema
