"""A config: the sections of an experiment, what they build, and how a file becomes a config.

An override is a change from the command line: `train.epochs=5`, `model.1.dense.features=64`. Its
path contains keys, and positions in lists counted from 0; its value is YAML. A path with another
name of the same table replaces the choice: if a config has adam, `optimizer.sgd.learning_rate=0.1`
trains with sgd and this argument, and drops the arguments of adam.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    Strict,
    ValidationError,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from ..errors import ConfigError, DataError, printable
from . import source
from .choice import KINDS, SCHEMA_REF, Chain, Choice, chooser, plain, table
from .section import Phrase, Section, messages_of, not_empty, problem, quote
from .source import Key, KeyPath, SourceLocations, format_path, parse_path
from .training import Checkpoint, Mesh, Precision, Processes, Sharding, Train

if TYPE_CHECKING:
    import optax

    from ..data import Dataset
    from ..layers import Serial

MAX_SEED = 2**32 - 1
MAX_LISTED = 20
"""Mistakes that an error lists; the first ones are corrected first."""
NAME_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$"


def _check_name(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name):
        raise problem(
            "expected a name for the run's folder: letters, digits, '_', '-' and '.', not '.' "
            f"first, at most 100, got {quote(name)}"
        )
    return name


FolderName = Annotated[
    str, AfterValidator(_check_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})
]
Layers = Annotated[
    tuple[Annotated[Choice, *chooser("layer")], ...],
    Strict(False),
    BeforeValidator(not_empty),
    Phrase("a list of layers"),
]


class Data(Section):
    """One dataset by name and, beside it, a transform of its labels."""

    dataset: Annotated[Choice, *chooser("dataset", siblings=("target",))] = Field(alias="<dataset>")
    target: Annotated[Choice, *chooser("transform")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _separate(cls, value: Any) -> Any:
        """Separate `target` from the choice of the dataset, `{digits: {...}}`."""
        if not isinstance(value, dict):
            return {"<dataset>": value}
        dataset = {key: value[key] for key in value if key != "target"}
        return {"<dataset>": dataset or None, **{k: value[k] for k in value if k == "target"}}

    @model_serializer
    def _join(self) -> dict[str, Any]:
        target = {} if self.target is None else {"target": plain(self.target)}
        return {self.dataset.name: plain(self.dataset.arguments)} | target


class Config(Section):
    """A whole experiment."""

    name: FolderName = Field(description="the name of the run's folder", examples=["digits_mlp"])
    seed: Annotated[int, Ge(0), Le(MAX_SEED)] = Field(
        0, description="the seed of the parameters and of the order of the examples"
    )
    data: Annotated[Data, WithJsonSchema({SCHEMA_REF: "#/$defs/data"})] = Field(examples=["digits"])
    model: Layers = Field(
        description="the layers, from the input to the output",
        json_schema_extra={"minItems": 1},
        examples=[["flatten", {"dense": {"features": 10}}]],
    )
    loss: Annotated[Choice, *chooser("loss")] = Field(
        description="the divergence between output and target", examples=["softmax_cross_entropy"]
    )
    optimizer: Annotated[Choice | Chain, *chooser("optimizer", is_list=True)] = Field(
        description="one optimiser of optax, or a list of transformations to apply in turn",
        examples=[{"adam": {"learning_rate": 0.001}}],
    )
    train: Train = Field(examples=[{"epochs": 20}])
    precision: Precision = Field(Precision(), description="the dtypes of a step")
    gradient: Literal["manual", "autodiff", "backprop"] = Field(
        "manual", description="hand-written rules, jax.grad, or the explicit backward pass"
    )
    mesh: Mesh | None = Field(None, description="several devices", examples=[{"data": 4}])
    sharding: Sharding = Field({}, description="paths of parameters, and how to split them")
    distributed: Processes = Field(None, description="several processes, or `auto`")
    checkpoint: Checkpoint = Field(
        default_factory=Checkpoint,
        description="when to write a checkpoint for fnn resume",
    )
    compare: bool = Field(
        False, description="compare hand-written rules with jax.grad at the end of training"
    )
    compilation_cache: FolderName | None = Field(
        "compiled", description="the folder of compiled programs in ~/.cache/fnn"
    )

    _locations: SourceLocations = PrivateAttr(default_factory=lambda: SourceLocations("<config>"))

    def model_post_init(self, context: Any) -> None:
        """Keep the source locations that `parse` passes as the context of the validation."""
        if context is not None:
            self._locations = context

    def where(self, path: str | KeyPath) -> str:
        """Return `configs/x.yaml:7` for a path such as `model.3.dense` or `model.3 dense`."""
        return self._locations.where(parse_path(path) if isinstance(path, str) else path)

    def where_layer(self, path: KeyPath) -> str:
        """Return the source location of a layer: `(3, "body", 0)` is the first of layer 3's body.

        A layer that no line of the config holds has the location of the model that contains it.
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

        Raises DataError, which begins with the line of the config that names the data.
        """
        dataset = self._load("data", self.data.dataset)
        if self.data.target is None:
            return dataset
        return self._load("data.target", self.data.target, dataset)

    def _load(self, key: str, choice: Choice, *inputs: Any) -> Any:
        path = (*parse_path(key), choice.name)
        try:
            return choice.build(*inputs)
        except DataError as error:
            location = f"{self.where(path)}: {format_path(path)}"
            raise DataError(printable(f"{location}: {error}")) from error

    def build_model(self) -> "Serial":
        """Return the layers in sequence."""
        from ..layers import Serial

        return Serial(tuple(layer.build() for layer in self.model))

    def build_loss(self) -> Any:
        """Return the loss, a function of output and target."""
        return self.loss.build()

    def build_optimizer(self) -> "optax.GradientTransformation":
        """Return the optimiser, or the chain of optimisers."""
        return self.optimizer.build()


def load(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a config from a YAML file and apply overrides such as `train.epochs=5`.

    Checks everything that needs no data: names, arguments and values. The layers, the loss and the
    optimiser are built once.

    Raises ConfigError: one line per mistake, each with the file and line or the override.
    """
    return parse(source.read_file(path), str(path), overrides)


