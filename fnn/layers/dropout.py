"""Dropout: layers that leave parts of x out at random while a network is trained."""

from dataclasses import dataclass

import jax

from .. import ops
from .layer import OpCall, OpLayer, register


@dataclass(frozen=True)
class _Dropout(OpLayer):
    """What they share: a rate, a key to draw from, and nothing done outside training.

    Nor is anything done at rate 0, unless the rate is traced: then it draws, and drops nothing.
    """

    rate: float

    def __post_init__(self):
        if not isinstance(self.rate, jax.core.Tracer) and not 0 <= float(self.rate) <= 1:
            raise ValueError(f"{self.name}: rate must be from 0 to 1, got {self.rate!r}")

    def call(self, params, state, x_shape, *, key=None, train=False):
        """Call the op with the key when it trains; otherwise hand x on.

        Raises ValueError where there is no key to train with.
        """
        del params, x_shape
        drops = isinstance(self.rate, jax.core.Tracer) or float(self.rate) > 0
        if not (train and drops):
            return OpCall(ops.identity, {}, {}, lambda y: (y, state))
        if key is None:
            raise ValueError(f"{self.name}: draws when it trains; give apply a key")
        return OpCall(self.op, {"key": key, "rate": self.rate}, {}, lambda y: (y, state))


@register("dropout")
@dataclass(frozen=True)
class Dropout(_Dropout):
    """Set each number to 0 with probability `rate`; see `fnn.ops.dropout`."""

    op = ops.dropout


@register("channel_dropout")
@dataclass(frozen=True)
class ChannelDropout(_Dropout):
    """Drop whole channels of an example; see `fnn.ops.channel_dropout`."""

    op = ops.channel_dropout


@register("alpha_dropout")
@dataclass(frozen=True)
class AlphaDropout(_Dropout):
    """Drop numbers and keep mean and variance; see `fnn.ops.alpha_dropout`."""

    op = ops.alpha_dropout


@register("drop_path")
@dataclass(frozen=True)
class DropPath(_Dropout):
    """Drop a residual branch, the last layer of its body; see `fnn.ops.drop_path`."""

    op = ops.drop_path
