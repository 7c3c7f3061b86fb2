"""A part of a config that has named keys, and says in plain words what is wrong with them.

pydantic finds the errors and their places; this file rewrites each into what was expected, what
came, and the closest key. A message is rewritten once, by the section it belongs to.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Self

import yaml
from annotated_types import Ge
from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from ..errors import did_you_mean

Place = tuple[int | str, ...]

_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "none_required": "null",
    "literal_error": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "{le} or less",
}


@dataclass(frozen=True)
class Phrase:
    """What a field takes, as an error says it: `an integer`, `a number or a schedule`."""

    text: str


PositiveInt = Annotated[int, Ge(1), Phrase("an integer, 1 or more")]
Count = Annotated[int, Ge(0), Phrase("an integer, 0 or more")]


class Section(BaseModel):
    """Keys and their types; strict, immutable, and no key beside them."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            raise problems(_explained(error.errors(include_url=False), cls.model_fields)) from None


def problem(message: str) -> PydanticCustomError:
    """Return an error whose message is final; it belongs to the place it is raised from."""
    return PydanticCustomError("problem", message)


def problems(found: Iterable[tuple[Place, str]]) -> ValidationError:
    """Return several final messages as one error, each with its place below the present one."""
    errors = [InitErrorDetails(type=problem(text), loc=place, input=None) for place, text in found]
    return ValidationError.from_exception_data("config", errors)


def shown(value: Any) -> str:
    """Return a value as a user would write it, shortened: `'five'`, `true`, `{n: 1}`."""
    match value:
        case None:
            return "nothing"
        case str():
            text = repr(value)
        case _:
            text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
            text = text.removesuffix("\n").removesuffix("\n...")
    return text if len(text) <= 60 else f"{text[:57]}..."


def not_empty(value: Any) -> Any:
    """Refuse an empty list, before its entries are looked at."""
    if value == []:
        raise problem("expected at least one entry, got []")
    return value


def any_of(phrases: Iterable[str]) -> str:
    """Return `a, b or c`."""
    *most, last = phrases
    return f"{', '.join(most)} or {last}" if most else last


def places(error: ValidationError, below: Place = ()) -> list[tuple[Place, str]]:
    """Return the place and the message of each error, for errors that a Section has explained."""
    return [((*below, *found["loc"]), found["msg"]) for found in error.errors(include_url=False)]


def _explained(errors: list[ErrorDetails], fields: dict[str, FieldInfo]) -> list[tuple[Place, str]]:
    unknown = [str(error["loc"][0]) for error in errors if error["type"] == "extra_forbidden"]

    def is_misspelt(error: ErrorDetails) -> bool:
        """A misspelt key is one mistake, not also a missing key."""
        missing = [str(key) for key in error["loc"][:1] if error["type"] == "missing"]
        return any(did_you_mean(key, missing) for key in unknown)

    return [
        (_without_tags(error["loc"]), _message(error, fields))
        for error in errors
        if not is_misspelt(error)
    ]


def _without_tags(place: Place) -> Place:
    """Leave out what pydantic adds to a place and no file says: `<a schedule>`, `[key]`."""
    return tuple(key for key in place if not (isinstance(key, str) and key[:1] in ("<", "[")))


def _message(error: ErrorDetails, fields: dict[str, FieldInfo]) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    field = _field(error["loc"], fields)
    if kind == "missing":
        return _missing(str(error["loc"][0]), field)
    if kind in ("extra_forbidden", "invalid_key"):
        key = str(error["loc"][0])
        return f"unknown key {key!r}{did_you_mean(key, fields) or _known(fields)}"
    if kind in ("model_type", "model_attributes_type"):
        return _no_mapping(value, fields)
    if kind == "unknown_name" and isinstance(value, str) and " or " in _phrase(field):
        return f"expected {_phrase(field)}, got {shown(value)}{context['hint']}"
    if kind in ("problem", "unknown_name"):
        return error["msg"]
    if kind == "wrong_kind":
        return f"{error['msg']}, got {shown(value)}"
    if kind == "tuple_type" and _phrase(field):
        return f"expected {_phrase(field)}, got {shown(value)}"
    expected = _EXPECTED.get(kind, f"another value ({error['msg']})").format(**context)
    hint = did_you_mean(value, expected.split("'")[1::2]) if isinstance(value, str) else ""
    return f"expected {expected}, got {shown(value)}{hint}"


def _field(place: Place, fields: dict[str, FieldInfo]) -> FieldInfo | None:
    """Return the field that an error is about as a whole, not about a part of its value."""
    return fields.get(str(place[0])) if len(_without_tags(place)) == 1 else None


def _phrase(field: FieldInfo | None) -> str:
    notes = field.metadata if field else []
    return next((note.text for note in notes if isinstance(note, Phrase)), "")


def _missing(key: str, field: FieldInfo | None) -> str:
    if field and field.examples:
        line = shown({key: field.examples[0]}).removeprefix("{").removesuffix("}")
        return f"missing section; add e.g. `{line}`"
    return f"missing argument; expected {_phrase(field)}"


def _no_mapping(value: Any, fields: dict[str, FieldInfo]) -> str:
    if not fields:
        return f"it has no arguments, got {shown(value)}"
    is_scalar = isinstance(value, str | int | float)
    hint = f"; did you mean {shown({next(iter(fields)): value})}?" if is_scalar else ""
    return f"expected a mapping with the keys {', '.join(fields)}, got {shown(value)}{hint}"


def _known(fields: Iterable[str]) -> str:
    return f"; known keys: {', '.join(fields)}" if fields else "; it has no arguments"
