"""Normalisation: over an example's own numbers, or over the batch."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from .. import ops
from .layer import OpCall, OpLayer, register


class _Norm(OpLayer):
    """What they share: a scale and a bias for each channel."""

    use_scale: bool
    use_bias: bool

    def init(self, key, x_shape):
        """Start with scale 1 and bias 0."""
        del key
        params = self._parameters(x_shape)
        return params, {}, self.y_shape(params, x_shape)

    def _parameters(self, x_shape):
        params = {"scale": jnp.ones(x_shape[-1:])} if self.use_scale else {}
        return params | ({"bias": jnp.zeros(x_shape[-1:])} if self.use_bias else {})


@register("layer_norm")
@dataclass(frozen=True)
class LayerNorm(_Norm):
    """Give the channels of every place mean 0 and variance 1; see `fnn.ops.layer_norm`.

    Parameters: scale and bias (channels,), unless `use_scale` or `use_bias` is false.
    """

    op = ops.layer_norm
    eps: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True


@register("group_norm")
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


@register("batch_norm")
@dataclass(frozen=True)
class BatchNorm(_Norm):
    """Give every channel mean 0 and variance 1 over the batch; see `fnn.ops.batch_norm`.

    When it does not train, running statistics take the place of the batch's:

        running = momentum running + (1 - momentum) batch's

    where the variance goes in without its bias, times N/(N - 1) for N numbers per channel, as in
    the paper. Parameters: scale and bias (channels,), unless `use_scale` or `use_bias` is false;
    state: mean and var (channels,), which start with 0 and 1. `axis_name` is the mesh axis over
    which a batch is split under `shard_map`.
    """

    op = ops.batch_norm
    momentum: float = 0.9
    eps: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    axis_name: str | None = None

    def __post_init__(self):
        if not isinstance(self.momentum, jax.core.Tracer) and not 0 <= self.momentum <= 1:
            raise ValueError(f"batch_norm: momentum must be from 0 to 1, got {self.momentum!r}")

    def init(self, key, x_shape):
        """Start with scale 1 and bias 0, running mean 0 and variance 1."""
        del key
        state = {"mean": jnp.zeros(x_shape[-1:]), "var": jnp.ones(x_shape[-1:])}
        params = self._parameters(x_shape)
        return params, state, self.y_shape(params, x_shape, state)

    def call(self, params, state, x_shape, *, key=None, train=False):
        """Normalise by the batch when it trains, by the running statistics otherwise."""
        del key
        if not train:
            statics = {"eps": self.eps}
            return OpCall(ops.batch_norm_inference, params | state, statics, lambda y: (y, state))
        devices = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
        numbers = math.prod(x_shape[:-1]) * devices

        def finish(outputs):
            y, mean, var = outputs
            new = {"mean": mean, "var": var * (numbers / max(numbers - 1, 1))}
            return y, {name: self._run(state[name], new[name]) for name in new}

        return OpCall(self.op, params, self.statics, finish)

    def _run(self, running, new):
        momentum = jnp.asarray(self.momentum, running.dtype)
        return momentum * running + (1 - momentum) * new.astype(running.dtype)


@register("local_response_norm")
@dataclass(frozen=True)
class LocalResponseNorm(OpLayer):
    """Divide every channel by what its neighbours show; see `fnn.ops.local_response_norm`."""

    op = ops.local_response_norm
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
