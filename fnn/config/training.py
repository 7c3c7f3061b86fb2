"""How an experiment trains: how long, in which dtypes, and what else happens at a step."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from .section import Phrase, PositiveInt, Section, problem, shown
from .signature import Number


def _batch_size(value: Any) -> Any:
    if value == "full" or (type(value) is int and value >= 1):
        return value
    raise problem(f"expected a positive integer or 'full', got {shown(value)}")


def _switched_on(dtype: str) -> str:
    import jax

    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise problem(
            "float64 needs JAX's 64-bit types, which are off; set the environment variable "
            "JAX_ENABLE_X64=1, or write float32"
        )
    return dtype


BatchSize = Annotated[
    int | Literal["full"],
    PlainValidator(_batch_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "full"}]}),
]
PositiveNumber = Annotated[Number, Gt(0), Phrase("a number above 0")]
Decay = Annotated[Number, Gt(0), Lt(1), Phrase("a number above 0 and below 1")]
WideDType = Annotated[Literal["float32", "float64", "bfloat16"], AfterValidator(_switched_on)]
DType = Annotated[
    Literal["float32", "float64", "bfloat16", "float16"], AfterValidator(_switched_on)
]
Metric = Literal["train_loss", "test_loss", "test_accuracy"]


class Precision(Section):
    """The dtypes of a step. float16 is for `compute` alone, where the loss is scaled for it."""

    params: WideDType = Field(
        default="float32", description="of the parameters and the optimiser's state"
    )
    compute: DType = Field(default="float32", description="of the forward and the backward pass")
    reduce: WideDType = Field(default="float32", description="of the loss, from the outputs on")

    @property
    def wide(self) -> Literal["float32", "float64"]:
        """The parameters' dtype, or float32 if that is narrower: for what is summed over steps."""
        return "float64" if self.params == "float64" else "float32"


class Converge(Section):
    """Stop when |L(t) - L(t - window)| < epsilon, with L the training loss of an epoch."""

    epsilon: PositiveNumber = Field(description="the change of the loss to stop below")
    window: PositiveInt = Field(1, description="epochs between the two losses compared")


class EarlyStopping(Section):
    """Stop when the best of the last `patience` epochs is not better than the best before them."""

    metric: Metric = Field("test_loss", description="what is watched; an accuracy is to grow")
    patience: PositiveInt = Field(5, description="epochs to wait for something better")
    min_delta: Annotated[Number, Ge(0), Phrase("a number, 0 or more")] = Field(
        0.0, description="by how much more it must be better"
    )


class Train(Section):
    """How long to train, and on how many examples at a time."""

    epochs: PositiveInt = Field(description="passes over the training examples, at most")
    batch_size: BatchSize = Field(32, description="examples in a step; 1 is online, or `full`")
    converge: Converge | None = Field(None, description="stop earlier, once the loss stands still")
    early_stopping: EarlyStopping | None = Field(
        None, description="stop earlier, once a metric gets no better"
    )
    accumulate: PositiveInt = Field(
        1, description="steps whose mean gradient the optimiser takes as one"
    )
    average: Decay | None = Field(
        None, description="evaluate and keep an average of the parameters, with this decay a step"
    )
    on_nan: Literal["stop", "skip", "roll_back"] = Field(
        "stop",
        description="once a loss is not finite: stop; leave such steps out; or go back to the "
        "last checkpoint and on with the next batch",
    )
