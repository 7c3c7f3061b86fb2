"""Residual: what a body adds to its input."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax

from .. import ops
from ..errors import ShapeError
from .layer import Layer, Node, OpLayer, Params, State, own_key, part, register
from .serial import Serial


@dataclass(frozen=True)
class Add(OpLayer):
    """Where two branches meet: the op `add`, of two inputs."""

    op = ops.add

    def init(self, key, x_shape):
        """Return no parameters, no state, and the shape that both branches have."""
        del key
        return {}, {}, x_shape


@register("residual")
@dataclass(frozen=True)
class Residual(Layer):
    """y = body(x) + shortcut(x), layers in order each; without a shortcut, y = body(x) + x.

        x̄ = (∂body/∂x)ᵀ ȳ + (∂shortcut/∂x)ᵀ ȳ

    so that a gradient passes however small the body's own is. Parameters and state are those of
    the two, under "body" and "shortcut".

    Source: He, Zhang, Ren & Sun 2016, arXiv:1512.03385.
    """

    name = "residual"
    body: Sequence[Layer]
    shortcut: Sequence[Layer] = ()

    def __post_init__(self):
        object.__setattr__(self, "body", tuple(self.body))
        object.__setattr__(self, "shortcut", tuple(self.shortcut))

    def _branches(self):
        return (("body", Serial(self.body)), ("shortcut", Serial(self.shortcut)))

    def init(self, key, x_shape):
        """Draw the parameters of both; their outputs must have one shape."""
        params: Params = {}
        state: State = {}
        shapes = []
        for i, (branch, layers) in enumerate(self._branches()):
            with part(branch):
                p, s, y_shape = layers.init(jax.random.fold_in(key, i), x_shape)
            params |= {branch: p} if p else {}
            state |= {branch: s} if s else {}
            shapes.append(y_shape)
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"residual: the body makes {shapes[0]} of {x_shape}, the shortcut {shapes[1]}; "
                "give a shortcut that makes the same, such as a conv of window 1 with its stride"
            )
        return params, state, shapes[0]

    def apply(self, params, state, x, *, key=None, train=False):
        """Apply both and add."""
        after: State = {}
        outputs = []
        for branch, layers in self._branches():
            own = own_key(key, branch)
            with part(branch):
                y, s = layers.apply(
                    params.get(branch, {}), state.get(branch, {}), x, key=own, train=train
                )
            after |= {branch: s} if s else {}
            outputs.append(y)
        return ops.add(*outputs), after

    def wire(self, nodes, path, x):
        """Both branches read `x`, and meet in an `Add`."""
        ends = [layers.wire(nodes, (*path, branch), x) for branch, layers in self._branches()]
        nodes.append(Node((*path, "add"), Add(), tuple(ends)))
        return len(nodes)
