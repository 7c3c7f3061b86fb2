"""A part of a config with named keys, whose errors say in plain words what is wrong.

pydantic finds the errors and their paths. This file rewrites each as the expected value, the
actual value and the closest key. Each message is rewritten once, by the section of its value.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Self

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
from .source import KeyPath, write_line

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
    """The values of a field in the words of an error: `an integer`, `a number or a schedule`."""

    text: str


PositiveInt = Annotated[int, Ge(1), Phrase("an integer, 1 or more")]
Count = Annotated[int, Ge(0), Phrase("an integer, 0 or more")]


class Section(BaseModel):
    """Keys and their types: strict, immutable, and no other key is allowed."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            raise problems(_explanations(error, cls.model_fields)) from None


def problem(message: str) -> PydanticCustomError:
    """Return an error whose message is final; its path is that of the validator that raises it."""
    return PydanticCustomError("problem", message)


def problems(messages: Iterable[tuple[KeyPath, str]]) -> ValidationError:
    """Return several final messages as one error, each with its path below the current one."""
    errors = [InitErrorDetails(type=problem(text), loc=path, input=None) for path, text in messages]
    return ValidationError.from_exception_data("config", errors)


def messages_of(error: ValidationError, below: KeyPath = ()) -> list[tuple[KeyPath, str]]:
    """Return the path and the message of each error that a Section has explained."""
    return [((*below, *part["loc"]), part["msg"]) for part in error.errors(include_url=False)]


def quote(value: Any) -> str:
    """Return a value as a user would write it, shortened: `'five'`, `true`, `{n: 1}`."""
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else write_line(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def not_empty(value: Any) -> Any:
    """Refuse an empty list before its entries are validated."""
    if value == []:
        raise problem("expected at least one entry, got []")
    return value


def any_of(phrases: Iterable[str]) -> str:
    """Return `a, b or c`."""
    *most, last = phrases
    return f"{', '.join(most)} or {last}" if most else last


def _explanations(
    error: ValidationError, fields: dict[str, FieldInfo]
) -> list[tuple[KeyPath, str]]:
    errors = error.errors(include_url=False)
    unknown = [str(part["loc"][0]) for part in errors if part["type"] == "extra_forbidden"]

    def is_misspelt(part: ErrorDetails) -> bool:
        """A misspelt key is one mistake, not also a missing key."""
        missing = [str(key) for key in part["loc"][:1] if part["type"] == "missing"]
        return any(did_you_mean(key, missing) for key in unknown)

    return [
        (_without_tags(part["loc"]), _message(part, fields))
        for part in errors
        if not is_misspelt(part)
    ]


def _without_tags(path: KeyPath) -> KeyPath:
    """Leave out the keys that pydantic adds and no file has: `<a schedule>`, `[key]`."""
    return tuple(key for key in path if not (isinstance(key, str) and key[:1] in ("<", "[")))


def _message(error: ErrorDetails, fields: dict[str, FieldInfo]) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    key = str(error["loc"][0]) if error["loc"] else ""
    # The field, if the error is about its whole value and not about a part of it.
    field = fields.get(key) if len(_without_tags(error["loc"])) == 1 else None
    notes = field.metadata if field else []
    phrase = next((note.text for note in notes if isinstance(note, Phrase)), "")
    if kind == "missing" and field and field.examples:
        line = write_line({key: field.examples[0]}).removeprefix("{").removesuffix("}")
        return f"missing section; add e.g. `{line}`"
    if kind == "missing":
        return f"missing argument; expected {phrase}"
    if kind in ("extra_forbidden", "invalid_key"):
        keys = f"; known keys: {', '.join(fields)}" if fields else "; it has no arguments"
        return f"unknown key {key!r}{did_you_mean(key, fields) or keys}"
    if kind in ("model_type", "model_attributes_type"):
        return _not_a_mapping(value, fields)
    if kind == "unknown_name" and isinstance(value, str) and " or " in phrase:
        return f"expected {phrase}, got {quote(value)}{context['hint']}"
    if kind in ("problem", "unknown_name"):
        return error["msg"]
    if kind == "wrong_kind":
        return f"{error['msg']}, got {quote(value)}"
    if kind == "tuple_type" and phrase:
        return f"expected {phrase}, got {quote(value)}"
    expected = _EXPECTED.get(kind, f"another value ({error['msg']})").format(**context)
    hint = did_you_mean(value, expected.split("'")[1::2]) if isinstance(value, str) else ""
    return f"expected {expected}, got {quote(value)}{hint}"


def _not_a_mapping(value: Any, fields: dict[str, FieldInfo]) -> str:
    if not fields:
        return f"it has no arguments, got {quote(value)}"
    is_scalar = isinstance(value, str | int | float)
    hint = f"; did you mean {quote({next(iter(fields)): value})}?" if is_scalar else ""
    return f"expected a mapping with the keys {', '.join(fields)}, got {quote(value)}{hint}"
