"""Padding: more numbers around each spatial axis, constant ones or copies of inner ones.

A negative padding is a crop: it takes numbers away from the end of an axis.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..custom_op import op
from ..errors import ShapeError
from ..example import example, normal, values
from .geometry import Sizes, paddings, spatial

Mode = Literal["constant", "reflect", "edge", "circular"]

_FROM = {
    "reflect": lambda i, n: (n - 1) - abs((n - 1) - abs(i)),
    "edge": lambda i, n: np.clip(i, 0, n - 1),
    "circular": lambda i, n: i % max(n, 1),
}
"""By mode: which of an axis's n numbers stands at place i, counted from the first of them."""


def _ends(x, padding, mode):
    """How many numbers stand before and behind each spatial axis."""
    if mode not in ("constant", *_FROM):
        raise ValueError(
            f"pad: mode must be 'constant', 'reflect', 'edge' or 'circular', got {mode!r}"
        )
    inside = spatial("pad", x)
    if isinstance(padding, str):
        raise ValueError(f"pad: padding must be numbers, got {padding!r}")
    crops = mode == "constant"
    ends = paddings("pad", padding, inside, (1,) * len(inside), (1,) * len(inside), crops=crops)
    for n, end in zip(inside, ends, strict=True):
        if n + sum(end) < 0:
            raise ShapeError(f"pad: padding {padding!r} crops more than the {n} numbers of an axis")
        most = {"constant": max(end), "reflect": n - 1, "edge": max(end) if n else 0}.get(mode, n)
        if max(end) > max(most, 0):
            raise ShapeError(
                f"pad: mode {mode!r} has {max(most, 0)} numbers to give for an axis of {n}, and "
                f"padding {padding!r} asks for {max(end)}; pad less, or with mode 'constant'"
            )
    return ends


def _examples(mode):
    return (
        example(x=normal(2, 5, 4, 3), padding=2, mode=mode),
        example(x=normal(1, 7, 1), padding=((3, 1),), mode=mode),
        example(x=normal(2, 3, 4, 3, 1), padding=((1, 2), (0, 0), (0, 2)), mode=mode),
        example(x=normal(2, 1, 3, 2), padding=(0, 2), mode=mode),
        example(x=normal(0, 3, 4, 2), padding=1, mode=mode),
        example(x=values([[1e4], [-1e4], [3.0]]), padding=2, mode=mode, tags={"extreme"}),
        example(x=normal(8, 128, 128, 32), padding=3, mode=mode, tags={"bench"}),
    )


def _reference(x, *, padding, mode, value):
    ends = np.array([(0, 0), *_ends(x, padding, mode), (0, 0)])
    widths, cuts = np.maximum(ends, 0), np.maximum(-ends, 0)
    if mode == "constant":
        y = jnp.pad(x, widths, constant_values=value)
        return y[tuple(slice(a, n - b) for n, (a, b) in zip(y.shape, cuts, strict=True))]
    return jnp.pad(x, widths, {"circular": "wrap"}.get(mode, mode))


