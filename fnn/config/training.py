"""The sections about training: length, dtypes, checkpoints, devices and processes."""

import re
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from ..errors import did_you_mean
from ..metrics import MetricName
from .section import Count, Phrase, PositiveInt, Section, problem, quote
from .signature import DTypeName, Number


def _count_or(word: str) -> tuple[PlainValidator, WithJsonSchema]:
    """Return the validator and the JSON schema of a positive integer or one word."""

    def check(value: Any) -> Any:
        if value == word or (type(value) is int and value >= 1):
            return value
        raise problem(f"expected a positive integer or {word!r}, got {quote(value)}")

    schema = {"anyOf": [{"type": "integer", "minimum": 1}, {"const": word}]}
    return PlainValidator(check), WithJsonSchema(schema)


def _check_enabled(dtype: str) -> str:
    import jax

    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise problem(
            "float64 needs JAX's 64-bit types, which are off; set the environment variable "
            "JAX_ENABLE_X64=1, or write float32"
        )
    return dtype


BatchSize = Annotated[int | Literal["full"], *_count_or("full")]
PositiveNumber = Annotated[Number, Gt(0), Phrase("a number above 0")]
NumberFrom0 = Annotated[Number, Ge(0), Phrase("a number, 0 or more")]
Decay = Annotated[Number, Gt(0), Lt(1), Phrase("a number above 0 and below 1")]
WideDType = Annotated[Literal["float32", "float64", "bfloat16"], AfterValidator(_check_enabled)]
DType = Annotated[DTypeName, AfterValidator(_check_enabled)]


class Precision(Section):
    """The dtypes of a step. Only `compute` may be float16; the loss is then scaled for it."""

    params: WideDType = Field(
        default="float32", description="of the parameters and the optimiser's state"
    )
    compute: DType = Field(default="float32", description="of the forward and the backward pass")
    reduce: WideDType = Field(default="float32", description="of the loss, from the outputs on")

    @property
    def wide(self) -> Literal["float32", "float64"]:
        """The dtype of sums over steps: that of the parameters, but at least float32."""
        return "float64" if self.params == "float64" else "float32"


class Converge(Section):
    """Stop when |L(t) - L(t - window)| < epsilon, with L the training loss of an epoch."""

    epsilon: PositiveNumber = Field(description="stop if the loss changes by less")
    window: PositiveInt = Field(1, description="epochs between the two losses")


class EarlyStopping(Section):
    """Stop when the best of the last `patience` epochs is not better than the best before them."""

    metric: MetricName = Field("test_loss", description="the metric to watch")
    patience: PositiveInt = Field(5, description="epochs to wait for a better value")
    min_delta: NumberFrom0 = Field(0.0, description="the least improvement that counts")


class Train(Section):
    """How long to train, and on how many examples at a time."""

    epochs: PositiveInt = Field(description="passes over the training examples, at most")
    batch_size: BatchSize = Field(32, description="examples per step; 1 is online, `full` is all")
    converge: Converge | None = Field(None, description="stop early, once the loss is steady")
    early_stopping: EarlyStopping | None = Field(
        None, description="stop early, once a metric is steady"
    )
    accumulate: PositiveInt = Field(
        1, description="steps per update of the optimiser, which gets their mean gradient"
    )
    average: Decay | None = Field(
        None, description="evaluate and save an average of the parameters, with this decay per step"
    )
    on_nan: Literal["stop", "skip", "roll_back"] = Field(
        "stop",
        description="if a loss is not finite: stop, skip such steps, or return to the last "
        "checkpoint and continue with the next batch",
    )


class Checkpoint(Section):
    """A checkpoint is due after `steps` steps or `seconds` seconds, whichever comes first.

    It is written at the end of the compiled call in which it becomes due, and once more when
    training ends or is stopped. Its metrics are those at the end of an epoch.
    """

    steps: Count = Field(default=0, description="steps between checkpoints; 0 is never")
    seconds: NumberFrom0 = Field(
        default=60.0, description="seconds between checkpoints; 0 is never"
    )
    keep_last: PositiveInt = Field(default=2, description="how many of the last to keep")
    keep_best: Count = Field(
        default=0, description="how many of the best to keep, each from the end of an epoch"
    )
    metric: MetricName = Field(default="test_loss", description="the metric that ranks the best")

    def is_due(self, step: int, saved_step: int, seconds: float) -> bool:
        """Return whether one is due at `step`, `seconds` after that of `saved_step`."""
        steps_passed = self.steps and step // self.steps > saved_step // self.steps
        return bool(steps_passed or (self.seconds and seconds >= self.seconds))


class Mesh(Section):
    """A table of devices: rows split a batch, columns split the parameters of large layers."""

    data: Annotated[int | Literal["all"], *_count_or("all")] = Field(
        1, description="parts of a batch; `all` is as many as the devices allow"
    )
    model: PositiveInt = Field(1, description="parts that `sharding` can split parameters into")


_WORDS = ("fsdp", "replicate")
_AXES = (None, "data", "model")


def _check_sharding(value: Any) -> Any:
    if isinstance(value, str) and value in _WORDS:
        return value
    if not isinstance(value, list | tuple):
        hint = did_you_mean(value, _WORDS) if isinstance(value, str) else ""
        raise problem(
            "expected fsdp, replicate, or a list of data, model or null, one for each dimension, "
            f"got {quote(value)}{hint}"
        )
    for axis in value:
        if not (axis is None or isinstance(axis, str)) or axis not in _AXES:
            raise problem(f"expected data, model or null for each dimension, got {quote(axis)}")
        if axis is not None and value.count(axis) > 1:
            raise problem(f"expected {axis!r} for one dimension at most, got {quote(list(value))}")
    return tuple(value)


_SHARDING_SCHEMA = {"anyOf": [{"enum": _WORDS}, {"type": "array", "items": {"enum": _AXES}}]}
Sharding = dict[
    str, Annotated[Any, PlainValidator(_check_sharding), WithJsonSchema(_SHARDING_SCHEMA)]
]
"""Pattern of a parameter's path -> how to split it. The first pattern that matches applies."""


def _check_address(value: str) -> str:
    if not re.fullmatch(r"[^\s/]+:[0-9]{1,5}", value):
        raise problem(f"expected host:port, got {quote(value)}")
    return value


class Distributed(Section):
    """One of several processes. JAX takes missing fields from the cluster (Slurm, Kubernetes)."""

    address: Annotated[str, AfterValidator(_check_address)] | None = Field(
        None, description="host:port of process 0, for all others to reach"
    )
    processes: PositiveInt | None = Field(None, description="the number of processes")
    index: Count | None = Field(None, description="the number of this process, from 0")
    timeout: PositiveInt = Field(300, description="seconds to wait for the others at the start")


def _expand_auto(value: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        raise problem(f"expected auto or a mapping, got {quote(value)}")
    return {} if value == "auto" else value


Processes = Annotated[
    Distributed | None,
    BeforeValidator(_expand_auto, json_schema_input_type=Distributed | Literal["auto"] | None),
]
