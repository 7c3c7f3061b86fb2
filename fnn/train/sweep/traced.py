"""Values of a config that are arguments of a compiled program, and which can be."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...config import Chain, Choice, Config
from ...config.origin import Key, split
from ...config.training import Precision
from ..evaluate import evaluate_batch
from ..optimizer import build_optimizer
from ..results import learnt
from ..run import Experiment

Values = Mapping[str, Any]
"""A value for each key of a config, such as `optimizer.sgd.learning_rate`."""
COMPUTED_IN = {"model": "compute", "loss": "reduce", "optimizer": "params"}
"""Sections whose numbers can be arguments: the part of `precision` that they are computed in."""


def replaced(config: Config, values: Values) -> Config:
    """Return the config with these values, which nothing checks: they may be tracers."""
    for key, value in values.items():
        config = _replaced(config, split(key), value)
    return config


def _replaced(node: Any, path: tuple[Key, ...], value: Any) -> Any:
    if not path:
        return value
    key, *below = path
    match node:
        case Choice():  # the key is its name
            argument, *below = below
            new = _replaced(node.arguments[str(argument)], tuple(below), value)
            return replace(node, arguments={**node.arguments, str(argument): new})
        case Chain():
            return Chain(_replaced(node.parts, path, value))
        case list() | tuple():
            items = list(node)
            items[int(key)] = _replaced(items[int(key)], tuple(below), value)
            return type(node)(items)
        case dict():
            return {**node, key: _replaced(node[key], tuple(below), value)}
        case _:
            old = getattr(node, str(key))
            return node.model_copy(update={str(key): _replaced(old, tuple(below), value)})


def built(run: Experiment, values: Values) -> Experiment:
    """Return the run with these values in its config, and what is built of it."""
    return as_configured(run, replaced(run.config, values))


def as_configured(run: Experiment, config: Config) -> Experiment:
    """Return the run of a config that differs in numbers alone."""
    return replace(
        run,
        config=config,
        model=config.build_model(),
        loss=config.build_loss(),
        optimizer=build_optimizer(config),
    )


def argument_dtype(key: str, values: Sequence[Any]) -> Any:
    """Return the dtype that the values of a key have as arguments of a program, or None.

    A number that may have a fraction changes no shape; an integer mostly counts something.
    """
    if key == "seed":
        return np.uint32
    is_inside = split(key)[0] in COMPUTED_IN
    return np.float32 if is_inside and any(isinstance(v, float) for v in values) else None


def keeps_types(precision: Precision, key: str) -> bool:
    """Whether a float32 argument gives the numbers that a constant gives.

    A constant takes the type of the array that it meets; an argument would change the array's.
    """
    return key == "seed" or getattr(precision, COMPUTED_IN[str(split(key)[0])]) == "float32"


def is_traceable(run: Experiment, values: Values) -> bool:
    """Whether a run can be compiled with these values as arguments, not as constants.

    It cannot where something asks for the number itself: to check it, to choose by it, or to keep
    it as a hyperparameter of an op.
    """

    def step(values):
        now = built(run, values)
        state = now.init()
        x = jnp.zeros(now.x_shape)
        labels = jnp.zeros(now.batch_size, run.data.y_train.dtype)
        state, D = now.update()(state, x, labels)
        parts = now.model, now.loss, now.config.precision
        return state, D, evaluate_batch(*parts, *learnt(state), x, labels)

    try:
        jax.eval_shape(step, dict(values))
    except Exception:  # whatever it raises: with the values as constants it was built and checked
        return False
    return True
