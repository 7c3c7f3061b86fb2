"""Pooling: layers without parameters that shrink space."""

from dataclasses import dataclass

from .. import ops
from ..ops.geometry import Padding, Sizes
from .layer import OpLayer


class _Pool(OpLayer):
    """What they share: no parameters, and the op says the shape."""

    def init(self, key, x_shape):
        """No parameters."""
        del key
        return {}, {}, self.y_shape({}, x_shape)


@dataclass(frozen=True)
class _Windowed(_Pool):
    """A pool that slides a window; `stride` None is the window."""

    window: Sizes
    stride: Sizes | None = None
    padding: Padding = "VALID"
    dilation: Sizes = 1


@dataclass(frozen=True)
class MaxPool(_Windowed):
    """Keep the largest number of each window; see `fnn.ops.max_pool`."""

    op = ops.max_pool


@dataclass(frozen=True)
class AvgPool(_Windowed):
    """Take the mean of each window; see `fnn.ops.avg_pool`."""

    op = ops.avg_pool
    count_padding: bool = True


@dataclass(frozen=True)
class GlobalAvgPool(_Pool):
    """Take the mean over all of space: (batch, *space, channels) to (batch, channels)."""

    op = ops.global_avg_pool
