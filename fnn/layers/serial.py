"""Serial: one layer after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax

from .layer import Layer, Params, State, own_key, part


@dataclass(frozen=True)
class Serial(Layer):
    """Layers applied in order; the parameters of layer i are under the key `i_name`."""

    layers: tuple[Layer, ...]
    name: str = "serial"

    def __init__(self, layers: Sequence[Layer], name: str = "serial"):
        object.__setattr__(self, "layers", tuple(layers))
        object.__setattr__(self, "name", name)

    def keyed(self) -> list[tuple[str, Layer]]:
        """The layers with their keys: `[("0_flatten", Flatten()), ("1_dense", Dense(15))]`."""
        return [(f"{i}_{layer.name}", layer) for i, layer in enumerate(self.layers)]

    def init(self, key, x_shape):
        """Draw every layer's parameters, each from a key of its own."""
        params: Params = {}
        state: State = {}
        shape = x_shape
        for i, (name, layer) in enumerate(self.keyed()):
            with part(i):
                p, s, shape = layer.init(jax.random.fold_in(key, i), shape)
            params |= {name: p} if p else {}
            state |= {name: s} if s else {}
        return params, state, shape

    def apply(self, params, state, x, *, key=None, train=False):
        """Apply the layers in order."""
        after: State = {}
        for i, (name, layer) in enumerate(self.keyed()):
            own = own_key(key, name)
            with part(i):
                x, s = layer.apply(
                    params.get(name, {}), state.get(name, {}), x, key=own, train=train
                )
            after |= {name: s} if s else {}
        return x, after

    def wire(self, nodes, path, x):
        """Each reads what the one before it made."""
        for name, layer in self.keyed():
            x = layer.wire(nodes, (*path, name), x)
        return x
