"""A callable's signature as a pydantic model: what a config may write as its arguments.

Annotations become types that YAML can say:

    int, bool, str, Literal, lists and mappings of these      themselves, strictly
    float, and optax's and jax's unions of array-likes        a number
    Initializer, Schedule, GradientTransformation, Layer      a choice by name (see choice.py)
    X | Y                                                     one of them, by the kind of value
    anything else (a mask, a callable)                        cannot be written: left out

A parameter named after a dtype is one of the floating dtypes, by name.
"""

import dataclasses
import functools
import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import Discriminator, Field, PlainValidator, Strict, Tag, WithJsonSchema, create_model

from .section import Phrase, Section, any_of, problem, shown


@dataclass(frozen=True)
class Form:
    """How an argument is written: its pydantic type, its name in a message, its YAML types."""

    type: Any
    phrase: str
    takes: frozenset[type]


Nested = Callable[[Any], Form | None]


class NotWritableError(TypeError):
    """A callable that needs an argument which no config can write."""


MAX_NUMBER = 2**128 - 2**104  # the largest of float32, which is what computes with it
MIN_INTEGER, MAX_INTEGER = -(2**31), 2**32 - 1
"""Integers are 32 bits wide: signed where they count or measure, unsigned where they are seeds."""


def number(value: Any) -> int | float:
    """Return a finite int or float as it is, but an int of more than 32 bits as a float.

    JAX refuses such an int. true is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise problem(f"expected a number, got {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise problem(f"expected a finite number, got {shown(value)}")
    if abs(value) > MAX_NUMBER:
        raise problem(f"expected a number within ±3.4e38, as float32 has it, got {shown(value)}")
    return value if abs(value) < 2**31 else float(value)


Number = Annotated[float, PlainValidator(number), WithJsonSchema({"type": "number"})]

_DTYPE = Literal["float32", "float64", "bfloat16", "float16"]
_PLAIN = {
    int: Form(
        Annotated[int, Strict(), Ge(MIN_INTEGER), Le(MAX_INTEGER)], "an integer", frozenset({int})
    ),
    float: Form(Number, "a number", frozenset({int, float})),
    bool: Form(Annotated[bool, Strict()], "true or false", frozenset({bool})),
    str: Form(Annotated[str, Strict()], "a text", frozenset({str})),
    types.NoneType: Form(None, "null", frozenset({types.NoneType})),
}


def summary(function: Callable[..., Any]) -> str:
    """Return the first line of a callable's docstring."""
    if isinstance(function, functools.partial):
        function = function.func
    return (inspect.getdoc(function) or "").partition("\n")[0]


def arguments_model(
    function: Callable[..., Any], name: str, nested: Nested, inputs: int = 0
) -> type[Section]:
    """Return the pydantic model of a callable's arguments, without its first `inputs` ones.

    `nested` gives the form of annotations that are choices, or None for all others.

    Raises NotWritableError where a parameter without a default cannot be written in YAML.
    """
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())[inputs:]
    fields: dict[str, Any] = {}
    for parameter in parameters:
        form = _form_of_parameter(parameter, nested)
        required = parameter.default is parameter.empty
        if form is not None:
            default = Field() if required else _default(function, parameter)
            fields[parameter.name] = (Annotated[form.type, Phrase(form.phrase)], default)
        elif required and parameter.kind is not parameter.VAR_KEYWORD:
            raise NotWritableError(f"{name}: argument {parameter.name!r} cannot be written in YAML")
    return create_model(name, __base__=Section, __doc__=summary(function), **fields)


def _form_of_parameter(parameter: inspect.Parameter, nested: Nested) -> Form | None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return None
    annotation, default = parameter.annotation, parameter.default
    if annotation is parameter.empty:
        annotation = type(default)
    if "dtype" in parameter.name:
        annotation = _DTYPE
    if default is None:
        annotation = Union[annotation, None]  # noqa: UP007 (the members need not be types)
    return form_of(annotation, nested)


def form_of(annotation: Any, nested: Nested) -> Form | None:
    """Return how a value of this annotation is written in YAML, or None if it cannot be."""
    if annotation is None:
        annotation = types.NoneType
    form = nested(annotation) or _PLAIN.get(annotation) if _hashable(annotation) else None
    if form is not None:
        return form
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = form_of(arguments[0], nested)
        return inner and replace(inner, type=Annotated[inner.type, *arguments[1:]])
    if origin in (Union, types.UnionType):
        return _union(arguments, nested)
    if origin is Literal:
        phrase = any_of(repr(value) for value in arguments)
        return Form(annotation, phrase, frozenset(type(value) for value in arguments))
    if origin in (list, tuple, Sequence, Iterable):
        return _list(arguments, nested)
    if origin in (dict, Mapping):
        return _mapping(arguments, nested)
    return None


def _list(arguments: tuple[Any, ...], nested: Nested) -> Form | None:
    items = {argument for argument in arguments if argument is not ...}
    item = form_of(items.pop(), nested) if len(items) == 1 else None
    if item is None:
        return None
    form: Any = tuple[item.type, ...]  # type: ignore[name-defined]
    return Form(Annotated[form, Strict(False)], f"a list, each {item.phrase}", frozenset({list}))


def _mapping(arguments: tuple[Any, ...], nested: Nested) -> Form | None:
    key, value = (form_of(argument, nested) for argument in arguments)
    if key is None or value is None:
        return None
    form: Any = dict[key.type, value.type]  # type: ignore[name-defined]
    return Form(form, f"a mapping from {key.phrase} to {value.phrase}", frozenset({dict}))


def _union(members: tuple[Any, ...], nested: Nested) -> Form | None:
    if float in members:  # an array-like: bool, int and complex stand in it beside float
        members = tuple(member for member in members if member not in (int, bool, complex))
    forms = [form for member in members if (form := form_of(member, nested)) is not None]
    forms.sort(key=lambda form: types.NoneType in form.takes)  # "a number or null", null last
    if not forms or types.NoneType in forms[0].takes:
        return None
    if len(forms) == 1:
        return forms[0]
    phrase = any_of(form.phrase for form in forms)
    takes = frozenset(kind for form in forms for kind in form.takes)
    return Form(_by_kind_of_value(forms, phrase), phrase, takes)


def _by_kind_of_value(forms: list[Form], phrase: str) -> Any:
    """Return the union of the forms, each chosen by the type that YAML gave the value."""

    def tag(value: Any) -> str | None:
        return next((f"<{form.phrase}>" for form in forms if type(value) in form.takes), None)

    tagged: Any = tuple(Annotated[form.type, Tag(f"<{form.phrase}>")] for form in forms)
    by_tag = Discriminator(
        tag, custom_error_type="wrong_kind", custom_error_message=f"expected {phrase}"
    )
    union: Any = Union[tagged]  # noqa: UP007 (a tuple of members)
    return Annotated[union, by_tag]


def _default(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return a default as a config writes it: a dtype or a maker of defaults by its name."""
    default = parameter.default
    if isinstance(default, type):
        import numpy as np

        return Field(np.dtype(default).name)
    if dataclasses.is_dataclass(function):
        (field,) = (field for field in dataclasses.fields(function) if field.name == parameter.name)
        if field.default_factory is not dataclasses.MISSING:
            maker: Any = field.default_factory
            return Field(maker.__name__, validate_default=True)
    return Field(default)


def _hashable(annotation: Any) -> bool:
    try:
        hash(annotation)
    except TypeError:
        return False
    return True
