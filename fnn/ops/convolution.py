"""Convolution: one small set of weights at every place. And its transpose."""

import functools
import operator

import jax.numpy as jnp

from ..custom_op import Static, op
from ..errors import ShapeError
from ..example import example, normal
from .correlation import (
    correlate,
    correlate_by_xla,
    exchange_channels,
    spread,
    spread_by_xla,
    weigh,
)
from .geometry import Padding, Sizes, spatial, transposed_windows, windows
from .norm_parts import add_bias
from .taps import pad_with_zeros


def _fitting(name, x, w, groups):
    """Check the channels of x and w; return the lengths of space, and of the window."""
    space = spatial(name, x)
    if w.ndim != x.ndim:
        raise ShapeError(
            f"{name}: w must be ({len(space)} axes of the window, inputs, outputs) for x "
            f"{x.shape}, got {w.shape}"
        )
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f"{name}: groups must be a whole number of at least 1, got {groups!r}")
    for what, channels in (("inputs", x.shape[-1]), ("outputs", w.shape[-1])):
        if channels % groups:
            raise ShapeError(f"{name}: {groups} groups do not divide {channels} {what}")
    if w.shape[-2] * groups != x.shape[-1]:
        raise ShapeError(
            f"{name}: w {w.shape} takes {w.shape[-2] * groups} inputs, {w.shape[-2]} in each of "
            f"{groups} groups; x {x.shape} has {x.shape[-1]}"
        )
    return space, w.shape[:-2]


def _places(x, w, groups, **statics):
    return windows("conv", *_fitting("conv", x, w, groups), **statics)


def _origins(x, w, groups, **statics):
    name = "conv_transpose"
    return transposed_windows(name, *_fitting(name, x, w, groups), **statics)


def _split_groups(x, groups):
    """Part the channels: (..., channels) to (..., groups, channels of a group)."""
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def _join_groups(y):
    """Put the groups' channels side by side again."""
    return y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1])


def _conv_reference(x, w, b, *, groups, **statics):
    return add_bias(correlate_by_xla(x, w, _places(x, w, groups, **statics), groups), b)


_SOURCE = "LeCun et al. 1989, Neural Computation, doi:10.1162/neco.1989.1.4.541"


