"""A callable's signature as a pydantic model: the arguments that a config may write.

Annotations become types that YAML can express:

    int, bool, str, Literal, lists and mappings of these      themselves, strictly
    float, and optax's and jax's unions of array-likes        a number
    Initializer, Schedule, GradientTransformation, Layer      a choice by name (see choice.py)
    X | Y                                                     one of them, by the type of the value
    anything else (a mask, a callable)                        cannot be written: left out

A parameter whose name contains "dtype" takes the name of a floating dtype.
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

from .section import Phrase, Section, any_of, problem, quote


@dataclass(frozen=True)
class Form:
    """How a config writes an argument: pydantic's type, the words of an error, YAML's types."""

    type: Any
    phrase: str
    yaml_types: frozenset[type]


Nested = Callable[[Any], Form | None]
"""Returns the form of an annotation that is a choice, and None for any other annotation."""


class NotWritableError(TypeError):
    """A callable needs an argument that no config can write."""


MAX_NUMBER = 2**128 - 2**104  # the largest float32
MIN_INTEGER, MAX_INTEGER = -(2**31), 2**32 - 1
"""Integers have 32 bits: signed for counts and sizes, unsigned for seeds."""


def check_number(value: Any) -> int | float:
    """Return a finite int or float unchanged, but an int of more than 32 bits as a float.

    JAX refuses such an int. A bool is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise problem(f"expected a number, got {quote(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise problem(f"expected a finite number, got {quote(value)}")
    if abs(value) > MAX_NUMBER:
        raise problem(f"expected a number within ±3.4e38, as float32 has it, got {quote(value)}")
    return value if abs(value) < 2**31 else float(value)


Number = Annotated[float, PlainValidator(check_number), WithJsonSchema({"type": "number"})]
DTypeName = Literal["float32", "float64", "bfloat16", "float16"]

_PLAIN = {
    int: Form(
        Annotated[int, Strict(), Ge(MIN_INTEGER), Le(MAX_INTEGER)], "an integer", frozenset({int})
    ),
    float: Form(Number, "a number", frozenset({int, float})),
    bool: Form(Annotated[bool, Strict()], "true or false", frozenset({bool})),
    str: Form(Annotated[str, Strict()], "a text", frozenset({str})),
    types.NoneType: Form(None, "null", frozenset({types.NoneType})),
}


def arguments_model(
    function: Callable[..., Any], name: str, nested: Nested, inputs: int = 0
) -> type[Section]:
    """Return the pydantic model of a callable's arguments, without its first `inputs` ones.

    Raises NotWritableError if YAML cannot express a parameter without a default.
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
    documented = function.func if isinstance(function, functools.partial) else function
    summary = (inspect.getdoc(documented) or "").partition("\n")[0]
    return create_model(name, __base__=Section, __doc__=summary, **fields)


def _form_of_parameter(parameter: inspect.Parameter, nested: Nested) -> Form | None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return None
    annotation, default = parameter.annotation, parameter.default
    if annotation is parameter.empty:
        annotation = type(default)
    if "dtype" in parameter.name:
        annotation = DTypeName
    if default is None:
        annotation = Union[annotation, None]  # noqa: UP007 (the members need not be types)
    return form_of(annotation, nested)


def form_of(annotation: Any, nested: Nested) -> Form | None:
    """Return how YAML writes a value of this annotation, or None if it cannot."""
    if annotation is None:
        annotation = types.NoneType
    plain = (form for kind, form in _PLAIN.items() if annotation is kind)
    form = nested(annotation) or next(plain, None)
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
    """Return the union of the forms; the type of the YAML value selects one of them."""
    if float in members:  # an array-like, which also has bool, int and complex as members
        members = tuple(member for member in members if member not in (int, bool, complex))
    forms = [form for member in members if (form := form_of(member, nested)) is not None]
    forms.sort(key=lambda form: types.NoneType in form.yaml_types)  # "a number or null", null last
    if not forms or types.NoneType in forms[0].yaml_types:
        return None
    if len(forms) == 1:
        return forms[0]

    def tag(value: Any) -> str | None:
        return next((f"<{form.phrase}>" for form in forms if type(value) in form.yaml_types), None)

    phrase = any_of(form.phrase for form in forms)
    members = tuple(Annotated[form.type, Tag(f"<{form.phrase}>")] for form in forms)
    by_tag = Discriminator(
        tag, custom_error_type="wrong_kind", custom_error_message=f"expected {phrase}"
    )
    union: Any = Annotated[Union[members], by_tag]  # noqa: UP007 (a tuple of members)
    return Form(union, phrase, frozenset().union(*(form.yaml_types for form in forms)))


def _default(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return a default as a config writes it: a dtype or a default factory by its name."""
    default = parameter.default
    if isinstance(default, type):
        import numpy as np

        return Field(np.dtype(default).name)
    if dataclasses.is_dataclass(function):
        (field,) = (field for field in dataclasses.fields(function) if field.name == parameter.name)
        if field.default_factory is not dataclasses.MISSING:
            factory: Any = field.default_factory
            return Field(factory.__name__, validate_default=True)
    return Field(default)
