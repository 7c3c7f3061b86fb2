"""What a config says of devices: the mesh, how parameters are split over it, several processes."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from ..errors import did_you_mean
from .section import Count, PositiveInt, Section, problem, shown

_WORDS = ("fsdp", "replicate")
_AXES = (None, "data", "model")


def _count(value: Any) -> Any:
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise problem(f"expected a positive integer or 'all', got {shown(value)}")


def _rule(value: Any) -> Any:
    if isinstance(value, str) and value in _WORDS:
        return value
    if not isinstance(value, list | tuple):
        hint = did_you_mean(value, _WORDS) if isinstance(value, str) else ""
        raise problem(
            "expected fsdp, replicate, or a list of data, model or null, one for each dimension, "
            f"got {shown(value)}{hint}"
        )
    for axis in value:
        if not (axis is None or isinstance(axis, str)) or axis not in _AXES:
            raise problem(f"expected data, model or null for each dimension, got {shown(axis)}")
        if axis is not None and value.count(axis) > 1:
            raise problem(f"expected {axis!r} for one dimension at most, got {shown(list(value))}")
    return tuple(value)


def _of_cluster(value: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        raise problem(f"expected auto or a mapping, got {shown(value)}")
    return {} if value == "auto" else value


def _address(value: str) -> str:
    if not re.fullmatch(r"[^\s/]+:[0-9]{1,5}", value):
        raise problem(f"expected host:port, got {shown(value)}")
    return value


class Mesh(Section):
    """The devices as a table: rows share a batch, columns share the parameters of large layers."""

    data: Annotated[
        int | Literal["all"],
        PlainValidator(_count),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "all"}]}),
    ] = Field(1, description="parts that a batch is split into; `all` that the devices allow")
    model: PositiveInt = Field(1, description="parts that `sharding` can split parameters into")


class Distributed(Section):
    """One of several processes. What is left out, JAX asks of the cluster (Slurm, Kubernetes)."""

    address: Annotated[str, AfterValidator(_address)] | None = Field(
        None, description="host:port of process 0, which all others can reach"
    )
    processes: PositiveInt | None = Field(None, description="how many there are")
    index: Count | None = Field(None, description="which of them this is, from 0")
    timeout: PositiveInt = Field(300, description="seconds to wait for the others at the start")


Sharding = dict[
    str,
    Annotated[
        Any,
        PlainValidator(_rule),
        WithJsonSchema({"anyOf": [{"enum": _WORDS}, {"type": "array", "items": {"enum": _AXES}}]}),
    ],
]
"""From patterns of parameters' paths to rules; the first that matches a parameter is its rule."""

Processes = Annotated[
    Distributed | None,
    BeforeValidator(_of_cluster, json_schema_input_type=Distributed | Literal["auto"] | None),
]
