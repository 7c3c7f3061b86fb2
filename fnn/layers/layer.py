"""Layers: hyperparameters and two pure methods. OpLayer is a layer that is one call of an op."""

import contextlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from ..custom_op import Op
from ..errors import ShapeError
from ..init import Fans, Initializer
from ..ops.geometry import Sizes, sizes

Params = dict[str, Any]
State = dict[str, Any]
Shape = tuple[int, ...]


class Node(NamedTuple):
    """A layer in the graph of a model: 0 is the model's input, i + 1 the output of node i."""

    path: tuple[str, ...]
    layer: "Layer"
    inputs: tuple[int, ...]


class Layer(ABC):
    """A frozen dataclass of hyperparameters with two pure methods.

    Shapes are those of a batch: the first axis counts the examples. Training changes
    parameters; state is the rest (a mask, running statistics). Both are nested dicts.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in a config, and in the keys of parameters."""

    @abstractmethod
    def init(self, key: jax.Array, x_shape: Shape) -> tuple[Params, State, Shape]:
        """Draw parameters and state for inputs of `x_shape`; return them and the outputs' shape.

        Raises ShapeError where such inputs do not fit.
        """

    @abstractmethod
    def apply(
        self,
        params: Params,
        state: State,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, State]:
        """Return outputs and the next state. `key` is for layers that draw while they train."""

    def wire(self, nodes: list[Node], path: tuple[str, ...], x: int) -> int:
        """Append its nodes to the graph, reading node `x`; return the node of its output."""
        nodes.append(Node(path, self, (x,)))
        return len(nodes)


LAYERS: dict[str, Callable[..., Layer]] = {}
"""Every layer by the name that configs use, and what makes it: a class or a function."""

Maker = TypeVar("Maker", bound=Callable[..., Layer])


def register(name: str) -> Callable[[Maker], Maker]:
    """Return a decorator that enters a layer's class or function in LAYERS.

    Raises ValueError if another module has a layer of that name.
    """

    def enter(maker: Maker) -> Maker:
        old = LAYERS.get(name, maker)
        if old.__module__ != maker.__module__:
            raise ValueError(f"there is a layer {name!r} already, in {old.__module__}")
        LAYERS[name] = maker
        return maker

    return enter


@contextlib.contextmanager
def part(name: int | str) -> Iterator[None]:
    """Add to an error which part of a container raised it.

    A ValueError, about a shape or a hyperparameter, becomes a ShapeError.
    """
    try:
        yield
    except ShapeError as error:
        raise error.inside(name) from None
    except ValueError as error:
        raise ShapeError(str(error)).inside(name) from error


def own_key(key: jax.Array | None, name: str) -> jax.Array | None:
    """Return the key that a part of a layer draws from: the layer's, changed by the part's name."""
    return None if key is None else jax.random.fold_in(key, zlib.crc32(name.encode()))


def graph(model: Layer) -> list[Node]:
    """Return the layers that hold no others, in the order in which they run."""
    nodes: list[Node] = []
    model.wire(nodes, (), 0)
    return nodes


class OpCall(NamedTuple):
    """An op, its arguments beside the layer's inputs, and `finish`: its results to y and state."""

    op: Op
    arrays: Mapping[str, Any]
    statics: Mapping[str, Any]
    finish: Callable[[Any], tuple[jax.Array, State]]


class Reach(NamedTuple):
    """Along one axis of space: the width that one output sees, and the step between outputs."""

    extent: int = 1
    stride: Fraction | int = 1


class OpLayer(Layer):
    """A layer that is one call of an op.

    Parameters and state are named as the op's arguments, hyperparameters as its statics. A layer
    with parameters draws them in `init`; one that trains differently says so in `call`.
    """

    op: Op

    @property
    def statics(self) -> Mapping[str, Any]:
        """The op's hyperparameters, by name."""
        return {name: getattr(self, name) for name in self.op.statics}

    @property
    def name(self) -> str:
        """The op's name."""
        return self.op.name

    def init(self, key, x_shape):
        """Return no parameters, no state, and the shape that the op makes of `x_shape`."""
        del key
        return {}, {}, self.y_shape({}, x_shape)

    def call(
        self,
        params: Params,
        state: State,
        x_shape: Shape,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> OpCall:
        """Return the op to call, with its arguments."""
        del x_shape, key, train
        return OpCall(self.op, params | state, self.statics, lambda y: (y, state))

    def apply(self, params, state, x, *, key=None, train=False):
        """Call the op."""
        call = self.call(params, state, x.shape, key=key, train=train)
        return call.finish(call.op(x, **call.arrays, **call.statics))

    def y_shape(self, params: Params, x_shape: Shape, state: State | None = None) -> Shape:
        """Return the shape of the op's outputs.

        Raises ShapeError where the op cannot take such inputs.
        """
        x = jax.ShapeDtypeStruct(x_shape, jnp.float32)
        return jax.eval_shape(lambda x: self.apply(params, state or {}, x)[0], x).shape

    def multiply_adds(self, x_shape: Shape, y_shape: Shape) -> int:
        """Multiplications-and-additions of the forward pass for one example."""
        del x_shape, y_shape
        return 0

    def reach(self, x_shape: Shape) -> tuple[Reach, ...]:
        """Return how far one output sees, along each axis of space of `x_shape`."""
        return (Reach(),) * max(len(x_shape) - 2, 0)


class Weighted(OpLayer):
    """A layer with weights w for `features` outputs and, unless `use_bias` is false, a bias b."""

    features: int
    use_bias: bool
    w_init: Initializer
    b_init: Initializer

    def __post_init__(self):
        if self.features < 1:
            raise ValueError(f"{self.name}: features must be at least 1, got {self.features}")

    def draw(self, key: jax.Array, w_shape: Shape, fans: Fans | None = None) -> Params:
        """Draw w of `w_shape`, and b (features,)."""
        w_key, b_key = jax.random.split(key)
        params = {"w": self.w_init(w_key, w_shape, fans)}
        return params | ({"b": self.b_init(b_key, (self.features,))} if self.use_bias else {})


class Windowed(OpLayer):
    """A layer that slides a window over space; `stride` None is the window's size."""

    window: Sizes
    stride: Sizes | None
    dilation: Sizes = 1

    def reach(self, x_shape):
        """The window with its holes, and its stride."""
        window, stride, dilation = (
            sizes(self.name, what, value, len(x_shape) - 2)
            for what, value in (
                ("window", self.window),
                ("stride", self.window if self.stride is None else self.stride),
                ("dilation", self.dilation),
            )
        )
        each = zip(window, stride, dilation, strict=True)
        return tuple(Reach(d * (k - 1) + 1, s) for k, s, d in each)
