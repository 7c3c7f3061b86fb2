"""Averages and norms over windows."""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

from ..custom_op import Static, op
from ..example import Example, example, normal, values
from .geometry import Padding, Sizes
from .norm_parts import at_least_float32
from .taps import add_up, blocks, counts, over_windows, pooling_windows, stack_taps, to_inputs


def _examples(*more: Example, **statics) -> tuple[Example, ...]:
    return (
        example(x=normal(2, 4, 6, 3), window=2, **statics),
        example(x=normal(1, 7, 7, 2), window=2, **statics),
        example(x=normal(2, 7, 5, 2), window=3, stride=2, padding=1, **statics),
        example(x=normal(1, 5, 6, 2), window=(3, 2), stride=1, padding="SAME", **statics),
        example(x=normal(1, 9, 8, 1), window=2, stride=3, **statics),
        example(x=normal(1, 7, 8, 2), window=3, stride=2, padding=2, dilation=2, **statics),
        example(x=normal(2, 9, 2), window=4, stride=3, padding=((2, 1),), **statics),
        example(x=normal(1, 4, 5, 3, 2), window=2, stride=(2, 1, 2), padding=(0, 1, 1), **statics),
        example(x=normal(1, 1, 1, 1), window=1, **statics),
        example(x=normal(0, 4, 4, 2), window=2, **statics),
        example(x=normal(1, 4, 4, 1, scale=1e4), window=2, tags={"extreme"}, **statics),
        *more,
    )


def _mean_by_reduce_window(x, *, window, stride, padding, dilation, count_padding):
    win = pooling_windows("avg_pool", x, window, stride, padding, dilation)

    def total(x):
        ends = ((0, 0), *win.padding, (0, 0))
        size, stride = (1, *win.size, 1), (1, *win.stride, 1)
        zero, dilation = np.zeros((), x.dtype), (1, *win.dilation, 1)
        return jax.lax.reduce_window(
            x, zero, jax.lax.add, size, stride, ends, window_dilation=dilation
        )

    return total(x) / (win.taps if count_padding else total(jnp.ones_like(x)))


@op(
    reference=_mean_by_reduce_window,
    examples=(
        *_examples(example(x=normal(64, 28, 28, 32), window=2, tags={"bench"})),
        *_examples(count_padding=False),
    ),
    source="LeCun, Bottou, Bengio & Haffner 1998, Proc. IEEE, doi:10.1109/5.726791",
)
def avg_pool(
    x,
    *,
    window: Sizes,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
    count_padding: bool = True,
):
    """Take the mean of each window.

        yᵢ = (1/cᵢ) Σ over taps t of x[i s + t d],   x̄ⱼ = Σ of ȳᵢ/cᵢ over the windows i that meet j

    Padding counts as 0. cᵢ is the number of taps, or, without `count_padding`, of those taps that
    meet no padding. A window of padding alone is an error.
    Shapes: x (batch, *space, channels) -> y (batch, *places, channels); `stride` None is the
    window. Saves nothing.
    """
    win = pooling_windows("avg_pool", x, window, stride, padding, dilation)
    number = win.taps if count_padding else jnp.asarray(counts(win), x.dtype)
    return jnp.sum(stack_taps(x, win, 0.0), -1) / number


@avg_pool.def_fwd
def avg_pool_fwd(x, *, window, stride, padding, dilation, count_padding):
    win = pooling_windows("avg_pool", x, window, stride, padding, dilation)

    def mean(arrays, numbers):
        total = functools.reduce(operator.add, map(at_least_float32, arrays))
        return ((total / (win.taps if count_padding else len(numbers))).astype(x.dtype),)

    return over_windows(x, win, mean)[0], Static(win)


@avg_pool.def_bwd
def avg_pool_bwd(win, dy, *, count_padding, **statics):
    del statics
    dy, number = at_least_float32(dy), counts(win.value)
    if count_padding or (number == win.value.taps).all():
        share = dy / win.value.taps
    else:
        share = dy / jnp.asarray(number, dy.dtype)
    win = win.value
    overlap = any(e > s for e, s in zip(win.extent, win.stride, strict=True))
    if overlap and max(win.stride) > 1:
        return to_inputs(win, lambda _, share: share, share)
    return add_up([share] * win.taps, win)


