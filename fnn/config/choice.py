"""A choice: a name out of a table, and the arguments of the callable it names.

In YAML a choice is the name, `relu`, or a mapping of that one key, `{dense: {features: 10}}`.
The arguments are checked against the callable's signature, and the callable is called once, so
that what it refuses is said with its line.
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from pydantic import GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ..errors import FnnError, did_you_mean
from .section import Place, Section, any_of, not_empty, places, problem, problems, shown
from .signature import Form, arguments_model
from .tables import KINDS, table

SCHEMA_MARK = "x-fnn-choice"  # stands in a JSON schema for the kind's own definition


@dataclass(frozen=True)
class Choice:
    """A name of a table and its arguments, checked and with every default filled in."""

    kind: str
    name: str
    arguments: dict[str, Any]

    def build(self, *inputs: Any) -> Any:
        """Call what the name stands for with these arguments, nested choices built first.

        Raises whatever the callable raises.
        """
        arguments = {key: _built(value) for key, value in self.arguments.items()}
        return table(self.kind)[self.name](*inputs, **arguments)


@dataclass(frozen=True)
class Chain:
    """Optimisers applied one after the other, as `optax.chain` does."""

    parts: tuple[Choice, ...]

    def build(self) -> Any:
        """Return one optax.GradientTransformation."""
        import optax

        return optax.chain(*(part.build() for part in self.parts))


def plain(value: Any) -> Any:
    """Return a validated value as YAML writes it, every default included."""
    match value:
        case Choice():
            return {value.name: plain(value.arguments)} if value.arguments else value.name
        case Chain():
            return plain(value.parts)
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return value


@functools.cache
def arguments_of(kind: str, name: str) -> type[Section]:
    """Return the pydantic model of the arguments that a config may give to `name`."""
    return arguments_model(table(kind)[name], name, nested_form, KINDS[kind].inputs)


def nested_form(annotation: Any) -> Form | None:
    """Return how an argument that is itself a choice is written: a schedule, an initialiser."""
    for kind, annotations in _annotations().items():
        if any(annotation == known for known in annotations):
            if kind == "optimizer":
                chain: Any = Annotated[Choice | Chain, ChainChooser(kind)]
                return Form(chain, KINDS[kind].phrase, frozenset({str, dict, list}))
            choice: Any = Annotated[Choice, Chooser(kind)]
            return Form(choice, KINDS[kind].phrase, frozenset({str, dict}))
    return None


@functools.cache
def _annotations() -> dict[str, tuple[Any, ...]]:
    import optax

    from ..init import Initializer
    from ..layers import Layer

    return {
        "schedule": (optax.Schedule,),
        "optimizer": (optax.GradientTransformation, optax.GradientTransformationExtraArgs),
        "initializer": (Initializer,),
        "layer": (Layer,),
    }


@dataclass(frozen=True)
class Chooser:
    """The pydantic type of a choice: `Annotated[Choice, Chooser("layer")]`."""

    kind: str
    siblings: tuple[str, ...] = ()  # keys that may stand beside the name; taken out before

    def choose(self, value: Any) -> Any:
        """Return the Choice that a YAML value says.

        Raises pydantic's errors, each with its place below the choice's own.
        """
        name, arguments = self._name_and_arguments(value)
        try:
            model = arguments_of(self.kind, name).model_validate(arguments)
        except ValidationError as error:
            raise problems(places(error, below=(name,))) from None
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
            raise problem(f"expected {phrase}, its name or {{name: arguments}}, got {shown(value)}")
        if len(value) > 1:
            self._raise_many(value)
        (name,) = value
        if name not in table(self.kind):
            raise self._unknown(name)
        return name, {} if value[name] is None else value[name]

    def _unknown(self, name: Any) -> PydanticCustomError:
        known, kind = table(self.kind), KINDS[self.kind]
        text = str(name).lower()
        hint = _completed(text, known) or did_you_mean(text, [*known, *self.siblings])
        hint = hint or f"; known {kind.plural}: {', '.join(known)}"
        if name in kind.left_out:
            hint = f", left out: {kind.left_out[name]}"
        # pydantic fills them in in this order: the last may have braces of its own
        context = {"kind": self.kind, "hint": hint, "name": shown(name)}
        return PydanticCustomError("unknown_name", "unknown {kind} {name}{hint}", context)

    def _raise_many(self, value: dict[Any, Any]) -> NoReturn:
        """One of the keys is the choice; the others are mostly its arguments, badly indented."""
        names = [key for key in value if key in table(self.kind)]
        if len(names) != 1:
            keys = ", ".join(str(key) for key in value)
            one = "; begin each with '- '" if self.kind == "layer" else ""
            hint = one if names else "; write {name: {arguments}}"
            raise problem(f"expected one {self.kind}, got the keys {keys}{hint}")
        name = names[0]
        fields = arguments_of(self.kind, name).model_fields
        found: list[tuple[Place, str]] = []
        for key in value:
            hint = did_you_mean(str(key), [*self.siblings, *fields, name])
            if key in fields:
                hint = f"; it is an argument of {name}: indent it further"
            if key != name:
                found.append(((key,), f"unknown key {key!r} beside {name!r}{hint}"))
        raise problems(found)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Validate with `choose` and write with `plain`."""
        return core_schema.no_info_plain_validator_function(
            self.choose, serialization=core_schema.plain_serializer_function_ser_schema(plain)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Refer to the definition of the kind, which `schema.py` writes."""
        return {SCHEMA_MARK: self.kind}


class ChainChooser(Chooser):
    """The pydantic type of one optimiser, or of a list of them to apply in turn."""

    def choose(self, value: Any) -> Any:
        """Return the Choice or the Chain that a YAML value says."""
        if not isinstance(value, list):
            return super().choose(value)
        return Chain(tuple(_OPTIMIZERS.validate_python(not_empty(value))))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Allow one choice or a list."""
        one = {SCHEMA_MARK: self.kind}
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


_OPTIMIZERS = TypeAdapter(list[Annotated[Choice, Chooser("optimizer")]])


def _completed(name: str, known: Collection[str]) -> str:
    """Return a hint at the names that a part of a name may stand for: `cosine`, `softmax`."""
    if name in known:  # but for upper case
        return f"; did you mean {name!r}?"
    longer = [repr(other) for other in known if name and f"_{name}_" in f"_{other}_"]
    return f"; did you mean {any_of(longer)}?" if 0 < len(longer) <= 4 else ""


def _built(value: Any) -> Any:
    match value:
        case Choice() | Chain():
            return value.build()
        case list() | tuple():
            return type(value)(_built(item) for item in value)
        case _:
            return value


def _check_builds(choice: Choice) -> None:
    """Build the choice once. Anything it raises is about the values that the config gave it.

    A schedule is asked for its first value as well: optax looks at some arguments only then.
    """
    import jax

    try:
        built = choice.build()
        if choice.kind == "schedule":
            with jax.numpy_dtype_promotion("standard"):  # which is what optax is written for
                jax.eval_shape(built, jax.ShapeDtypeStruct((), "int32"))
    except (FnnError, ValueError, TypeError) as error:
        message = str(error).removeprefix(f"{choice.name}: ")
        raise problems([((choice.name,), message)]) from None
    except Exception as error:
        message = f"cannot be built: {type(error).__name__}: {error}"
        raise problems([((choice.name,), message)]) from None