@op(
    reference=_conv_reference,
    examples=(
        example(x=normal(2, 5, 6, 3), w=normal(3, 2, 3, 4), b=normal(4)),
        example(x=normal(2, 5, 6, 3), w=normal(3, 3, 3, 4), padding="SAME"),
        example(x=normal(2, 9, 3), w=normal(4, 3, 2), b=normal(2), stride=3, padding=((2, 0),)),
        example(x=normal(1, 4, 5, 3, 2), w=normal(2, 3, 2, 2, 3), stride=(1, 2, 1), padding=1),
        example(x=normal(2, 8, 7, 4), w=normal(3, 3, 2, 6), stride=2, padding="SAME", groups=2),
        example(x=normal(2, 6, 7, 3), w=normal(3, 2, 1, 6), b=normal(6), padding=1, groups=3),
        example(x=normal(2, 7, 6, 2), w=normal(3, 3, 1, 2), stride=2, padding="SAME", groups=2),
        example(x=normal(1, 9, 8, 2), w=normal(3, 2, 2, 2), dilation=(2, 3), padding="SAME"),
        example(x=normal(1, 9, 2), w=normal(3, 2, 2), dilation=2, stride=2, padding=1),
        example(x=normal(3, 4, 5, 2), w=normal(1, 1, 2, 3), b=normal(3)),
        example(x=normal(3, 5, 5, 2), w=normal(1, 1, 2, 3), stride=2),
        example(x=normal(1, 3, 3, 1), w=normal(3, 3, 1, 1), padding=4),
        example(x=normal(1, 5, 5, 2), w=normal(1, 1, 1, 2), padding=1, groups=2),
        example(x=normal(0, 4, 4, 2), w=normal(3, 3, 2, 3), b=normal(3)),
        example(x=normal(2, 5, 5, 2, scale=1e4), w=normal(3, 3, 2, 2), tags={"extreme"}),
        example(x=normal(64, 28, 28, 32), w=normal(3, 3, 32, 64), padding="SAME", tags={"bench"}),
        example(x=normal(128, 32, 32, 64), w=normal(3, 3, 64, 64), padding="SAME", tags={"bench"}),
        example(
            x=normal(64, 14, 14, 128), w=normal(3, 3, 128, 128), padding="SAME", tags={"bench"}
        ),
        example(
            x=normal(16, 56, 56, 64), w=normal(3, 3, 64, 64), stride=2, padding=1, tags={"bench"}
        ),
        example(x=normal(64, 14, 14, 32), w=normal(5, 5, 32, 64), padding="SAME", tags={"bench"}),
        example(x=normal(32, 28, 28, 64), w=normal(1, 1, 64, 256), tags={"bench"}),
        example(
            x=normal(16, 28, 28, 64), w=normal(3, 3, 16, 64), padding=1, groups=4, tags={"bench"}
        ),
        example(
            x=normal(16, 28, 28, 64), w=normal(3, 3, 1, 64), padding=1, groups=64, tags={"bench"}
        ),
    ),
    source=_SOURCE,
)
def conv(
    x,
    w,
    b=None,
    *,
    stride: Sizes = 1,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
    groups: int = 1,
):
    """Slide one window of weights over space, and multiply at every place.

        y[n, p, o] = Σₜ Σ_c x[n, s p + d t - l, c] w[t, c, o] + b[o]

    p are places and t taps, one index per spatial axis; s is the stride, d the dilation, l the
    padding before the axis; x is 0 outside. With several groups, outputs of group g see the inputs
    of group g alone; as many groups as channels is a depthwise convolution.

    Shapes: x (batch, *space, in), w (*window, in / groups, out), b (out,) or None
    -> y (batch, *places, out), with 1, 2 or 3 spatial axes; see `fnn.ops.geometry` for the places.
    Backward: each number goes back to whatever it was multiplied with,

        x̄[n, s p + d t - l, c] += Σ_o ȳ[n, p, o] w[t, c, o]
        w̄[t, c, o] = Σₙ Σₚ x[n, s p + d t - l, c] ȳ[n, p, o],   b̄[o] = Σₙ Σₚ ȳ[n, p, o]

    A weight is shared by all places, so its gradient is the sum over all of them. Saves x and w.

    Raises ShapeError where the window is larger than the padded input, or the groups do not divide
    the channels.
    """
    at = _places(x, w, groups, stride=stride, padding=padding, dilation=dilation)
    x = pad_with_zeros(x, at)
    w = jnp.moveaxis(_split_groups(w, groups), -2, -3)  # (*window, group, in, out)
    products = (
        jnp.einsum("...gi,gio->...go", _split_groups(x[(slice(None), *at.slices(o))], groups), w[t])
        for t, o in at.offsets()
    )
    y = functools.reduce(operator.add, products)
    return add_bias(_join_groups(y), b)


@conv.def_fwd
def conv_fwd(x, w, b, *, groups, **statics):
    at = _places(x, w, groups, **statics)
    return add_bias(correlate(x, w, at, groups), b), (x, w, Static(at))


@conv.def_bwd
def conv_bwd(residuals, dy, *, groups, **statics):
    del statics
    x, w, at = residuals
    return spread(dy, w, at.value, groups), weigh(x, dy, at.value, groups), dy


def _conv_transpose_reference(x, w, b, *, groups, **statics):
    at = _origins(x, w, groups, **statics)
    return add_bias(spread_by_xla(x, exchange_channels(w, groups), at, groups), b)


