"""The windows of a convolution laid out side by side, and put back."""

import jax.numpy as jnp
from jax import lax

from ..custom_op import Static, op
from ..errors import ShapeError
from ..example import example, normal
from .geometry import Padding, Sizes, sizes, spatial, windows
from .taps import add_up, pad_with_zeros


def _windows(x, window, stride, padding, dilation):
    inside = spatial("unfold", x)
    return windows("unfold", inside, window, stride, padding, dilation).check_taps("unfold")


def _lay_out(x, at):
    """Put what each window holds side by side: (..., taps times channels)."""
    x = pad_with_zeros(x, at)
    return jnp.concatenate([x[(slice(None), *at.slices(o))] for _, o in at.offsets()], -1)


def _put_back(y, at):
    """Add the numbers of each row to their places of origin: the transpose of `_lay_out`."""
    return add_up(jnp.split(y, at.taps, -1), at)


def _unfold_reference(x, *, window, stride, padding, dilation):
    at = _windows(x, window, stride, padding, dilation)
    space = "DHW"[-len(at.size) :]
    y = lax.conv_general_dilated_patches(
        x,
        at.size,
        at.stride,
        at.padding,
        rhs_dilation=at.dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
    )
    split = y.reshape(*y.shape[:-1], x.shape[-1], at.taps)
    return jnp.swapaxes(split, -1, -2).reshape(y.shape)


@op(
    reference=_unfold_reference,
    examples=(
        example(x=normal(2, 5, 4, 3), window=2),
        example(x=normal(2, 5, 4, 3), window=(3, 2), stride=2, padding=1),
        example(x=normal(2, 5, 4, 3), window=3, stride=(1, 3), padding="SAME"),
        example(x=normal(2, 5, 4, 3), window=2, dilation=3, padding=((0, 2), (1, 0))),
        example(x=normal(2, 8, 2), window=3, stride=2),
        example(x=normal(1, 3, 4, 3, 1), window=2, stride=(1, 2, 1)),
        example(x=normal(1, 1, 1), window=1),
        example(x=normal(0, 4, 4, 2), window=2),
        example(x=normal(1, 4, 4, 1, scale=1e30), window=3, tags={"extreme"}),
        example(x=normal(16, 28, 28, 32), window=3, tags={"bench"}),
    ),
    source="im2col: Chellapilla, Puri & Simard 2006, IWFHR",
)
def unfold(x, *, window: Sizes, stride: Sizes = 1, padding: Padding = "VALID", dilation: Sizes = 1):
    """Lay the windows out, one row each, so that a convolution becomes a matrix product.

        y[n, p, (t, c)] = x[n, s p + d t - l, c],   x̄[n, s p + d t - l, c] += ȳ[n, p, (t, c)]

    A row goes through the taps and, for each, through the channels: with
    w (*window, in, out), `unfold(x, window=...) @ w.reshape(-1, out)` is `conv(x, w)`.

    Shapes: x (batch, *space, c) -> y (batch, *places, taps c), with 1, 2 or 3 spatial axes. Saves
    nothing but sizes. Raises ShapeError where the window is larger than the padded input.
    """
    at = _windows(x, window, stride, padding, dilation)
    x = pad_with_zeros(x, at)
    y = jnp.stack([x[(slice(None), *at.slices(o))] for _, o in at.offsets()], -2)
    return y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1])


@unfold.def_fwd
def unfold_fwd(x, *, window, stride, padding, dilation):
    at = _windows(x, window, stride, padding, dilation)
    return _lay_out(x, at), Static(at)


@unfold.def_bwd
def unfold_bwd(at, dy, **statics):
    del statics
    return _put_back(dy, at.value)


def _fold_windows(y, size, window, stride, padding, dilation):
    """Return the windows on the array that y folds to. Raises ShapeError where y does not fit."""
    space = spatial("fold", y)
    at = windows("fold", sizes("fold", "size", size, len(space)), window, stride, padding, dilation)
    if at.outputs != space:
        raise ShapeError(
            f"fold: a window {at.size} has {at.outputs} places on {at.inputs}, y {y.shape} has "
            f"{space}"
        )
    if y.shape[-1] % at.taps:
        raise ShapeError(f"fold: {at.taps} taps do not divide the {y.shape[-1]} numbers of a row")
    return at


@op(
    examples=(
        example(y=normal(2, 4, 3, 12), size=(5, 4), window=2),
        example(y=normal(2, 3, 3, 18), size=(5, 4), window=(3, 2), stride=2, padding=1),
        example(y=normal(2, 5, 2, 9), size=(5, 4), window=3, stride=(1, 3), padding="SAME"),
        example(y=normal(2, 3, 6), size=8, window=3, stride=2),
        example(y=normal(1, 2, 2, 2, 8), size=(3, 4, 3), window=2, stride=(1, 2, 1)),
        example(y=normal(1, 2, 3), size=7, window=3, dilation=2, stride=2),
        example(y=normal(1, 1, 1), size=1, window=1),
        example(y=normal(0, 3, 3, 8), size=4, window=2),
        example(y=normal(1, 2, 2, 9, scale=1e30), size=4, window=3, tags={"extreme"}),
        example(y=normal(16, 26, 26, 288), size=28, window=3, tags={"bench"}),
    ),
    source="col2im: Chellapilla, Puri & Simard 2006, IWFHR",
)
def fold(
    y,
    *,
    size: Sizes,
    window: Sizes,
    stride: Sizes = 1,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
):
    """Put windows back where `unfold` took them from, and add where they overlap.

        x[n, s p + d t - l, c] += y[n, p, (t, c)],   ȳ[n, p, (t, c)] = x̄[n, s p + d t - l, c]

    Shapes: y (batch, *places, taps c) -> x (batch, *size, c), with 1, 2 or 3 spatial axes. Saves
    nothing but sizes. Raises ShapeError where y has not the places and taps of such windows.
    """
    at = _fold_windows(y, size, window, stride, padding, dilation)
    x = jnp.zeros((len(y), *at.padded, y.shape[-1] // at.taps), y.dtype)
    for part, (_, o) in zip(jnp.split(y, at.taps, -1), at.offsets(), strict=True):
        x = x.at[(slice(None), *at.slices(o))].add(part)
    return x[(slice(None), *at.inside)]


@fold.def_fwd
def fold_fwd(y, *, size, window, stride, padding, dilation):
    at = _fold_windows(y, size, window, stride, padding, dilation)
    return _put_back(y, at), Static(at)


@fold.def_bwd
def fold_bwd(at, dx, **statics):
    del statics
    return _lay_out(dx, at.value)
