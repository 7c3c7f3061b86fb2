"""Resizing: numbers on a grid of other lengths, interpolated or exchanged with channels.

Interpolation is separable: each axis is multiplied by a matrix of its own, whose rows hold one, two
or four numbers that are not 0, the taps. The backward pass multiplies by the transposed matrices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from ..custom_op import Static, op
from ..errors import ShapeError
from ..example import example, normal, values
from .geometry import Sizes, sizes, spatial

Method = Literal["nearest", "nearest-exact", "linear", "bicubic"]

_MOST_TERMS = 32
"""A longer sum of taps is left to a matrix product, or to a reduction."""

_A = -0.75
"""The free parameter of Keys' cubic kernel: its slope at distance 1."""


def _sources(n, m, align_corners):
    """Where each of m places lies among n numbers, which stand at 0, 1, ..., n - 1."""
    if align_corners:
        return np.arange(m) * ((n - 1) / (m - 1) if m > 1 else 0.0)
    return (np.arange(m) + 0.5) * (n / m) - 0.5


def _cubic(t):
    """Keys' kernel at the four taps around a place that lies t behind the second of them."""
    near = [((_A + 2) * d - (_A + 3)) * d * d + 1 for d in (t, 1 - t)]
    far = [((_A * d - 5 * _A) * d + 8 * _A) * d - 4 * _A for d in (t + 1, 2 - t)]
    return [far[0], *near, far[1]]


