"""Pooling: layers without parameters that shrink space."""

from dataclasses import dataclass

from .. import ops
from ..ops.geometry import Padding, Sizes
from .layer import OpLayer, Reach, Windowed, register


@dataclass(frozen=True)
class _Sliding(Windowed):
    """A pool that slides a window; `stride` None is the window."""

    window: Sizes
    stride: Sizes | None = None
    padding: Padding = "VALID"
    dilation: Sizes = 1


@register("max_pool")
@dataclass(frozen=True)
class MaxPool(_Sliding):
    """Keep the largest number of each window; see `fnn.ops.max_pool`."""

    op = ops.max_pool


@register("avg_pool")
@dataclass(frozen=True)
class AvgPool(_Sliding):
    """Take the mean of each window; see `fnn.ops.avg_pool`."""

    op = ops.avg_pool
    count_padding: bool = True


class _Global(OpLayer):
    """A pool over all of space: (batch, *space, channels) to (batch, channels)."""

    def reach(self, x_shape):
        """All there is."""
        return tuple(Reach(n) for n in x_shape[1:-1])


@register("global_avg_pool")
@dataclass(frozen=True)
class GlobalAvgPool(_Global):
    """Take the mean over all of space; see `fnn.ops.global_avg_pool`."""

    op = ops.global_avg_pool


@register("global_max_pool")
@dataclass(frozen=True)
class GlobalMaxPool(_Global):
    """Keep the largest number of all of space; see `fnn.ops.global_max_pool`."""

    op = ops.global_max_pool


@register("global_softmax_pool")
@dataclass(frozen=True)
class GlobalSoftmaxPool(_Global):
    """Take the mean over all of space, weighted by softmax; see `fnn.ops.global_softmax_pool`."""

    op = ops.global_softmax_pool
