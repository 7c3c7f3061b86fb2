"""Normalisation of each example by itself: LayerNorm and GroupNorm."""

from dataclasses import dataclass

import jax.numpy as jnp

from .. import ops
from .layer import OpLayer


class _Norm(OpLayer):
    """What the two share: a scale and a bias for each channel."""

    use_scale: bool
    use_bias: bool

    def init(self, key, x_shape):
        """Start with scale 1 and bias 0."""
        del key
        params = {"scale": jnp.ones(x_shape[-1:])} if self.use_scale else {}
        params |= {"bias": jnp.zeros(x_shape[-1:])} if self.use_bias else {}
        return params, {}, self.y_shape(params, x_shape)


@dataclass(frozen=True)
class LayerNorm(_Norm):
    """Give the channels of every place mean 0 and variance 1; see `fnn.ops.layer_norm`.

    Parameters: scale and bias (channels,), unless `use_scale` or `use_bias` is false.
    """

    op = ops.layer_norm
    eps: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True


@dataclass(frozen=True)
class GroupNorm(_Norm):
    """Give every group of channels mean 0 and variance 1 over space; see `fnn.ops.group_norm`.

    Parameters: scale and bias (channels,), unless `use_scale` or `use_bias` is false.
    """

    op = ops.group_norm
    groups: int
    eps: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
