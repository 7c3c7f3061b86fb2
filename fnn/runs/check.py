"""The check of an experiment before it starts: its first step is traced, its memory counted.

A model that cannot be traced, or could never fit, is refused with its line before anything is
written. Nothing is drawn, compiled or run.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..config import Config
from ..errors import ConfigError, FnnError, ShapeError, printable
from ..layers import Layer, graph
from ..loss import Loss
from ..memory import array_bytes
from ..text import size
from ..train.plan import abstract_init
from ..train.step import init, make_update, value_and_grad


def check_step(
    config: Config,
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    x_shape: tuple[int, ...],
    classes: int,
) -> None:
    """Trace a step for batches of `x_shape`, and compare its memory with that of the devices.

    Raises ConfigError that begins with the place of the layer or the section at fault.
    """
    with _blame(config, "model"):
        _check_memory(model, x_shape)
        _, _, y_shape = abstract_init(model, x_shape)
        loss.check(y_shape, classes)
    with _blame(config, "optimizer"):
        first = partial(init, model, optimizer, x_shape, config.seed, config.precision)
        state = jax.eval_shape(first)
        need, memory = _bytes((state.params, state.optimizer)), memory_of_devices()
        if need > memory:
            raise FnnError(
                f"with its state the model's parameters take {size(need)}, and there are "
                f"{size(memory)} of memory; make the model smaller"
            )
    x = jax.ShapeDtypeStruct(x_shape, jnp.float32)
    labels = jax.ShapeDtypeStruct(x_shape[:1], jnp.int32)
    try:
        update = make_update(model, loss, optimizer, config.gradient, config.precision)
        after, _ = jax.eval_shape(update, state, x, labels)
    except Exception:
        with _blame(config, "model"):
            _check_layers(model, x_shape)
            differentiate = value_and_grad(model, loss, config.gradient, config.precision)
            jax.eval_shape(differentiate, state.params, state.layers, x, labels, state.key)
        with _blame(config, "optimizer"):
            raise
    if _types(after) != _types(state):
        text = "a step gives parameters or a state of other types than it took; change a dtype"
        raise ConfigError(f"{config.where('optimizer')}: optimizer: {text}")


def memory_of_devices() -> int:
    """Return the memory of all devices in bytes, if every process has as much as this one."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    limits = [one["bytes_limit"] for one in stats if one and "bytes_limit" in one]
    here = sum(limits) or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return here * jax.process_count()


def _check_memory(model: Layer, x_shape: tuple[int, ...]) -> None:
    """Raise ShapeError at the first layer whose parameters or outputs do not fit into memory."""
    memory, shapes = memory_of_devices(), [x_shape]
    for path, layer, inputs in graph(model):
        with _inside(path, layer):
            params, state, y_shape = abstract_init(layer, shapes[inputs[0]])
        shapes.append(y_shape)
        arrays = {
            "parameters": _bytes((params, state)),
            f"outputs {y_shape}": 4 * math.prod(y_shape),
        }
        for name, need in arrays.items():
            if need > memory:
                raise ShapeError(
                    f"{layer.name}: its {name} take {size(need)}, and there are {size(memory)} of "
                    "memory; make it smaller",
                    _where(path),
                )


def _check_layers(model: Layer, x_shape: tuple[int, ...]) -> None:
    """Raise ShapeError at the first layer that cannot be trained by itself."""
    shapes = [x_shape]
    for path, layer, inputs in graph(model):
        first = shapes[inputs[0]]
        with _inside(path, layer):
            params, state, y_shape = abstract_init(layer, first)
            if len(inputs) == 1:
                x = jax.ShapeDtypeStruct(first, jnp.float32)
                apply = partial(layer.apply, train=True)
                jax.eval_shape(apply, params, state, x, key=jax.random.key(0))
        shapes.append(y_shape)


@contextlib.contextmanager
def _inside(path: tuple[str, ...], layer: Layer) -> Iterator[None]:
    """Turn any error into a ShapeError at the layer."""
    try:
        yield
    except ValueError as error:
        raise ShapeError(str(error), _where(path)) from error
    except Exception as error:
        reason = f"{layer.name}: cannot be traced: {type(error).__name__}: {error}"
        raise ShapeError(reason, _where(path)) from error


def _where(path: tuple[str, ...]) -> tuple[int | str, ...]:
    """Return `(3, "body", 0)` for the keys of parameters `("3_residual", "body", "0_conv")`."""
    return tuple(int(key.split("_")[0]) if key[:1].isdigit() else key for key in path)


def _types(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def _bytes(tree: Any) -> int:
    return sum(map(array_bytes, jax.tree.leaves(tree)))


@contextlib.contextmanager
def _blame(config: Config, section: str) -> Iterator[None]:
    """Turn any error of tracing into a ConfigError with the place of a layer or the section.

    Everything that is traced was built from the config, so the config has to change.
    """
    try:
        yield
    except ShapeError as error:
        where = config.where_layer(error.path)
        text = str(error) if error.path else f"{section}: {error}"
        raise ConfigError(printable(f"{where}: {text}")) from error
    except FnnError as error:
        raise ConfigError(f"{config.where(section)}: {section}: {error}") from error
    except Exception as error:
        reason = f"{section}: cannot be traced: {type(error).__name__}: {error}"
        raise ConfigError(printable(f"{config.where(section)}: {reason}")) from error
