"""The scanning network: one small network, slid over a signal."""

from collections.abc import Sequence
from typing import Literal

from .layer import Layer, register
from .pooling import GlobalAvgPool, GlobalMaxPool, GlobalSoftmaxPool
from .serial import Serial
from .space import Unfold

_POOLS = {"max": GlobalMaxPool, "softmax": GlobalSoftmaxPool, "mean": GlobalAvgPool}


@register("scan_1d")
def scan_1d(
    *,
    window: int,
    body: Sequence[Layer],
    stride: int = 1,
    pool: Literal["max", "softmax", "mean"] = "max",
) -> Serial:
    """Show each window of a signal to one small network, and keep its strongest answers.

        y = maxₚ body(x[s p : s p + window])

    (batch, time, channels) becomes (batch, places, window channels), of which `body` (a list of
    layers) sees the last axis; the pool is over the places. All places share the body's weights,
    so their gradients add up, and a pattern is found wherever it is. It is a convolution of that
    window followed by convolutions of window 1, written as the network that it scans with.

    Source: Waibel, Hanazawa, Hinton, Shikano & Lang 1989, doi:10.1109/29.21701.
    """
    return Serial([Unfold(window, stride), *body, _POOLS[pool]()], "scan_1d")