@op(
    reference=_reference,
    examples=(
        *_examples("constant"),
        *_examples("reflect"),
        *_examples("edge"),
        *_examples("circular"),
        example(x=normal(2, 3, 2), padding=1, value=-1.5),
        example(x=normal(2, 4, 5, 2), padding=((-1, 2), (1, -3)), value=0.5),
        example(x=normal(2, 1, 3), padding=3, mode="edge"),
    ),
    source="the boundary conditions of image processing: Gonzalez & Woods, section 3.4",
)
def pad(x, *, padding: Sizes | tuple[tuple[int, int], ...], mode: Mode = "constant", value=0.0):
    """Put l numbers before and r behind each spatial axis.

        y[i] = x[s(i - l)],   x̄[j] = Σ ȳ[i] over all i with s(i - l) = j

    Inside the axis s(i) = i. Outside it there is `value` (`"constant"`), or a copy: of the number
    as far from the end on the other side of it (`"reflect"`; the end itself is not repeated), of
    the end (`"edge"`), or of the number at the other end (`"circular"`: s(i) = i mod n). So x̄ adds
    what the copies receive to what the original receives.
    `padding` is a number, or a number or a pair (l, r) for each spatial axis. With `"constant"` a
    negative l or r crops: x̄ is 0 where x was cropped. To reflect needs l, r < n, to go round
    l, r ≤ n, to crop n + l + r ≥ 0; else ShapeError.
    Shapes: x (batch, *space, channels) -> y (batch, *(l + n + r), channels). Saves nothing.
    """
    for axis, (n, (before, behind)) in enumerate(
        zip(x.shape[1:-1], _ends(x, padding, mode), strict=True), 1
    ):
        i = np.arange(-before, n + behind)
        if mode != "constant":
            x = jnp.take(x, _FROM[mode](i, n), axis)
        else:
            inside = ((i >= 0) & (i < n)).reshape(-1, *[1] * (x.ndim - 1 - axis))
            inside = np.broadcast_to(inside, (*x.shape[:axis], i.size, *x.shape[axis + 1 :]))
            numbers = jnp.take(x, np.clip(i, 0, n - 1), axis) if n else jnp.zeros(inside.shape)
            x = jnp.where(inside, numbers.astype(x.dtype), jnp.asarray(value, x.dtype))
    return x


@pad.def_fwd
def pad_fwd(x, *, padding, mode, value):
    ends = _ends(x, padding, mode)
    if mode == "constant":
        widths = [(0, 0, 0), *((*end, 0) for end in ends), (0, 0, 0)]
        return jax.lax.pad(x, jnp.asarray(value, x.dtype), widths), None
    for axis, (before, behind) in enumerate(ends, 1):
        parts = [x]
        if before:
            parts.insert(0, _copies(x, axis, mode, before, True))
        if behind:
            parts.append(_copies(x, axis, mode, behind, False))
        x = jnp.concatenate(parts, axis)
    return x, None


@pad.def_bwd
def pad_bwd(residuals, dy, *, padding, mode, value):
    del residuals, value
    axes = dy.ndim - 2
    ends = paddings("pad", padding, (1,) * axes, (1,) * axes, (1,) * axes, crops=True)
    if mode == "constant":
        widths = [(0, 0, 0), *((-before, -behind, 0) for before, behind in ends), (0, 0, 0)]
        return jax.lax.pad(dy, jnp.zeros((), dy.dtype), widths)
    return _fold_ends(dy, mode, 1, ends)


def _source(mode, n, count, before):
    """The slice of an axis of n that is copied to one of its ends, `count` numbers wide."""
    if mode == "reflect":
        return slice(1, count + 1) if before else slice(n - 1 - count, n - 1)
    if mode == "circular":
        return slice(n - count, n) if before else slice(0, count)
    return slice(0, 1) if before else slice(n - 1, n)


def _copies(x, axis, mode, count, before):
    """The numbers to put at one end of an axis."""
    source = _source(mode, x.shape[axis], count, before)
    part = jax.lax.slice_in_dim(x, source.start, source.stop, axis=axis)
    if mode == "edge":
        return jnp.broadcast_to(part, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    return jnp.flip(part, axis) if mode == "reflect" else part


def _fold_ends(dy, mode, axis, ends):
    """Fold the ends of this axis and the following onto what they are copies of.

    The corners are folded among themselves first, so that the large middle is copied once.
    """
    if not ends:
        return dy
    (before, behind), n = ends[0], dy.shape[axis] - sum(ends[0])

    def part(start, stop):
        return _fold_ends(
            jax.lax.slice_in_dim(dy, start, stop, axis=axis), mode, axis + 1, ends[1:]
        )

    dx = part(before, before + n)
    for count, start in ((before, 0), (behind, before + n)):
        if count:
            copies = part(start, start + count)
            if mode == "edge":
                copies = jnp.sum(copies, axis, keepdims=True)
            elif mode == "reflect":
                copies = jnp.flip(copies, axis)
            source = _source(mode, n, count, start == 0)
            dx = dx.at[(slice(None),) * axis + (source,)].add(copies)
    return dx
