"""Sampling: grids of coordinates, and the numbers of an array at them."""

import functools
import itertools
import math
import operator
from typing import Literal

import jax
import jax.numpy as jnp

from ..custom_op import op
from ..errors import ShapeError
from ..example import example, normal, uniform, values
from .geometry import sizes, spatial

Padding = Literal["zeros", "border", "reflection"]

_SOURCE = "Jaderberg, Simonyan, Zisserman & Kavukcuoglu 2015, arXiv:1506.02025"


def _wide(*dtypes):
    """The widest of these dtypes and float32."""
    return max((jnp.dtype(d) for d in (jnp.float32, *dtypes)), key=lambda d: d.itemsize)


def _places(n, align_corners, dtype):
    """The coordinates of n numbers along an axis from -1 to 1."""
    if align_corners:
        return (2 * jnp.arange(n, dtype=dtype) - (n - 1)) / max(n - 1, 1)
    return (2 * jnp.arange(n, dtype=dtype) - (n - 1)) / n


def _geometry(theta, size):
    """The lengths of the grid's axes."""
    d = theta.shape[1] if theta.ndim == 3 else 0
    if not 1 <= d <= 3 or theta.shape[2] != d + 1:
        raise ShapeError(
            "affine_grid: theta must be (batch, d, d + 1) with d = 1 to 3 axes of space, got "
            f"{tuple(theta.shape)}"
        )
    return sizes("affine_grid", "size", size, d)


def _points(dtype, size, align_corners):
    """The coordinates of every place, the width's first, and 1: (*size, d + 1)."""
    dtype = _wide(dtype)
    along = jnp.meshgrid(*(_places(n, align_corners, dtype) for n in size), indexing="ij")
    return jnp.stack([*along[::-1], jnp.ones(size, dtype)], -1)


@op(
    examples=(
        example(theta=normal(2, 2, 3), size=(4, 5)),
        example(theta=normal(2, 2, 3), size=(3, 6), align_corners=True),
        example(theta=normal(1, 3, 4), size=(2, 3, 4)),
        example(theta=normal(2, 3, 4), size=(3, 1, 2), align_corners=True),
        example(theta=normal(3, 1, 2), size=5),
        example(theta=normal(2, 2, 3), size=1),
        example(theta=normal(0, 2, 3), size=3),
        example(theta=normal(2, 2, 3, scale=1e4), size=3, tags={"extreme"}),
        example(theta=normal(32, 2, 3), size=(128, 128), tags={"bench"}),
    ),
    source=_SOURCE,
)
def affine_grid(theta, *, size: int | tuple[int, ...], align_corners: bool = False):
    """Say where each place of a grid lies after an affine map of the coordinates.

        y[n, i] = θ[n, :, :d] p(i) + θ[n, :, d]
        θ̄[n, :, :d] = Σᵢ ȳ[n, i] p(i)ᵀ,   θ̄[n, :, d] = Σᵢ ȳ[n, i]

    p(i) are the coordinates of place i, the width's first, (x, y, z): along an axis of m places the
    centres of m equal parts of [-1, 1], p = (2i + 1)/m - 1, or with `align_corners` m places from
    end to end, p = 2i/(m - 1) - 1 (0 if there is one place). The order and the conventions are
    PyTorch's, and what `grid_sample` expects.
    Shapes: θ (batch, d, d + 1), d = 1 to 3 -> y (batch, *size, d), `size` depth, height, width.
    Saves nothing.
    """
    p = _points(theta.dtype, _geometry(theta, size), align_corners).astype(theta.dtype)
    return jnp.einsum("nkj,...j->n...k", theta, p)


@affine_grid.def_fwd
def affine_grid_fwd(theta, *, size, align_corners):
    p = _points(theta.dtype, _geometry(theta, size), align_corners)
    d = p.shape[-1] - 1
    rows = p.reshape(math.prod(p.shape[:-1]), d + 1)
    y = jnp.einsum("sj,nkj->nsk", rows, theta.astype(p.dtype), precision="highest")
    return y.reshape(y.shape[0], *p.shape[:-1], d).astype(theta.dtype), None


@affine_grid.def_bwd
def affine_grid_bwd(residuals, dy, *, size, align_corners):
    del residuals, size
    p = _points(dy.dtype, dy.shape[1:-1], align_corners)
    rows = p.reshape(math.prod(p.shape[:-1]), p.shape[-1])
    dy = dy.reshape(dy.shape[0], rows.shape[0], dy.shape[-1]).astype(p.dtype)
    return jnp.einsum("nsk,sj->nkj", dy, rows, precision="highest")


