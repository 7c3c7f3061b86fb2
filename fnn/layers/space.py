"""Layers that rearrange space: Unfold and Upsample."""

from dataclasses import dataclass
from fractions import Fraction

import jax
import jax.numpy as jnp

from .. import ops
from ..ops.geometry import Padding, Sizes, sizes, spatial
from ..ops.resize import Method
from .layer import OpCall, OpLayer, Reach, Windowed, register


@register("unfold")
@dataclass(frozen=True)
class Unfold(Windowed):
    """Lay the numbers of each window out as channels of its place; see `fnn.ops.unfold`."""

    op = ops.unfold
    window: Sizes
    stride: Sizes = 1
    padding: Padding = "VALID"
    dilation: Sizes = 1


@register("upsample")
@dataclass(frozen=True)
class Upsample(OpLayer):
    """Enlarge each axis of space `scale` times; see `fnn.ops.resize`."""

    op = ops.resize
    scale: Sizes = 2
    method: Method = "nearest"
    align_corners: bool = False

    name = "upsample"

    def init(self, key, x_shape):
        """Return the shape by arithmetic: tracing would allocate indices as long as an axis."""
        del key
        return {}, {}, (x_shape[0], *self._size(x_shape), x_shape[-1])

    def _size(self, x_shape):
        space = spatial(self.name, jax.ShapeDtypeStruct(x_shape, jnp.float32))
        scale = sizes(self.name, "scale", self.scale, len(space))
        return tuple(n * s for n, s in zip(space, scale, strict=True))

    def call(self, params, state, x_shape, *, key=None, train=False):
        """Resize to `scale` times the size that x has."""
        del params, key, train
        statics = {
            "size": self._size(x_shape),
            "method": self.method,
            "align_corners": self.align_corners,
        }
        return OpCall(self.op, {}, statics, lambda y: (y, state))

    def reach(self, x_shape):
        """As many numbers as the method interpolates between; the outputs lie closer."""
        taps = {"linear": 2, "bicubic": 4}.get(self.method, 1)
        scale = sizes(self.name, "scale", self.scale, len(x_shape) - 2)
        return tuple(Reach(taps, Fraction(1, s)) for s in scale)
