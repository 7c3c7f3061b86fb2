"""Conv and ConvTranspose: one window of weights, slid over space."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import jax
import jax.numpy as jnp

from .. import ops
from ..init import Initializer, glorot_uniform, zeros
from ..ops.geometry import Padding, Sizes, sizes, spatial
from .layer import Reach, Weighted, Windowed, register


@dataclass(frozen=True)
class _Convolution(Weighted, Windowed):
    """What the two share: the hyperparameters and the parameters."""

    features: int
    window: Sizes
    stride: Sizes = 1
    padding: Padding = "VALID"
    dilation: Sizes = 1
    groups: int = 1
    use_bias: bool = True
    w_init: Initializer = field(default_factory=glorot_uniform)
    b_init: Initializer = field(default_factory=zeros)

    def init(self, key, x_shape):
        """Draw w and b."""
        space = spatial(self.name, jax.ShapeDtypeStruct(x_shape, jnp.float32))
        window = sizes(self.name, "window", self.window, len(space))
        inputs = max(x_shape[-1] // max(self.groups, 1), 1)
        params = self.draw(key, (*window, inputs, self.features))
        return params, {}, self.y_shape(params, x_shape)


@register("conv")
@dataclass(frozen=True)
class Conv(_Convolution):
    """Slide a window of weights over 1, 2 or 3 axes of space; see `fnn.ops.conv`.

    Parameters: w (*window, inputs / groups, features), b (features,) unless `use_bias` is false.
    """

    op = ops.conv

    def multiply_adds(self, x_shape, y_shape):
        """One for every weight, at every place where the window stands."""
        taps = math.prod(sizes(self.name, "window", self.window, len(x_shape) - 2))
        return math.prod(y_shape[1:]) * taps * (x_shape[-1] // self.groups)


@register("conv_transpose")
@dataclass(frozen=True)
class ConvTranspose(_Convolution):
    """Enlarge 1, 2 or 3 axes of space, each number painting a window; see `fnn.ops.conv_transpose`.

    Parameters: w (*window, inputs / groups, features), b (features,) unless `use_bias` is false.
    """

    op = ops.conv_transpose
    output_padding: Sizes = 0

    def multiply_adds(self, x_shape, y_shape):
        """One for every weight, at every place of the input."""
        taps = math.prod(sizes(self.name, "window", self.window, len(x_shape) - 2))
        return math.prod(x_shape[1:]) * taps * (y_shape[-1] // self.groups)

    def reach(self, x_shape):
        """The places whose windows meet in one number; outputs lie closer than inputs."""
        return tuple(Reach(-(-e // s), Fraction(1, s)) for e, s in super().reach(x_shape))