def _checked(x, grid, method, padding):
    """The spatial axes of x."""
    if method not in ("linear", "nearest"):
        raise ValueError(f"grid_sample: method must be 'linear' or 'nearest', got {method!r}")
    if padding not in ("zeros", "border", "reflection"):
        raise ValueError(
            f"grid_sample: padding must be 'zeros', 'border' or 'reflection', got {padding!r}"
        )
    inside = spatial("grid_sample", x)
    d = len(inside)
    if grid.ndim != d + 2 or grid.shape[-1] != d or grid.shape[0] != x.shape[0]:
        raise ShapeError(
            f"grid_sample: x {tuple(x.shape)} has {d} spatial axes, so the grid must be "
            f"({x.shape[0]}, {d} axes, {d}), got {tuple(grid.shape)}"
        )
    if 0 in inside:
        raise ShapeError(f"grid_sample: x {tuple(x.shape)} has an empty spatial axis to sample")
    return inside


def _pixel(g, n, padding, align_corners):
    """The place of a coordinate g among n numbers at 0, 1, ..., n - 1, and its derivative by g."""
    slope = (n - 1) / 2 if align_corners else n / 2
    u, slope = (g + 1) * slope - (0 if align_corners else 0.5), jnp.full_like(g, slope)
    if padding == "reflection":
        low, span = (0.0, n - 1.0) if align_corners else (-0.5, float(n))
        if not span:
            return jnp.zeros_like(u), jnp.zeros_like(u)
        below = u < low
        u, slope = jnp.where(below, low - u, u - low), jnp.where(below, -slope, slope)
        u = jax.lax.rem(u, jnp.full_like(u, 2 * span))
        back = u >= span
        u, slope = jnp.where(back, 2 * span - u, u) + low, jnp.where(back, -slope, slope)
    if padding != "zeros":
        beyond = (u <= 0) | (u >= n - 1)
        u = jnp.where(u <= 0, 0.0, jnp.where(u >= n - 1, n - 1.0, u))
        slope = jnp.where(beyond, 0, slope)
    return u, slope


def _pixels(grid, inside, padding, align_corners):
    """Places and derivatives along each axis of x, the first first."""
    grid = grid.astype(_wide(grid.dtype))
    last = len(inside) - 1  # the grid names the width first
    return [
        _pixel(grid[..., last - axis], n, padding, align_corners) for axis, n in enumerate(inside)
    ]


def _grids(x, grid, **statics):
    """Examples of one geometry: all methods and paddings."""
    return tuple(
        example(x=x, grid=grid, method=method, padding=padding, align_corners=corners, **statics)
        for method, padding, corners in (
            ("linear", "zeros", False),
            ("linear", "border", True),
            ("linear", "reflection", False),
            ("linear", "reflection", True),
            ("nearest", "border", False),
            ("nearest", "zeros", True),
        )
    )


