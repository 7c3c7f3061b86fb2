"""What a model is before it is trained: shapes, parameters, multiply-adds, memory of a step."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..backprop import leaves
from ..layers import Layer, OpLayer
from ..loss import Loss
from .step import Gradient, init, make_update


class Row(NamedTuple):
    """One layer of the table; shapes are those of one example."""

    path: str
    layer: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


class Memory(NamedTuple):
    """Bytes of one compiled training step, as XLA accounts for them."""

    arguments: int
    outputs: int
    temporary: int


def layer_table(model: Layer, x_shape: tuple[int, ...]) -> list[Row]:
    """List the layers as a batch of `x_shape` goes through them."""
    return list(_rows(model, x_shape))


def _rows(model: Layer, x_shape: tuple[int, ...]) -> Iterator[Row]:
    for path, layer in leaves(model):
        params, y_shape = abstract_init(layer, x_shape)
        yield Row(
            ".".join(("model", *(key.split("_")[0] for key in path))),
            describe(layer),
            y_shape[1:],
            sum(math.prod(p.shape) for p in jax.tree.leaves(params)),
            layer.multiply_adds(x_shape, y_shape) if isinstance(layer, OpLayer) else 0,
        )
        x_shape = y_shape


def abstract_init(layer: Layer, x_shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """Return the shapes of a layer's parameters and of its outputs, drawing nothing."""
    shapes = []

    def params(key):
        drawn, _, y_shape = layer.init(key, x_shape)
        shapes.append(y_shape)
        return drawn

    return jax.eval_shape(params, jax.random.key(0)), shapes[0]


def describe(layer: Layer) -> str:
    """Write a layer as one reads it: `dense(128)`."""
    features = getattr(layer, "features", None)
    return layer.name if features is None else f"{layer.name}({features})"


def step_memory(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    x_shape: tuple[int, ...],
    gradient: Gradient = "manual",
) -> Memory | None:
    """Compile one training step for batches of `x_shape` and read its memory; run nothing.

    Returns None on a device whose compiler does not tell.
    """
    state = jax.eval_shape(lambda: init(model, optimizer, x_shape, seed=0))
    x = jax.ShapeDtypeStruct(x_shape, jnp.float32)
    labels = jax.ShapeDtypeStruct(x_shape[:1], jnp.int32)
    step = jax.jit(make_update(model, loss, optimizer, gradient), donate_argnums=0)
    analysis = step.lower(state, x, labels).compile().memory_analysis()
    if analysis is None:
        return None
    return Memory(
        analysis.argument_size_in_bytes,
        analysis.output_size_in_bytes,
        analysis.temp_size_in_bytes,
    )
