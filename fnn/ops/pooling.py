"""Max pooling: a window's largest number, where it was, and the way back there."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ShapeError
from ..example import example, integers, normal, uniform, values
from ..op import Static, op
from .geometry import Padding, Sizes, Windows, spatial
from .taps import first_largest, gather_back, inside, pooling_windows, positions, taps


def _reduce_window(x, *, window, stride, padding, dilation):
    win = pooling_windows("max_pool", x, window, stride, padding, dilation)
    return jax.lax.reduce_window(
        x,
        jnp.asarray(-jnp.inf, x.dtype),
        jax.lax.max,
        (1, *win.size, 1),
        (1, *win.stride, 1),
        ((0, 0), *win.padding, (0, 0)),
        window_dilation=(1, *win.dilation, 1),
    )


_EXAMPLES = (
    example(x=normal(2, 4, 6, 3), window=2),
    example(x=normal(1, 7, 7, 2), window=2),
    example(x=normal(2, 7, 5, 2), window=3, stride=2),
    example(x=normal(1, 8, 7, 2), window=(3, 2), stride=(1, 2), padding=((1, 1), (0, 1))),
    example(x=normal(1, 6, 6, 2), window=3, stride=2, padding="SAME"),
    example(x=normal(1, 9, 8, 1), window=2, stride=3),
    example(x=normal(1, 7, 8, 2), window=3, stride=2, padding=2, dilation=2),
    example(x=normal(2, 9, 2), window=4, stride=3, padding=((2, 1),), dilation=1),
    example(x=normal(1, 4, 5, 3, 2), window=2, stride=(2, 1, 2), padding=(0, 1, 1)),
    example(x=normal(1, 1, 1, 1), window=1),
    example(x=normal(0, 4, 4, 2), window=2),
    example(x=values(*np.ones((1, 5, 6, 2))), window=3, stride=2, padding=1, tags={"kink"}),
    example(x=values(*np.zeros((1, 4, 4, 1))), window=2, tags={"kink"}),
    example(x=values(*-np.ones((1, 3, 3, 1))), window=2, stride=1, padding=1, tags={"kink"}),
    example(x=uniform(2, 5, 5, 2, low=-3.0, high=-2.0), window=3, stride=2, padding=1),
    example(
        x=values([[[1e4], [-np.inf]], [[-1e4], [-np.inf]], [[-np.inf], [-np.inf]]]),
        window=(2, 1),
        padding=((1, 0), (0, 0)),
        tags={"extreme"},
    ),
    example(x=normal(64, 28, 28, 32), window=2, tags={"bench"}),
    example(x=normal(32, 112, 112, 64), window=2, tags={"bench"}),
    example(x=normal(32, 55, 55, 64), window=3, stride=2, tags={"bench"}),
)
_SOURCE = "Ranzato, Huang, Boureau & LeCun 2007, CVPR, doi:10.1109/CVPR.2007.383157"


def _stacked(x, win: Windows):
    """The taps along a new last axis, and which of them the first largest is."""
    met = jnp.stack(taps(x, win, -jnp.inf), -1)
    masks = [True if mask is None else mask for mask in inside(win)]
    real = jnp.stack([jnp.broadcast_to(mask, met.shape[:-1]) for mask in masks], -1)
    wins = real & ((met == jnp.max(met, -1, keepdims=True)) | jnp.isnan(met))
    return met, jnp.argmax(wins, -1)


@op(reference=_reduce_window, examples=_EXAMPLES, source=_SOURCE)
def max_pool(
    x,
    *,
    window: Sizes,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
):
    """Keep the largest number of each window.

        yᵢ = max over taps t of x[i s + t d],   x̄ⱼ = Σ of ȳᵢ over the windows i that j wins

    Where several are equally large, the first in row-major order wins, and a NaN wins over
    numbers. Padding counts as -∞ and never wins; a window that meets padding alone is an error.
    Shapes: x (batch, *space, channels) -> y (batch, *places, channels); `stride` None is the
    window. Saves the winning tap of each window, one byte for up to 255 taps, and not x.
    """
    win = pooling_windows("max_pool", x, window, stride, padding, dilation)
    met, first = _stacked(x, win)
    return jnp.take_along_axis(met, jnp.expand_dims(first, -1), -1)[..., 0]


@max_pool.fwd
def max_pool_fwd(x, *, window, stride, padding, dilation):
    win = pooling_windows("max_pool", x, window, stride, padding, dilation)
    dtype = jnp.uint8 if win.taps <= 255 else jnp.int32
    y, tap = first_largest(taps(x, win, -jnp.inf), win, list(range(win.taps)), dtype)
    return y, (tap, Static(win))


@max_pool.bwd
def max_pool_bwd(residuals, dy, **_):
    tap, win = residuals

    def term(number, tap, dy):
        return jnp.where(tap == number.astype(tap.dtype), dy, 0)

    wide = jnp.promote_types(dy.dtype, jnp.float32)
    return gather_back(win.value, term, tap, dy.astype(wide))