_WHOLE = values([[[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [-2.0, 0.5], [2.0, -0.5], [-1.5, 1.5]]])


@op(
    examples=(
        *_grids(normal(2, 5, 4, 3), uniform(2, 3, 6, 2, low=-1.6, high=1.6)),
        *_grids(normal(2, 3, 4, 2, 1), uniform(2, 2, 3, 2, 3, low=-1.6, high=1.6)),
        *_grids(normal(2, 7, 3), uniform(2, 5, 1, low=-3.0, high=3.0)),
        example(x=normal(2, 1, 3, 2), grid=normal(2, 2, 2, 2), padding="reflection"),
        example(
            x=normal(2, 1, 3, 2), grid=normal(2, 2, 2, 2), padding="reflection", align_corners=True
        ),
        example(x=normal(0, 3, 4, 2), grid=normal(0, 2, 2, 2)),
        example(x=normal(2, 3, 4, 2, scale=1e4), grid=normal(2, 2, 2, 2), tags={"extreme"}),
        example(x=normal(1, 3, 4, 2), grid=_WHOLE, align_corners=True, tags={"kink"}),
        example(x=normal(1, 4, 4, 2), grid=_WHOLE, padding="border", tags={"kink"}),
        example(x=normal(1, 4, 2, 2), grid=_WHOLE, padding="reflection", tags={"kink"}),
        example(
            x=normal(8, 64, 64, 32), grid=uniform(8, 64, 64, 2, low=-1.1, high=1.1), tags={"bench"}
        ),
    ),
    source=_SOURCE,
)
def grid_sample(
    x,
    grid,
    *,
    method: Literal["linear", "nearest"] = "linear",
    padding: Padding = "zeros",
    align_corners: bool = False,
):
    """Read an array at the coordinates of a grid: bilinear, trilinear or nearest numbers.

        y[n, i] = Σⱼ x[n, j] w(j, i),   w(j, i) = Πₖ max(1 - |uₖ(i) - jₖ|, 0)
        x̄[n, j] = Σᵢ w(j, i) ȳ[n, i],   ḡ[n, i, k] = Σⱼ (x[n, j] · ȳ[n, i]) ∂w(j, i)/∂gₖ

    j runs over the 2ᵈ numbers around u. A coordinate g in [-1, 1] stands for the place
    u = ((g + 1) m - 1)/2 on an axis of m, or u = (g + 1)(m - 1)/2 with `align_corners`; the grid's
    last axis holds them width first, (x, y, z). `"nearest"` reads the number at u rounded (halves
    to even); its derivative by the grid is 0. Places outside read 0 (`"zeros"`), or are moved to
    the nearest end (`"border"`), or mirrored into the axis (`"reflection"`: at the outer edges
    u = -½ and m - ½ of the numbers, with `align_corners` at their centres, 0 and m - 1).

    At the kinks: where u is whole, w has the derivative to the right of it. At and beyond the ends,
    u ≤ 0 or u ≥ m - 1, `"border"` and (once mirrored) `"reflection"` have derivative 0 by the grid.
    All conventions are PyTorch's.
    Shapes: x (batch, *space, channels), grid (batch, *places, d), with d = 1 to 3 axes each ->
    y (batch, *places, channels), of x's dtype. Saves x and the grid.
    """
    inside = _checked(x, grid, method, padding)
    u = [place for place, _ in _pixels(grid, inside, padding, align_corners)]
    first = [jnp.round(a) if method == "nearest" else jnp.floor(a) for a in u]
    batch = jnp.arange(x.shape[0]).reshape(-1, *[1] * len(inside))
    y = jnp.zeros((), _wide(x.dtype, grid.dtype))
    for corner in itertools.product((0, 1) if method == "linear" else (0,), repeat=len(inside)):
        w, index = jnp.ones_like(u[0]), []
        for at, low, side, n in zip(u, first, corner, inside, strict=True):
            j = low + side
            near = (at - low if side else 1 - (at - low)) if method == "linear" else 1.0
            w = w * jnp.where((j >= 0) & (j < n), near, 0.0)
            index.append(jnp.clip(j, 0, n - 1).astype(jnp.int32))
        read = x[(batch, *index)].astype(y.dtype)
        y = y.reshape(*[1] * (read.ndim - y.ndim), *y.shape) + w[..., None].astype(y.dtype) * read
    return y.astype(x.dtype)


@grid_sample.def_fwd
def grid_sample_fwd(x, grid, *, method, padding, align_corners):
    inside = _checked(x, grid, method, padding)
    pixels = _pixels(grid, inside, padding, align_corners)
    dtype = _wide(x.dtype, grid.dtype)
    terms = [
        _product(w)[..., None].astype(dtype) * _read(x, j).astype(dtype)
        for j, w, _ in _corners(pixels, inside, method)
    ]
    return sum(terms[1:], terms[0]).astype(x.dtype), (x, grid)


@grid_sample.def_bwd
def grid_sample_bwd(residuals, dy, *, method, padding, align_corners):
    x, grid = residuals
    inside = x.shape[1:-1]
    pixels = _pixels(grid, inside, padding, align_corners)
    dtype = _wide(x.dtype, grid.dtype)
    dy = dy.astype(dtype)
    dx = _rows(jnp.zeros_like(x, dtype))
    dg = [jnp.zeros_like(slope, dtype) for _, slope in pixels]
    for j, w, slopes in _corners(pixels, inside, method):
        dx = jax.vmap(_add)(dx, j, _product(w)[..., None].astype(dtype) * dy)
        if method == "linear":
            dw = jnp.sum(_read(x, j).astype(dtype) * dy, -1)
            for k, slope in enumerate(slopes):
                by_place = _product([*w[:k], slope, *w[k + 1 :]])
                dg[k] = dg[k] + by_place.astype(dtype) * dw
    return dx.reshape(x.shape), jnp.stack(dg[::-1], -1)


def _corners(pixels, inside, method):
    """Yield the numbers around the places: index in row-major order, weights and their slopes.

    There is a weight along each axis, and its derivative by the coordinate; outside both are 0.
    """
    axes = []
    for (u, slope), n in zip(pixels, inside, strict=True):
        if method == "nearest":
            taps = [(jnp.round(u), jnp.ones_like(u), jnp.zeros_like(u))]
        else:
            first = jnp.floor(u)
            taps = [(first, 1 - (u - first), -slope), (first + 1, u - first, slope)]
        axes.append(
            [
                (
                    jnp.clip(j, 0, n - 1).astype(jnp.int32),
                    jnp.where((j >= 0) & (j < n), w, 0),
                    jnp.where((j >= 0) & (j < n), s, 0),
                )
                for j, w, s in taps
            ]
        )
    for corner in itertools.product(*axes):
        index, weights, slopes = zip(*corner, strict=True)
        row = index[0]
        for j, n in zip(index[1:], inside[1:], strict=True):
            row = row * n + j
        yield row, weights, slopes


def _product(factors):
    return functools.reduce(operator.mul, factors)


def _read(x, index):
    """The channels of x at each place, by its index in row-major order."""
    # Gathering and scattering whole rows by a flat list of indices is XLA's fastest form on a CPU.
    y = jax.vmap(lambda rows, j: rows.at[j.ravel()].get(mode="promise_in_bounds"))(_rows(x), index)
    return y.reshape(*index.shape, x.shape[-1])


def _rows(x):
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _add(rows, index, numbers):
    numbers = numbers.reshape(index.size, rows.shape[-1])
    return rows.at[index.ravel()].add(numbers, mode="promise_in_bounds")