@op(
    reference=_conv_transpose_reference,
    examples=(
        example(x=normal(2, 4, 3, 3), w=normal(2, 3, 3, 4), b=normal(4)),
        example(x=normal(2, 4, 3, 3), w=normal(3, 3, 3, 2), stride=2, padding="SAME"),
        example(x=normal(2, 4, 3), w=normal(4, 3, 2), b=normal(2), stride=3, padding=((2, 0),)),
        example(x=normal(2, 3, 4, 2), w=normal(3, 3, 2, 2), stride=2, padding=1, output_padding=1),
        example(x=normal(1, 2, 3, 3, 2), w=normal(2, 3, 2, 2, 3), stride=(1, 2, 1), padding=1),
        example(x=normal(2, 3, 4, 4), w=normal(3, 3, 2, 6), stride=2, padding=1, groups=2),
        example(x=normal(2, 4, 3, 3), w=normal(4, 4, 1, 6), stride=2, padding=1, groups=3),
        example(x=normal(1, 5, 2), w=normal(3, 2, 2), dilation=2, padding=2),
        example(x=normal(1, 4, 2), w=normal(3, 2, 2), dilation=3, stride=2, output_padding=(1,)),
        example(x=normal(2, 3, 3, 2), w=normal(1, 1, 2, 3), stride=2, output_padding=1),
        example(x=normal(1, 1, 1, 1), w=normal(3, 3, 1, 1)),
        example(x=normal(0, 4, 4, 2), w=normal(3, 3, 2, 3), b=normal(3), stride=2),
        example(x=normal(2, 3, 3, 2, scale=1e4), w=normal(3, 3, 2, 2), tags={"extreme"}),
        example(
            x=normal(32, 14, 14, 64), w=normal(4, 4, 64, 32), stride=2, padding=1, tags={"bench"}
        ),
        example(
            x=normal(32, 14, 14, 64),
            w=normal(3, 3, 64, 32),
            stride=2,
            padding="SAME",
            tags={"bench"},
        ),
    ),
    source="Zeiler, Krishnan, Taylor & Fergus 2010, Deconvolutional networks, CVPR",
)
def conv_transpose(
    x,
    w,
    b=None,
    *,
    stride: Sizes = 1,
    padding: Padding = "VALID",
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
):
    """Go the way of a convolution's gradient: each number paints a whole window, scaled.

        y[n, s p + d t - l, o] += Σ_c x[n, p, c] w[t, c, o],   then + b[o]

    It enlarges space by its stride: from m numbers to s (m - 1) + d (k - 1) + 1 - l - r + a, where
    padding l, r cuts the ends off, and a (`output_padding`, less than the stride) adds to the last.
    With `padding="SAME"` there are s m. Where w is not finite, more than its window may be NaN:
    0·∞ is NaN.

    Shapes: x (batch, *space, in), w (*window, in / groups, out), b (out,) or None
    -> y (batch, *larger space, out), with 1, 2 or 3 spatial axes.
    Backward: what painted now reads, so x̄ is a convolution of ȳ,

        x̄[n, p, c] = Σₜ Σ_o ȳ[n, s p + d t - l, o] w[t, c, o]
        w̄[t, c, o] = Σₙ Σₚ x[n, p, c] ȳ[n, s p + d t - l, o],   b̄[o] = Σₙ Σ ȳ[n, ·, o]

    Saves x and w. Raises ShapeError where padding cuts everything off, `output_padding` is not less
    than the stride, or the groups do not divide the channels.
    """
    statics = {"stride": stride, "padding": padding, "dilation": dilation}
    at = _origins(x, w, groups, **statics, output_padding=output_padding)
    w = jnp.moveaxis(_split_groups(w, groups), -2, -3)  # (*window, group, in, out)
    y = jnp.zeros((len(x), *at.padded, w.shape[-3] * w.shape[-1]), x.dtype)
    for t, o in at.offsets():
        window = jnp.einsum("...gi,gio->...go", _split_groups(x, groups), w[t])
        y = y.at[(slice(None), *at.slices(o))].add(_join_groups(window))
    return add_bias(y[(slice(None), *at.inside)], b)


@conv_transpose.def_fwd
def conv_transpose_fwd(x, w, b, *, groups, **statics):
    at = _origins(x, w, groups, **statics)
    y = spread(x, exchange_channels(w, groups), at, groups)
    return add_bias(y, b), (x, w, Static(at))


@conv_transpose.def_bwd
def conv_transpose_bwd(residuals, dy, *, groups, **statics):
    del statics
    x, w, at = residuals
    dx = correlate(dy, exchange_channels(w, groups), at.value, groups)
    return dx, exchange_channels(weigh(dy, x, at.value, groups), groups), dy
