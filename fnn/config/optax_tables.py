"""optax's optimisers and schedules by name, found by what they return.

Every public function of optax whose result is a gradient transformation or a schedule is a row,
provided that a config can write the arguments it needs: numbers, switches, names, and further
optimisers and schedules, but no masks and no functions.
"""

import functools
import inspect
import types
from collections.abc import Callable, Container
from typing import Any

import optax

from .choice import nested_form
from .signature import NotWritableError, arguments_model
from .tables import LEFT_OUT, Table


@functools.cache
def optimizers() -> Table:
    """Return optax's gradient transformations, which get gradients, parameters and the loss.

    Of `optax.contrib` there is `reduce_on_plateau`, which is to optimisers what a schedule is.
    """
    results = (optax.GradientTransformation, optax.GradientTransformationExtraArgs)
    rows = _rows(lambda result: result in results, without=LEFT_OUT)
    return dict(sorted({**rows, "reduce_on_plateau": optax.contrib.reduce_on_plateau}.items()))


@functools.cache
def schedules() -> Table:
    """Return optax's schedules: step number -> value."""
    return _rows(lambda result: result == optax.Schedule, without={})


def _rows(is_wanted: Callable[[Any], bool], without: Container[str]) -> Table:
    # vars() and not getattr(): a deprecated name warns when it is looked up
    return {
        name: function
        for name, function in sorted(vars(optax).items())
        if isinstance(function, types.FunctionType | functools.partial)
        and not name.startswith("_")
        and name not in without
        and is_wanted(inspect.signature(function).return_annotation)
        and _is_writable(name, function)
    }


def _is_writable(name: str, function: Callable[..., Any]) -> bool:
    try:
        arguments_model(function, name, nested_form)
    except NotWritableError:
        return False
    return True
