"""The JSON Schema of a config, with which an editor completes names and checks arguments."""

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from .choice import KINDS, SCHEMA_REF, arguments_of, table
from .config import Config


class _Untitled(GenerateJsonSchema):
    """Without titles, which would only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a config; every table is a definition of its own.

    The optimisers and schedules are those of the installed optax, whose version it contains.
    """
    import optax

    schema = Config.model_json_schema(schema_generator=_Untitled)
    definitions = schema.setdefault("$defs", {})
    definitions |= {kind: _choice(kind) for kind in KINDS}
    definitions["data"] = _data(definitions["dataset"])
    # pydantic refuses a $ref to a definition that it did not make, so it gets its name here.
    schema = json.loads(json.dumps(schema).replace(f'"{SCHEMA_REF}":', '"$ref":'))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
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
    choice = {
        "type": "object",
        "properties": arguments,
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    }
    return {"anyOf": [{"enum": bare}, choice]}


def _data(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a dataset's choice that may have `target` beside it."""
    names, mapping = dataset["anyOf"]
    target = {
        "description": "a transform of the labels",
        "anyOf": [{SCHEMA_REF: "#/$defs/transform"}, {"type": "null"}],
    }
    properties = mapping["properties"] | {"target": target}
    return {"anyOf": [names, mapping | {"properties": properties, "maxProperties": 2}]}
