"""Dense and MaskedDense: z = x W + b."""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from .. import ops
from ..errors import ShapeError
from ..init import Fans, Initializer, glorot_uniform, zeros
from .layer import Weighted, register


class _Affine(Weighted):
    """What the two share: the checks of shapes, and the count of multiplications."""

    def _inputs(self, x_shape):
        if len(x_shape) < 2 or x_shape[-1] < 1:
            raise ShapeError(f"{self.name}: expects (batch, ..., inputs), got {x_shape}")
        return x_shape[-1]

    def call(self, params, state, x_shape, *, key=None, train=False):
        """Call the op, once the shapes are known to fit."""
        inputs = params["w"].shape[0]
        if x_shape[-1] != inputs:
            fix = "; add flatten before it" if math.prod(x_shape[1:]) == inputs else ""
            raise ShapeError(f"{self.name}: expects (..., {inputs}), got {x_shape}{fix}")
        return super().call(params, state, x_shape, key=key, train=train)

    def multiply_adds(self, x_shape, y_shape):
        """Count one per weight and place where the weights are used."""
        return x_shape[-1] * math.prod(y_shape[1:])


@register("dense")
@dataclass(frozen=True)
class Dense(_Affine):
    """Map the last axis to `features` numbers: y = x W + b.

    Parameters: w (inputs, features), b (features,) unless `use_bias` is false.
    """

    op = ops.dense
    features: int
    use_bias: bool = True
    w_init: Initializer = field(default_factory=glorot_uniform)
    b_init: Initializer = field(default_factory=zeros)

    def init(self, key, x_shape):
        """Draw w and b."""
        params = self.draw(key, (self._inputs(x_shape), self.features))
        return params, {}, (*x_shape[:-1], self.features)


@register("masked_dense")
@dataclass(frozen=True)
class MaskedDense(_Affine):
    """A dense layer each unit of which sees only `fan_in` inputs, drawn at random once.

    Parameters as those of Dense; state: mask (inputs, features), fixed by `seed` and the shape.
    Weights start with the fans they have, not with those of a full matrix; masked ones are 0.
    """

    op = ops.masked_dense
    features: int
    fan_in: int
    use_bias: bool = True
    w_init: Initializer = field(default_factory=glorot_uniform)
    b_init: Initializer = field(default_factory=zeros)
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.fan_in < 1:
            raise ValueError(f"{self.name}: fan_in must be at least 1, got {self.fan_in}")

    def init(self, key, x_shape):
        """Draw w and b; draw the mask from `seed`."""
        inputs = self._inputs(x_shape)
        if self.fan_in > inputs:
            raise ShapeError(
                f"{self.name}: fan_in {self.fan_in} is more than the {inputs} inputs there are"
            )
        ranks = jnp.tile(jnp.arange(inputs)[:, None], self.features)
        shuffle = jax.random.key(self.seed)
        mask = jax.random.permutation(shuffle, ranks, independent=True) < self.fan_in
        params = self.draw(key, mask.shape, Fans(self.fan_in, self.fan_in * self.features / inputs))
        params["w"] = jnp.where(mask, params["w"], 0)
        return params, {"mask": mask}, (*x_shape[:-1], self.features)