def _taps(n, m, method, align_corners):
    """The numbers that each of m places is made of, and their weights: two arrays (m, taps)."""
    if method == "nearest":
        return (np.arange(m) * n // m)[:, None], np.ones((m, 1))
    if method == "nearest-exact":
        return ((2 * np.arange(m) + 1) * n // (2 * m))[:, None], np.ones((m, 1))
    at = _sources(n, m, align_corners)
    if method == "linear":
        at = np.maximum(at, 0)
    first = np.floor(at)
    t = at - first
    offsets, weights = ((0, 1), [1 - t, t]) if method == "linear" else ((-1, 0, 1, 2), _cubic(t))
    index = first.astype(int)[:, None] + np.array(offsets)
    return np.clip(index, 0, n - 1), np.stack(weights, 1)


def _checked(x, size, method, align_corners):
    """The lengths of the spatial axes, before and after."""
    if method not in get_args(Method):
        raise ValueError(
            "resize: method must be 'nearest', 'nearest-exact', 'linear' or 'bicubic', got "
            f"{method!r}"
        )
    if method.startswith("nearest") and align_corners:
        raise ValueError(f"resize: align_corners is for 'linear' and 'bicubic', not for {method!r}")
    inside = spatial("resize", x)
    if 0 in inside:
        raise ShapeError(
            f"resize: x {tuple(x.shape)} has an empty spatial axis, and nothing to interpolate; "
            "each must hold at least 1 number"
        )
    return inside, sizes("resize", "size", size, len(inside))


def _reference(x, *, size, method, align_corners):
    """JAX's own interpolation, for what both compute: not of cubic kernels, nor of corners."""
    inside, size = _checked(x, size, method, align_corners)
    if method == "nearest":
        for axis, (n, m) in enumerate(zip(inside, size, strict=True), 1):
            x = jnp.stack(
                [jax.lax.index_in_dim(x, i * n // m, axis, False) for i in range(m)], axis
            )
        return x
    method = {"nearest-exact": "nearest"}.get(method, method)
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), method, antialias=False)


_SHAPES = (
    ((2, 5, 4, 3), (7, 9)),
    ((2, 7, 6, 1), (3, 4)),
    ((1, 4, 6, 9), (8, 2)),
    ((2, 5, 2), 11),
    ((1, 3, 2, 4, 2), (5, 4, 2)),
    ((2, 1, 3, 2), (4, 1)),
    ((0, 3, 4, 2), 5),
)


def _examples(method, align_corners):
    unlike = {"no reference"} if method == "bicubic" or align_corners else set()
    return (
        *(
            example(x=normal(*x), size=m, method=method, align_corners=align_corners, tags=unlike)
            for x, m in _SHAPES
        ),
        example(
            x=values([[1e4], [-1e4], [3.0]]),
            size=5,
            method=method,
            align_corners=align_corners,
            tags={"extreme", *unlike},
        ),
    )


@op(
    reference=_reference,
    examples=(
        *_examples("nearest", False),
        *_examples("linear", False),
        *_examples("linear", True),
        *_examples("bicubic", False),
        *_examples("bicubic", True),
        example(x=normal(2, 1, 9), size=40, method="linear"),
        example(x=normal(2, 5, 4, 3), size=(7, 9), method="nearest-exact"),
        example(x=normal(2, 7, 6, 1), size=(3, 4), method="nearest-exact"),
        example(x=normal(8, 32, 32, 64), size=64, tags={"bench"}),
        example(x=normal(8, 32, 32, 64), size=64, method="linear", tags={"bench"}),
        example(x=normal(8, 64, 64, 3), size=128, method="bicubic", tags={"bench", "no reference"}),
    ),
    source="Keys 1981, doi:10.1109/TASSP.1981.1163711; Parker, Kenyon & Troxel 1983",
)
def resize(x, *, size: Sizes, method: Method = "nearest", align_corners: bool = False):
    """Interpolate each spatial axis of n numbers at m = `size` places.

        y[i] = Σⱼ A[i, j] x[j],   x̄[j] = Σᵢ A[i, j] ȳ[i]      along one axis after another

    `"nearest"`: A[i, j] = 1 where j = ⌊i n / m⌋; `"nearest-exact"`: where j = ⌊(i + ½) n / m⌋, the
    number whose cell holds the centre of place i. The others look at s(i) = (i + ½) n/m - ½, the
    centre of place i, or at s(i) = i (n - 1)/(m - 1) with `align_corners`, where first and last
    places coincide. `"linear"` (bi- and trilinear, by the number of axes): A[i, j] =
    max(1 - |s - j|, 0). `"bicubic"`: A[i, j] = k(|s - j|), Keys' kernel with a = -3/4,

        k(d) = (a + 2) d³ - (a + 3) d² + 1 for d ≤ 1,  a d³ - 5a d² + 8a d - 4a for d ≤ 2,  else 0

    A place beyond the ends takes the number at the end. These are the conventions of PyTorch's
    `interpolate`. `jax.image.resize` differs: unless told not to, it widens the kernels to smooth
    where m < n; its cubic kernel has a = -1/2, and its weights beyond the ends are left out and
    the others scaled to sum to 1; its `"nearest"` is `"nearest-exact"`; it aligns no corners.
    Not finite numbers may reach more of their own example than a kernel is wide: 0·∞ is NaN.
    Shapes: x (batch, *space, channels) -> y (batch, *size, channels). Saves the shape alone.
    """
    inside, outside = _checked(x, size, method, align_corners)
    for axis, (n, m) in enumerate(zip(inside, outside, strict=True), 1):
        index, weights = _taps(n, m, method, align_corners)
        tail = [1] * (x.ndim - 1 - axis)
        x = sum(
            jnp.take(x, j, axis) * jnp.asarray(w, x.dtype).reshape(1, *[1] * (axis - 1), m, *tail)
            for j, w in zip(index.T, weights.T, strict=True)
        )
    return x


@resize.def_fwd
def resize_fwd(x, *, size, method, align_corners):
    inside, outside = _checked(x, size, method, align_corners)
    maps = [
        _Map(axis, n, *_taps(n, m, method, align_corners))
        for axis, (n, m) in enumerate(zip(inside, outside, strict=True), 1)
    ]
    return _interpolate(x, sorted(maps, key=lambda a: a.growth)), Static(x.shape)


@resize.def_bwd
def resize_bwd(shape, dy, *, size, method, align_corners):
    maps = [
        _Map(axis, n, *_taps(n, dy.shape[axis], method, align_corners)).transposed()
        for axis, n in enumerate(shape.value[1:-1], 1)
    ]
    return _interpolate(dy, sorted(maps, key=lambda a: a.growth))


@dataclass(frozen=True)
class _Map:
    """A linear map along one axis of n numbers: each result is a weighted sum of a few of them."""

    axis: int
    n: int
    index: np.ndarray
    weights: np.ndarray

    @property
    def growth(self) -> float:
        return len(self.index) / self.n

    def transposed(self) -> "_Map":
        """The transposed map: which results each number is a part of, neighbours as they are."""
        m, taps = self.index.shape
        nonzero = self.weights != 0
        into, result = self.index[nonzero], np.repeat(np.arange(m), taps).reshape(m, taps)[nonzero]
        first, last = np.full(self.n, m), np.zeros(self.n, int)
        np.minimum.at(first, into, result)
        np.maximum.at(last, into, result)
        width = max(int(np.max(last - first)) + 1, 1)
        weights = np.zeros((self.n, width))
        np.add.at(weights, (into, result - first[into]), self.weights[nonzero])
        index = np.minimum(first[:, None] + np.arange(width), m - 1)
        return _Map(self.axis, m, index, weights)

    def matrix(self) -> np.ndarray:
        """The map as a matrix (results, n)."""
        dense = np.zeros((len(self.index), self.n))
        np.add.at(dense, (np.arange(len(self.index))[:, None], self.index), self.weights)
        return dense


def _interpolate(x, maps: Sequence[_Map]):
    """Apply the maps in turn, in float32 at least; where the length stays, there is no change."""
    dtype = x.dtype
    x = x.astype(jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype)
    for one in maps:
        if one.n != len(one.index):
            # Otherwise XLA would recompute the taps of one axis for each tap of the next.
            x = jax.lax.optimization_barrier(_applied(x, one))
    return x.astype(dtype)


def _applied(x, one: _Map):
    axis, (m, taps) = one.axis, one.index.shape
    before, behind = x.shape[:axis], x.shape[axis + 1 :]
    plain = bool(np.all(one.weights == 1))
    if plain and taps == 1 and m % one.n == 0:  # each number stands for m / n neighbours
        copies = (*before, one.n, m // one.n, *behind)
        return jnp.broadcast_to(jnp.expand_dims(x, axis + 1), copies).reshape(*before, m, *behind)
    if plain and taps > 1 and m * taps == one.n:  # the transposed: sums of neighbours
        blocks = x.reshape(*before, m, taps, *behind)
        if taps > _MOST_TERMS:
            return jnp.sum(blocks, axis + 1)
        terms = [jax.lax.index_in_dim(blocks, k, axis + 1, False) for k in range(taps)]
        return sum(terms[1:], terms[0])
    few = math.prod(behind) < 8 and one.n * m <= 2**18
    if taps > 1 and (few or (taps > _MOST_TERMS and one.n * m <= 2**22)):
        dense = jnp.asarray(one.matrix(), x.dtype)
        return jnp.moveaxis(jnp.tensordot(x, dense, ((axis,), (1,)), precision="highest"), -1, axis)
    terms = [jnp.take(x, j, axis, mode="clip") for j in one.index.T]
    if not plain:
        scales = one.weights.T.reshape(taps, *[1] * axis, m, *[1] * len(behind))
        terms = [a * jnp.asarray(w, x.dtype) for a, w in zip(terms, scales, strict=True)]
    return sum(terms[1:], terms[0])


_SHUFFLED = (
    ((2, 3, 4, 12), 2),
    ((2, 5, 6), 3),
    ((1, 2, 3, 2, 8), 2),
    ((2, 2, 3, 12), (3, 2)),
    ((1, 1, 1, 1), 1),
    ((0, 2, 3, 4), 2),
)


def _shuffles(shapes, extreme, bench):
    return (
        *(example(x=normal(*shape), factor=factor) for shape, factor in shapes),
        example(x=extreme, factor=2, tags={"extreme"}),
        example(x=normal(*bench), factor=2, tags={"bench"}),
    )


@op(
    examples=_shuffles(_SHUFFLED, values([[1e4, -1e4, 0.0, 3.0]]), (8, 64, 64, 64)),
    source="Shi et al. 2016, arXiv:1609.05158",
)
def pixel_shuffle(x, *, factor: Sizes):
    """Turn channels into space: f = `factor` times as many numbers along each axis.

        y[n, i f + a, j f + b, c] = x[n, i, j, (c, a, b)],   x̄[n, i, j, (c, a, b)] = ȳ[n, ...]

    (c, a, b) in row-major order, which is PyTorch's: the channels of the result come first. The
    Jacobian is a permutation, so x̄ is ȳ unshuffled.
    Shapes: x (batch, *space, channels · fᵈ) -> y (batch, *(space · f), channels), d the number of
    spatial axes. Saves nothing.
    """
    inside = spatial("pixel_shuffle", x)
    f = sizes("pixel_shuffle", "factor", factor, len(inside))
    if x.shape[-1] % math.prod(f):
        raise ShapeError(
            f"pixel_shuffle: {x.shape[-1]} channels are not a multiple of {math.prod(f)}, which "
            f"factor {factor!r} on {len(inside)} spatial axes asks for"
        )
    d, channels = len(f), x.shape[-1] // math.prod(f)
    pairs = [axis for i in range(d) for axis in (1 + i, d + 2 + i)]
    y = x.reshape(*x.shape[:-1], channels, *f).transpose(0, *pairs, d + 1)
    for axis in range(1, d + 1):  # one at a time: a mesh with explicit axes takes no more at once
        y = y.reshape(*y.shape[:axis], y.shape[axis] * y.shape[axis + 1], *y.shape[axis + 2 :])
    return y


@op(
    examples=_shuffles(
        [
            ((2, 6, 8, 3), 2),
            ((2, 15, 2), 3),
            ((1, 4, 6, 4, 1), 2),
            ((2, 6, 6, 2), (3, 2)),
            ((1, 1, 1, 1), 1),
            ((0, 4, 6, 1), 2),
        ],
        values([[1e4], [-1e4], [0.0], [3.0]]),
        (8, 128, 128, 16),
    ),
    source="Shi et al. 2016, arXiv:1609.05158, inverted",
)
def pixel_unshuffle(x, *, factor: Sizes):
    """Turn space into channels: each block of f = `factor` numbers along each axis.

        y[n, i, j, (c, a, b)] = x[n, i f + a, j f + b, c]

    The inverse of `pixel_shuffle`, and, as the Jacobian is a permutation, its transpose: x̄ is ȳ
    shuffled.
    Shapes: x (batch, *space, channels) -> y (batch, *(space / f), channels · fᵈ), d the number of
    spatial axes; f divides their lengths. Saves nothing.
    """
    inside = spatial("pixel_unshuffle", x)
    f = sizes("pixel_unshuffle", "factor", factor, len(inside))
    if any(n % k for n, k in zip(inside, f, strict=True)):
        raise ShapeError(
            f"pixel_unshuffle: the spatial axes {inside} are not multiples of factor {factor!r}; "
            "pad or crop x"
        )
    d, channels, y = len(f), x.shape[-1] * math.prod(f), x
    for axis in range(d, 0, -1):
        n, k = inside[axis - 1], f[axis - 1]
        y = y.reshape(*y.shape[:axis], n // k, k, *y.shape[axis + 1 :])
    y = y.transpose(0, *range(1, 2 * d, 2), 2 * d + 1, *range(2, 2 * d + 1, 2))
    return y.reshape(*y.shape[: d + 1], channels)


@pixel_shuffle.def_fwd
def pixel_shuffle_fwd(x, *, factor):
    return pixel_shuffle.definition(x, factor=factor), None


@pixel_shuffle.def_bwd
def pixel_shuffle_bwd(residuals, dy, *, factor):
    del residuals
    return pixel_unshuffle.definition(dy, factor=factor)


@pixel_unshuffle.def_fwd
def pixel_unshuffle_fwd(x, *, factor):
    return pixel_unshuffle.definition(x, factor=factor), None


@pixel_unshuffle.def_bwd
def pixel_unshuffle_bwd(residuals, dy, *, factor):
    del residuals
    return pixel_shuffle.definition(dy, factor=factor)
