"""What a layer is: hyperparameters and two pure methods."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..op import Op

Params = dict[str, Any]
State = dict[str, Any]
Shape = tuple[int, ...]


class Layer(ABC):
    """A frozen dataclass of hyperparameters with two pure methods.

    Shapes are those of a batch: the first axis counts the examples. Parameters are what is
    trained; state is what is not (a mask, running statistics). Both are nested dicts.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in a config, and in the keys of parameters."""

    @abstractmethod
    def init(self, key: jax.Array, x_shape: Shape) -> tuple[Params, State, Shape]:
        """Draw parameters and state for inputs of `x_shape`; say the shape of the outputs.

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
        """Compute outputs and the next state. `key` is for layers that draw, when they train."""


class OpLayer(Layer):
    """A layer that is one call of an op.

    Parameters and state are named as the op's arguments, hyperparameters as its statics.
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

    def apply(self, params, state, x, *, key=None, train=False):
        """Call the op."""
        del key, train
        return self.op(x, **params, **state, **self.statics), state

    def y_shape(self, params: Params, x_shape: Shape) -> Shape:
        """Return the shape of the outputs, as the op says it.

        Raises ShapeError where the op cannot take such inputs.
        """
        x = jax.ShapeDtypeStruct(x_shape, jnp.float32)
        return jax.eval_shape(lambda x: self.op(x, **params, **self.statics), x).shape

    def multiply_adds(self, x_shape: Shape, y_shape: Shape) -> int:
        """Multiplications-and-additions of the forward pass for one example."""
        del x_shape, y_shape
        return 0