def parse(text: str, filename: str = "<config>", overrides: Sequence[str] = ()) -> Config:
    """Read a config from YAML text; `filename` is its name in messages. See `load`."""
    data, locations = source.read_yaml(text, filename)
    sections = ", ".join(Config.model_fields)
    if data is None:
        raise ConfigError(f"{filename}: empty; a config has the sections {sections}")
    if not isinstance(data, dict):
        raise ConfigError(
            f"{filename}: expected a mapping with the sections {sections}, got {quote(data)}"
        )
    for override in overrides:
        data = _override(data, override, locations)
    try:
        return Config.model_validate(data, context=locations)
    except ValidationError as error:
        raise ConfigError(_listed(error, locations)) from None


def dump(config: Config) -> str:
    """Return YAML of the same config, with every default, one line per section and per layer."""
    return source.write_yaml(plain(config))


def _listed(error: ValidationError, locations: SourceLocations) -> str:
    messages = sorted(messages_of(error), key=lambda message: locations.order(message[0]))
    lines = [
        printable(f"{locations.where(path)}: {format_path(path)}: {text}")
        for path, text in messages
    ]
    more = [f"... and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
    return "\n".join(lines[:MAX_LISTED] + more)


def _override(data: Any, text: str, locations: SourceLocations) -> Any:
    """Return `data`, a config as read from YAML, with one value set; record it in `locations`.

    Raises ConfigError for a text that is not `key=value`, and for a path that does not exist.
    """
    key, equals, value = text.partition("=")
    path, text = parse_path(key.strip()), printable(text)
    if not equals or "" in path:
        raise ConfigError(f"override {text}: expected key=value, e.g. train.epochs=5")
    new_value = source.read_argument(value, f"override {text}")
    return _Override(text, path, new_value, locations).apply(data, 0)


class _Override:
    """One override on its way down the path."""

    def __init__(self, text: str, path: KeyPath, new_value: Any, locations: SourceLocations):
        self.text, self.path, self.new_value = text, path, new_value
        self.locations = locations

    def apply(self, value: Any, depth: int) -> Any:
        """Return `value`, which stands at `path[:depth]`, with the override applied to it."""
        if depth == len(self.path):
            self.locations.add_override(self.path, self.text)
            return self.new_value
        if isinstance(value, list):
            return self._apply_to_list(value, depth)
        key = self.path[depth]
        mapping = self._as_mapping(value, depth)
        for other in [other for other in mapping if other != key and _same_table(other, key)]:
            del mapping[other]
            self.locations.add_override(self.path[: depth + 1], self.text)
        return mapping | {key: self.apply(mapping.get(key), depth + 1)}

    def _apply_to_list(self, items: list[Any], depth: int) -> list[Any]:
        key, here = self.path[depth], self.path[:depth]
        if not isinstance(key, int) or key >= len(items):
            entries = [f"{format_path((*here, i))} ({_name(item)})" for i, item in enumerate(items)]
            message = f"no such entry of a list; its entries are {', '.join(entries) or 'none'}"
            raise self._error(depth + 1, message)
        return [*items[:key], self.apply(items[key], depth + 1), *items[key + 1 :]]

    def _as_mapping(self, value: Any, depth: int) -> dict[Key, Any]:
        """Return a mapping; a name alone is a choice without arguments: `relu` is `{relu: }`."""
        key = self.path[depth]
        if value is None or isinstance(value, dict):
            return dict(value or {})
        if isinstance(value, str) and (value == key or _same_table(value, key)):
            return {value: None}
        raise self._error(depth, f"is {quote(value)} and has no {key!r} below it")

    def _error(self, depth: int, message: str) -> ConfigError:
        return ConfigError(f"override {self.text}: {format_path(self.path[:depth])}: {message}")


def _same_table(name: Key, other: Key) -> bool:
    return any(name in table(kind) and other in table(kind) for kind in KINDS)


def _name(item: Any) -> str:
    return printable(str(next(iter(item), "") if isinstance(item, dict) else item))
