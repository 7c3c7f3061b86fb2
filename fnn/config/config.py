"""The experiment that a config says: its sections, and what they build."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    Strict,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ..errors import DataError, printable
from .checkpoint import Checkpoint
from .choice import SCHEMA_MARK, Chain, ChainChooser, Choice, Chooser, plain
from .devices import Mesh, Processes, Sharding
from .origin import Key, Origins, dotted, split
from .section import Phrase, Section, not_empty, problem, shown
from .training import Precision, Train

if TYPE_CHECKING:
    import optax

    from ..data import Dataset
    from ..layers import Serial

MAX_SEED = 2**32 - 1
NAME_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$"


def _folder_name(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name):
        raise problem(
            "expected a name for the run's folder: letters, digits, '_', '-' and '.', not '.' "
            f"first, at most 100, got {shown(name)}"
        )
    return name


FolderName = Annotated[
    str, AfterValidator(_folder_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})
]
Layers = Annotated[
    tuple[Annotated[Choice, Chooser("layer")], ...],
    Strict(False),
    BeforeValidator(not_empty),
    Phrase("a list of layers"),
]


class Data(Section):
    """One dataset by name and, beside it, what to ask of its labels."""

    dataset: Annotated[Choice, Chooser("dataset", siblings=("target",))] = Field(alias="<dataset>")
    target: Annotated[Choice, Chooser("transform")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _part(cls, value: Any) -> Any:
        """Take `target` out: what is left is the dataset's choice, `{digits: {...}}`."""
        if not isinstance(value, dict):
            return {"<dataset>": value}
        target = {"target": value["target"]} if "target" in value else {}
        return {"<dataset>": {key: value[key] for key in value if key != "target"} or None} | target

    @model_serializer
    def _join(self) -> dict[str, Any]:
        target = {} if self.target is None else {"target": plain(self.target)}
        return {self.dataset.name: plain(self.dataset.arguments)} | target

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Refer to the definition that `schema.py` writes."""
        return {SCHEMA_MARK: "data"}


class Config(Section):
    """A whole experiment."""

    name: FolderName = Field(description="what the run's folder is called", examples=["digits_mlp"])
    seed: Annotated[int, Ge(0), Le(MAX_SEED)] = Field(
        0, description="of the parameters and of the order of the examples"
    )
    data: Data = Field(examples=["digits"])
    model: Layers = Field(
        description="the layers, from the input to the output",
        json_schema_extra={"minItems": 1},
        examples=[["flatten", {"dense": {"features": 10}}]],
    )
    loss: Annotated[Choice, Chooser("loss")] = Field(
        description="the divergence from output to target", examples=["softmax_cross_entropy"]
    )
    optimizer: Annotated[Choice | Chain, ChainChooser("optimizer")] = Field(
        description="one optimiser of optax, or a list of transformations to apply in turn",
        examples=[{"adam": {"learning_rate": 0.001}}],
    )
    train: Train = Field(examples=[{"epochs": 20}])
    precision: Precision = Field(Precision(), description="the dtypes of a step")
    gradient: Literal["manual", "autodiff", "backprop"] = Field(
        "manual", description="hand-written rules, jax.grad, or the explicit backward pass"
    )
    mesh: Mesh | None = Field(None, description="several devices", examples=[{"data": 4}])
    sharding: Sharding = Field({}, description="parameters' paths, and how they are split")
    distributed: Processes = Field(None, description="several processes, or `auto`")

    checkpoint: Checkpoint = Field(
        default_factory=Checkpoint, description="what fnn resume goes on from"
    )
    compare: bool = Field(
        False, description="compare hand-written rules with jax.grad at the end of training"
    )
    compilation_cache: FolderName | None = Field(
        "compiled", description="where compiled programs are kept: a folder in ~/.cache/fnn"
    )

    _origins: Origins = PrivateAttr(default_factory=lambda: Origins("<config>"))

    def where(self, path: str | tuple[Key, ...]) -> str:
        """Return `configs/x.yaml:7` for a path such as `model.3.dense` or `model.3 dense`."""
        return self._origins.where(split(path) if isinstance(path, str) else path)

    def where_layer(self, path: tuple[Key, ...]) -> str:
        """Return the place of a layer: `(3, "body", 0)` is the first of layer 3's body.

        The parts of a layer that the config only names have the place of that name.
        """
        keys: list[Key] = ["model"]
        layers = self.model
        for part in path:
            if isinstance(part, str):
                choice = layers[int(keys[-1])]
                keys += [choice.name, part]
                layers = choice.arguments[part]
            elif isinstance(keys[-1], str):
                keys.append(part)
            else:
                break
        return self.where(tuple(keys))

    def load_dataset(self) -> "Dataset":
        """Load the data and apply the target's transform.

        Raises DataError, beginning with the line of the config that asked for it.
        """
        dataset = self._with_place(self.data.dataset)
        if self.data.target is None:
            return dataset
        return self._with_place(self.data.target, dataset, below=("target",))

    def build_model(self) -> "Serial":
        """Return the layers in sequence."""
        from ..layers import Serial

        return Serial(tuple(layer.build() for layer in self.model))

    def build_loss(self) -> Any:
        """Return the loss, a function of output and target."""
        return self.loss.build()

    def build_optimizer(self) -> "optax.GradientTransformation":
        """Return the optimiser, a chain where the config lists several."""
        return self.optimizer.build()

    def _with_place(self, choice: Choice, *inputs: Any, below: tuple[Key, ...] = ()) -> Any:
        path = ("data", *below, choice.name)
        try:
            return choice.build(*inputs)
        except DataError as error:
            raise DataError(printable(f"{self.where(path)}: {dotted(path)}: {error}")) from error
