"""A model before it is trained: shapes, parameters, multiply-adds, and the memory of a step."""

import math
from dataclasses import MISSING, is_dataclass
from dataclasses import fields as fields_of
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..layers import Activation, Layer, OpLayer, Reach, graph
from ..loss import Loss
from .precision import FLOAT32, Precision
from .step import Gradient, init, make_update


class LayerRow(NamedTuple):
    """One layer of the table; shapes are those of one example."""

    path: str
    layer: str
    output_shape: tuple[int, ...]
    receptive_field: tuple[int, ...]  # along each axis of the input's space
    parameters: int
    multiply_adds: int


class Memory(NamedTuple):
    """Bytes of one compiled training step, as XLA accounts for them."""

    arguments: int
    outputs: int
    temporary: int


def layer_table(model: Layer, x_shape: tuple[int, ...]) -> list[LayerRow]:
    """Return one row per layer, in the order in which a batch of `x_shape` passes them.

    The receptive field of a layer is the part of the model's input that one number of its output
    depends on, without padding. Let e be the extent of the layer's windows, s their stride, and j
    the distance in the input between two neighbours that the layer reads (Araujo, Norris & Sim
    2019, doi:10.23915/distill.00021):

        field ← field + (e - 1) j,   j ← s j
    """
    shapes, fields = [x_shape], [tuple(_Field(n) for n in x_shape[1:-1])]
    rows = []
    for path, layer, inputs in graph(model):
        x_shape = shapes[inputs[0]]
        params, _, y_shape = abstract_init(layer, x_shape)
        reach = layer.reach(x_shape) if isinstance(layer, OpLayer) else ()
        branches = zip(*(fields[i] for i in inputs), strict=True)
        field = [max(axis, key=lambda f: f.size) for axis in branches]
        if reach:  # once flattened, the field stays
            field = [f.through(r) for f, r in zip(field, reach, strict=True)]
        shapes.append(y_shape)
        fields.append(tuple(field))
        rows.append(
            LayerRow(
                ".".join(("model", *(key.split("_")[0] for key in path))),
                describe(layer),
                y_shape[1:],
                tuple(min(math.ceil(f.size), f.most) for f in field),
                sum(math.prod(p.shape) for p in jax.tree.leaves(params)),
                layer.multiply_adds(x_shape, y_shape) if isinstance(layer, OpLayer) else 0,
            )
        )
    return rows


class _Field(NamedTuple):
    """A receptive field along one axis of `most` numbers, and the distance of neighbours."""

    most: int
    size: Fraction | int = 1
    distance: Fraction | int = 1

    def through(self, reach: Reach) -> "_Field":
        size = self.size + (reach.extent - 1) * self.distance
        return _Field(self.most, size, self.distance * reach.stride)


def abstract_init(layer: Layer, x_shape: tuple[int, ...]) -> tuple[Any, Any, tuple[int, ...]]:
    """Return the shapes of a layer's parameters, state and outputs, drawing nothing."""
    shapes = []

    def init(key):
        params, state, y_shape = layer.init(key, x_shape)
        shapes.append(y_shape)
        return params, state

    return *jax.eval_shape(init, jax.random.key(0)), shapes[0]


def describe(layer: Layer) -> str:
    """Return a layer as text, such as `conv(32, 3, padding=SAME)`, without initialisers."""
    words: list[str] = []
    if not is_dataclass(layer):
        return layer.name
    for field in fields_of(layer):
        value = getattr(layer, field.name)
        if isinstance(layer, Activation) and field.name == "arguments":
            usual = layer.op.statics
            words += [f"{name}={item}" for name, item in value.items() if item != usual[name]]
        elif field.default is MISSING and isinstance(value, int | float | str | tuple):
            words.append(str(value))
        elif field.default is not MISSING and value != field.default:
            words.append(f"{field.name}={value}")
    return f"{layer.name}({', '.join(words)})" if words else layer.name


def step_memory(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    x_shape: tuple[int, ...],
    gradient: Gradient = "manual",
    precision: Precision = FLOAT32,
) -> Memory | None:
    """Compile one training step for batches of `x_shape`, and return its memory; run nothing.

    Returns None on a device whose compiler does not report it.
    """
    state = jax.eval_shape(lambda: init(model, optimizer, x_shape, seed=0, precision=precision))
    x = jax.ShapeDtypeStruct(x_shape, jnp.float32)
    labels = jax.ShapeDtypeStruct(x_shape[:1], jnp.int32)
    step = jax.jit(make_update(model, loss, optimizer, gradient, precision), donate_argnums=0)
    memory = step.lower(state, x, labels).compile().memory_analysis()
    if memory is None:
        return None
    sizes = memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes
    return Memory(*sizes)
