"""A choice: a name from a table, and the arguments of the callable with that name.

In YAML a choice is the name, `relu`, or a mapping with that one key, `{dense: {features: 10}}`.
Its arguments are checked against the callable's signature. The callable is then called once, so
that an error it raises is reported with its line.
"""

import functools
import inspect
import types
from collections import ChainMap
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn

from pydantic import (
    BaseModel,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from ..errors import FnnError, did_you_mean
from .section import Section, any_of, messages_of, not_empty, problem, problems, quote
from .signature import Form, NotWritableError, arguments_model
from .source import KeyPath

Table = Mapping[str, Callable[..., Any]]

SCHEMA_REF = "x-fnn-ref"  # a reference in a JSON schema to a definition that `schema.py` writes

_SEARCH = "its line search needs the loss at other parameters, a function that no step has"
_TREE = "it takes a tree like the parameters, which no config can write"
LEFT_OUT = {  # optax's optimisers that are not in the table, with the reason
    "freeze": _TREE,
    "lbfgs": _SEARCH,
    "lookahead": "it needs two copies of the parameters",
    "optimistic_adam": "optax deprecates it; use optimistic_adam_v2",
    "scale_by_backtracking_linesearch": _SEARCH,
    "scale_by_zoom_linesearch": _SEARCH,
    "selective_transform": _TREE,
    "with_extra_args_support": "it changes nothing",
}


@dataclass(frozen=True)
class Kind:
    """One kind of choice: its names in messages, and how its callables are called."""

    phrase: str
    plural: str
    inputs: int = 0  # leading arguments, which the program supplies and not the config
    is_pure: bool = True  # building it reads no file, so a config is checked by building it
    left_out: Mapping[str, str] = field(default_factory=dict)  # name -> reason


KINDS = {
    "dataset": Kind("a dataset", "datasets", is_pure=False),
    "transform": Kind("a transform", "transforms", inputs=1, is_pure=False),
    "layer": Kind("a layer", "layers"),
    "loss": Kind("a loss", "losses"),
    "initializer": Kind("an initializer", "initializers"),
    "optimizer": Kind("an optimizer", "optimizers", left_out=LEFT_OUT),
    "schedule": Kind("a schedule", "schedules"),
}


@functools.cache
def _tables() -> dict[str, Table]:
    from ..data import DATASETS, TRANSFORMS
    from ..init import INITIALIZERS
    from ..layers import LAYERS
    from ..loss import LOSSES
    from ..models import MODELS

    return {
        "dataset": DATASETS,
        "transform": TRANSFORMS,
        "layer": ChainMap(MODELS, LAYERS),
        "loss": LOSSES,
        "initializer": INITIALIZERS,
        "optimizer": _optax_rows("optimizer"),
        "schedule": _optax_rows("schedule"),
    }


def table(kind: str) -> Table:
    """Return the table that contains the names of this kind; the first call imports JAX."""
    return _tables()[kind]


def _optax_rows(kind: str) -> Table:
    """Return optax's public functions that return an optimiser or a schedule.

    A function is left out if a config cannot write an argument that it needs: a mask, a function.
    `optax.contrib` adds `reduce_on_plateau`, the optimiser that acts as a schedule.
    """
    import optax

    rows = {
        name: function
        for name, function in vars(optax).items()  # getattr warns of a deprecated name
        if isinstance(function, types.FunctionType | functools.partial)
        and not name.startswith("_")
        and name not in KINDS[kind].left_out
        and inspect.signature(function).return_annotation in _annotations()[kind]
        and _is_writable(name, function)
    }
    if kind == "optimizer":
        rows["reduce_on_plateau"] = optax.contrib.reduce_on_plateau
    return dict(sorted(rows.items()))


def _is_writable(name: str, function: Callable[..., Any]) -> bool:
    try:
        arguments_model(function, name, form_of_choice)
    except NotWritableError:
        return False
    return True


@functools.cache
def _annotations() -> dict[str, tuple[Any, ...]]:
    """Return the annotations of an argument that is itself a choice, by kind."""
    import optax

    from ..init import Initializer
    from ..layers import Layer

    return {
        "schedule": (optax.Schedule,),
        "optimizer": (optax.GradientTransformation, optax.GradientTransformationExtraArgs),
        "initializer": (Initializer,),
        "layer": (Layer,),
    }


@functools.cache
def arguments_of(kind: str, name: str) -> type[Section]:
    """Return the pydantic model of the arguments that a config may write for `name`."""
    return arguments_model(table(kind)[name], name, form_of_choice, KINDS[kind].inputs)


def form_of_choice(annotation: Any) -> Form | None:
    """Return how YAML writes an argument that is itself a choice: a schedule, an initialiser."""
    for kind, annotations in _annotations().items():
        if any(annotation == other for other in annotations):
            is_list = kind == "optimizer"
            choice: Any = Annotated[Choice | Chain, *chooser(kind, is_list=is_list)]
            yaml_types = {str, dict, list} if is_list else {str, dict}
            return Form(choice, KINDS[kind].phrase, frozenset(yaml_types))
    return None


@dataclass(frozen=True)
class Choice:
    """A name of a table with its arguments, checked and with every default filled in."""

    kind: str
    name: str
    arguments: dict[str, Any]

    def build(self, *inputs: Any) -> Any:
        """Call the named callable with these arguments; nested choices are built first.

        Raises whatever the callable raises.
        """
        arguments = {key: _build(value) for key, value in self.arguments.items()}
        return table(self.kind)[self.name](*inputs, **arguments)


@dataclass(frozen=True)
class Chain:
    """Optimisers to apply one after the other, as `optax.chain` does."""

    parts: tuple[Choice, ...]

    def build(self) -> Any:
        """Return one optax.GradientTransformation."""
        import optax

        return optax.chain(*(part.build() for part in self.parts))


def _build(value: Any) -> Any:
    match value:
        case Choice() | Chain():
            return value.build()
        case list() | tuple():
            return type(value)(_build(item) for item in value)
        case _:
            return value


def plain(value: Any) -> Any:
    """Return a validated value, such as a Config, as YAML writes it, with every default."""
    match value:
        case Choice():
            return {value.name: plain(value.arguments)} if value.arguments else value.name
        case Chain():
            return plain(value.parts)
        case BaseModel():
            return plain(value.model_dump())
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return value


@dataclass(frozen=True)
class Chooser:
    """Turns a YAML value into a Choice."""

    kind: str
    siblings: tuple[str, ...] = ()  # keys that the section reads before it passes the choice on
    is_list: bool = False  # whether a list is allowed too, which becomes a Chain

    def choose(self, value: Any) -> Any:
        """Return the Choice, or the Chain, of a YAML value.

        Raises pydantic's errors, each with its path below that of the choice.
        """
        if self.is_list and isinstance(value, list):
            return Chain(tuple(_PARTS.validate_python(not_empty(value))))
        name, arguments = self._name_and_arguments(value)
        try:
            model = arguments_of(self.kind, name).model_validate(arguments)
        except ValidationError as error:
            raise problems(messages_of(error, below=(name,))) from None
        choice = Choice(
            self.kind, name, {key: getattr(model, key) for key in type(model).model_fields}
        )
        if KINDS[self.kind].is_pure:
            _check_builds(choice)
        return choice

    def _name_and_arguments(self, value: Any) -> tuple[str, Any]:
        if isinstance(value, str):
            value = {value: None}
        if not isinstance(value, dict) or not value:
            phrase = KINDS[self.kind].phrase
            raise problem(f"expected {phrase}, its name or {{name: arguments}}, got {quote(value)}")
        if len(value) > 1:
            self._raise_many(value)
        (name,) = value
        if name not in table(self.kind):
            raise self._unknown(name)
        return name, {} if value[name] is None else value[name]

    def _unknown(self, name: Any) -> PydanticCustomError:
        names, kind = table(self.kind), KINDS[self.kind]
        text = str(name).lower()
        hint = _hint_at_longer(text, names) or did_you_mean(text, [*names, *self.siblings])
        hint = hint or f"; known {kind.plural}: {', '.join(names)}"
        if name in kind.left_out:
            hint = f", left out: {kind.left_out[name]}"
        # pydantic fills in the fields in this order, so only the last may contain braces
        context = {"kind": self.kind, "hint": hint, "name": quote(name)}
        return PydanticCustomError("unknown_name", "unknown {kind} {name}{hint}", context)

    def _raise_many(self, value: dict[Any, Any]) -> NoReturn:
        """Refuse the keys beside the choice, which mostly are its arguments, badly indented."""
        names = [key for key in value if key in table(self.kind)]
        if len(names) != 1:
            keys = ", ".join(str(key) for key in value)
            one = "; begin each with '- '" if self.kind == "layer" else ""
            hint = one if names else "; write {name: {arguments}}"
            raise problem(f"expected one {self.kind}, got the keys {keys}{hint}")
        (name,) = names
        fields = arguments_of(self.kind, name).model_fields
        messages: list[tuple[KeyPath, str]] = []
        for key in value:
            hint = did_you_mean(str(key), [*self.siblings, *fields, name])
            if key in fields:
                hint = f"; it is an argument of {name}: indent it further"
            if key != name:
                messages.append(((key,), f"unknown key {key!r} beside {name!r}{hint}"))
        raise problems(messages)


def chooser(kind: str, siblings: tuple[str, ...] = (), is_list: bool = False) -> tuple[Any, ...]:
    """Return what makes a type a choice for pydantic: `Annotated[Choice, *chooser("layer")]`.

    It validates with a Chooser, writes with `plain`, and refers to the JSON schema of the kind.
    """
    one = {SCHEMA_REF: f"#/$defs/{kind}"}
    several = {"type": "array", "items": one, "minItems": 1}
    schema = WithJsonSchema({"anyOf": [one, several]} if is_list else one)
    return PlainValidator(Chooser(kind, siblings, is_list).choose), PlainSerializer(plain), schema


_PARTS = TypeAdapter(list[Annotated[Choice, *chooser("optimizer")]])


def _hint_at_longer(text: str, names: Collection[str]) -> str:
    """Return a hint at the names that contain `text` as a word, such as `cosine` or `softmax`."""
    if text in names:  # it differs in case only
        return f"; did you mean {text!r}?"
    longer = [repr(name) for name in names if text and f"_{text}_" in f"_{name}_"]
    return f"; did you mean {any_of(longer)}?" if 0 < len(longer) <= 4 else ""


def _check_builds(choice: Choice) -> None:
    """Build the choice once. Any error is about the values in the config.

    A schedule is also called for its first value, since optax checks some arguments only then.
    """
    import jax

    try:
        result = choice.build()
        if choice.kind == "schedule":
            with jax.numpy_dtype_promotion("standard"):  # optax is written for this promotion
                jax.eval_shape(result, jax.ShapeDtypeStruct((), "int32"))
    except (FnnError, ValueError, TypeError) as error:
        message = str(error).removeprefix(f"{choice.name}: ")
        raise problems([((choice.name,), message)]) from None
    except Exception as error:
        message = f"cannot be built: {type(error).__name__}: {error}"
        raise problems([((choice.name,), message)]) from None