def _norm_by_loop(x, *, p, window, stride, padding, dilation):
    """By numpy, a place at a time."""
    win = pooling_windows("lp_pool", x, window, stride, padding, dilation)
    padded = np.pad(np.asarray(x), ((0, 0), *win.padding, (0, 0)))
    y = np.zeros((x.shape[0], *win.outputs, x.shape[-1]), padded.dtype)
    for place in np.ndindex(win.outputs):
        each = zip(place, win.stride, win.extent, win.dilation, strict=True)
        cut = tuple(slice(i * s, i * s + e, d) for i, s, e, d in each)
        numbers = padded[(slice(None), *cut)].reshape(x.shape[0], win.taps, x.shape[-1])
        y[(slice(None), *place)] = np.linalg.norm(numbers, p, axis=1)
    return y


@op(
    reference=_norm_by_loop,
    examples=(
        *_examples(p=2.0),
        example(x=normal(2, 5, 4, 2), p=1.0, window=2, stride=1),
        example(x=normal(2, 5, 4, 2), p=3.5, window=(2, 3), stride=2, padding=1),
        example(x=normal(2, 6, 2), p=1.5, window=3),
        example(x=normal(64, 28, 28, 32), p=2.0, window=2, tags={"bench"}),
        example(x=values(*np.zeros((1, 4, 2))), p=2.0, window=2, tags={"kink"}),
        example(x=values([[0.0], [0.0], [1.0], [0.0]]), p=1.5, window=2, tags={"kink"}),
        example(x=values([[1e30], [-1e30], [1e-30], [0.0]]), p=2.0, window=2, tags={"extreme"}),
    ),
    source="Sermanet, Chintala & LeCun 2012, ICPR, arXiv:1204.3968",
)
def lp_pool(
    x,
    *,
    p: float,
    window: Sizes,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
):
    """Take the p-norm of each window, p ≥ 1.

        yᵢ = (Σ over taps t of |x[i s + t d]|ᵖ)^(1/p)
        x̄ⱼ = Σ of ȳᵢ sign(xⱼ) (|xⱼ| / yᵢ)^(p-1) over the windows i that meet j

    |xⱼ| ≤ yᵢ, so no factor exceeds 1. A window of zeros is the norm's kink: its subgradients are
    a ball around 0, and 0 is taken. So is 0 for |x| at 0, where p = 1. Padding counts as 0.
    Shapes: x (batch, *space, channels) -> y (batch, *places, channels); `stride` None is the
    window. Saves x and y.
    """
    win = _norm_windows(x, p, window, stride, padding, dilation)
    return _norm(list(jnp.moveaxis(stack_taps(x, win, 0.0), -1, 0)), p)


@lp_pool.def_fwd
def lp_pool_fwd(x, *, p, window, stride, padding, dilation):
    win = _norm_windows(x, p, window, stride, padding, dilation)

    def norm(arrays, _):
        return (_norm([at_least_float32(a) for a in arrays], p).astype(x.dtype),)

    y = over_windows(x, win, norm)[0]
    return y, (x, y, Static(win))


@lp_pool.def_bwd
def lp_pool_bwd(residuals, dy, *, p, **statics):
    del statics
    x, y, win = residuals
    here = blocks(at_least_float32(x), win.value)

    def share(_, y, dy):
        ratio = jnp.where(y == 0, 0, here) / jnp.where(y == 0, 1, y)
        if p % 2 == 0:
            return dy * ratio ** int(p - 1)
        size = jnp.where(ratio == 0, 1, jnp.abs(ratio))  # whose power has a slope, that of 0 none
        return dy * jnp.sign(ratio) * size ** (p - 1)

    return to_inputs(win.value, share, at_least_float32(y), at_least_float32(dy))


def _norm_windows(x, p, *geometry):
    if not 1 <= p < math.inf:
        raise ValueError(f"lp_pool: p must be a finite number of at least 1, got {p!r}")
    return pooling_windows("lp_pool", x, *geometry)


def _norm(arrays, p):
    """(Σ |a|ᵖ)^(1/p), by the largest |a|, so that no power overflows; its gradient cancels."""
    largest = jax.lax.stop_gradient(functools.reduce(jnp.maximum, map(jnp.abs, arrays)))
    scale = jnp.where((largest > 0) & (largest < jnp.inf), largest, 1)
    total = functools.reduce(operator.add, [_power(a / scale, p) for a in arrays])
    some = total > 0
    return jnp.where(some, scale * jnp.where(some, total, 1) ** (1 / p), total)


def _power(a, p):
    """|a|ᵖ, of slope 0 at 0 (that of JAX's |a| is 1); an even power is smooth, and needs no |a|."""
    return a ** int(p) if p % 2 == 0 else (a * jnp.sign(a)) ** p
