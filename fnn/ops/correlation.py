"""The three products of a convolution: of x and w, of ȳ and w, of x and ȳ.

With p the places of a window and t its taps, and x padded,

    correlate:  y[p] = Σₜ x[s p + d t] w[t]
    spread:     x̄[s p + d t] += ȳ[p] w[t]ᵀ
    weigh:      w̄[t] = Σₚ x[s p + d t]ᵀ ȳ[p]

Each is linear in both of its arguments, and each is what the other two need for a backward pass:
`correlate` goes forward in a convolution and back in a transposed one, `spread` the other way
round. Shapes: x (batch, *space, in), w (*window, in / groups, out), y (batch, *places, out).

On a CPU, XLA has one fast convolution, and others that are 10 to 100 times slower: of groups, of
arrays with holes (lhs_dilation), and of axes in another order where they stand in a loop. There,
all three are made of the fast one. On other platforms XLA has kernels for them as they are written.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType

from .devices import by_example, over_examples
from .geometry import Windows
from .norm_parts import at_least_float32
from .taps import pad_with_zeros, place

_AXES = {1: "W", 2: "HW", 3: "DHW"}
_ENOUGH = 32
"""Channels that keep the multipliers of a CPU busy: smaller groups are computed together."""
CORE_CACHE, SHARED_CACHE = 3 * 2**17, 3 * 2**19
"""Bytes of x and ȳ that a core's cache holds while every tap reads them; that all cores' do."""
_FEW_BLOCKS = 4
"""Fewer blocks than these are not worth a loop."""


def correlate(x: Any, w: Any, at: Windows, groups: int) -> Any:
    """Multiply by the window's weights at every place, and sum."""
    return by_example(_either(_correlate, correlate_by_xla, at, groups), x, shared=(w,))


def spread(dy: Any, w: Any, at: Windows, groups: int) -> Any:
    """Send what stands at each place back to the numbers its window held."""
    return by_example(_either(_spread, spread_by_xla, at, groups), dy, shared=(w,))


def weigh(x: Any, dy: Any, at: Windows, groups: int) -> Any:
    """Sum, for each weight, over all the places that share it."""
    return over_examples(_either(_weigh, weigh_by_xla, at, groups), x, dy)


def _either(on_cpu: Any, by_xla: Any, at: Windows, groups: int) -> Any:
    """The product of two arrays, as it is fastest on the platform that it is compiled for."""

    def product(a, b):
        return lax.platform_dependent(
            a,
            b,
            cpu=lambda a, b: on_cpu(a, b, at, groups),
            default=lambda a, b: by_xla(a, b, at, groups),
        )

    return product


def exchange_channels(w: Any, groups: int) -> Any:
    """Turn weights (*window, in / groups, out) into (*window, out / groups, in).

    It is its own inverse."""
    *window, inputs, outputs = w.shape
    split = w.reshape(*window, inputs, groups, outputs // groups)
    return jnp.swapaxes(split, -3, -1).reshape(*window, outputs // groups, groups * inputs)


# By XLA's convolution: everywhere but on a CPU


def correlate_by_xla(x: Any, w: Any, at: Windows, groups: int) -> Any:
    """Correlate by XLA's convolution."""
    return _convolve(x, w, at.stride, at.padding, at.dilation, groups)


def _convolve(
    x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int = 1, holes: Any = None
) -> Any:
    space = _AXES[len(stride)]
    return lax.conv_general_dilated(
        x,
        w,
        stride,
        padding,
        lhs_dilation=holes,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=groups,
    )


def spread_by_xla(dy: Any, w: Any, at: Windows, groups: int) -> Any:
    """Correlate ȳ, with s - 1 zeros between its numbers, with the taps reversed."""
    ends = zip(at.inputs, at.outputs, at.stride, at.extent, at.padding, strict=True)
    padding = [(e - 1 - low, n + low - 1 - (m - 1) * s) for n, m, s, e, (low, _) in ends]
    w = exchange_channels(jnp.flip(w, range(len(padding))), groups)
    return _convolve(dy, w, (1,) * len(padding), padding, at.dilation, groups, at.stride)


def weigh_by_xla(x: Any, dy: Any, at: Windows, groups: int) -> Any:
    """Correlate x with ȳ: the sum is over the batch, which takes the channels' place."""
    space = _AXES[len(at.size)]
    return lax.conv_general_dilated(
        x,
        dy,
        at.dilation,
        _weigh_padding(at),
        rhs_dilation=at.stride,
        dimension_numbers=(f"C{space}N", f"I{space}O", f"{space}NC"),
        batch_group_count=groups,
    )


def _weigh_padding(at: Windows) -> list[tuple[int, int]]:
    """The padding of x that gives as many places as there are taps."""
    ends = zip(at.inputs, at.outputs, at.stride, at.extent, at.padding, strict=True)
    return [(low, (m - 1) * s + e - n - low) for n, m, s, e, (low, _) in ends]


# On a CPU


def _correlate(x: Any, w: Any, at: Windows, groups: int) -> Any:
    how = at.stride, at.padding, at.dilation
    if _is_point(at, groups):
        return _numbers_at_point(x, at) @ w.reshape(w.shape[-2:])
    if groups == 1:
        return _convolve(x, w, *how)
    if x.shape[-1] == groups:
        return _correlate_depthwise(x, w, at)
    together = _together(groups, x.shape[-1] // groups)
    w, parts = _block_diagonal(w, groups, together), groups // together
    pairs = zip(jnp.split(x, parts, -1), jnp.split(w, parts, -1), strict=True)
    return jnp.concatenate([_convolve(a, b, *how) for a, b in pairs], -1)


def _spread(dy: Any, w: Any, at: Windows, groups: int) -> Any:
    if _is_point(at, groups):
        return place(dy @ w.reshape(w.shape[-2:]).T, at, (0,) * len(at.size))
    if any(s > 1 and d > 1 for s, d in zip(at.stride, at.dilation, strict=True)):
        return spread_by_xla(dy, w, at, groups)
    return _spread_by_phases(dy, w, at, groups)


def _spread_by_phases(dy: Any, w: Any, at: Windows, groups: int) -> Any:
    """Spread with stride 1, once for each phase; the phases interleave.

    The numbers of an axis whose index is φ modulo s meet the taps φ, φ + s, φ + 2 s, … and no
    others: each phase φ is a convolution with stride 1 of its own. All phases are computed as
    one, as if they were channels.
    """
    axes, (inputs, outputs) = len(at.size), w.shape[-2:]
    taps = [-(-k // s) for k, s in zip(at.size, at.stride, strict=True)]
    full = [(0, t * s - k) for t, s, k in zip(taps, at.stride, at.size, strict=True)]
    phases = [n for pair in zip(taps, at.stride, strict=True) for n in pair]
    w = jnp.pad(w, [*full, (0, 0), (0, 0)])
    w = w.reshape(*phases, inputs, groups, outputs // groups)
    # (t₁, s₁, t₂, s₂, in, group, out) -> (t₁, t₂, out, group, s₁, s₂, in)
    of_taps, of_phases = range(0, 2 * axes, 2), range(1, 2 * axes, 2)
    w = w.transpose(*of_taps, 2 * axes + 2, 2 * axes + 1, *of_phases, 2 * axes)
    channels = groups * math.prod(at.stride) * inputs
    w = jnp.flip(w.reshape(*taps, outputs // groups, channels), range(axes))
    first = [low // s for (low, _), s in zip(at.padding, at.stride, strict=True)]
    count, padding = [], []
    each = zip(taps, at.inputs, at.outputs, at.stride, at.dilation, at.padding, first, strict=True)
    for t, n, m, s, d, (low, _), v in each:
        count.append(-(-(low + n) // s) - v)
        before = d * (t - 1) - v
        padding.append((before, count[-1] - m - before + d * (t - 1)))
    slide = Windows(at.outputs, tuple(taps), (1,) * axes, tuple(padding), at.dilation)
    x = _correlate(dy, w, slide, groups)
    # (batch, v₁, v₂, group, s₁, s₂, in) -> (batch, v₁, s₁, v₂, s₂, group, in)
    batch = x.shape[0]
    x = x.reshape(batch, *count, groups, *at.stride, inputs)
    order = [a for i in range(axes) for a in (1 + i, 2 + axes + i)]
    x = x.transpose(0, *order, 1 + axes, 2 + 2 * axes)
    lengths = [v * s for v, s in zip(count, at.stride, strict=True)]
    x = x.reshape(batch, *lengths, groups * inputs)
    starts = [low - v * s for (low, _), v, s in zip(at.padding, first, at.stride, strict=True)]
    cut = (slice(a, a + n) for a, n in zip(starts, at.inputs, strict=True))
    return x[(slice(None), *cut)]


def _weigh(x: Any, dy: Any, at: Windows, groups: int) -> Any:
    if _is_point(at, groups):
        rows = math.prod(dy.shape[:-1])
        x, dy = (a.reshape(rows, a.shape[-1]) for a in (_numbers_at_point(x, at), dy))
        return (x.T @ dy).reshape(*at.size, x.shape[-1], dy.shape[-1])
    if groups == 1:
        return _weigh_dense(x, dy, at)
    if x.shape[-1] == groups:
        return _weigh_depthwise(x, dy, at)
    together = _together(groups, x.shape[-1] // groups)
    parts = groups // together
    pairs = zip(jnp.split(x, parts, -1), jnp.split(dy, parts, -1), strict=True)
    dense = jnp.concatenate([_weigh_dense(a, b, at) for a, b in pairs], -1)
    return _of_block_diagonal(dense, groups, together)


def _weigh_dense(x: Any, dy: Any, at: Windows) -> Any:
    """Sum over the images, some at a time."""
    images = 0 if _is_partitioned() else _images_together(x, dy, at)
    blocks = len(x) // images if images else 0
    if blocks < _FEW_BLOCKS:
        return _weigh_block(x, dy, at)

    def add(dw, block):
        return dw + at_least_float32(_weigh_block(block[0], block[1], at)), None

    rest = len(x) % images
    dw = at_least_float32(_weigh_block(x[:rest], dy[:rest], at))
    parts = tuple(a[rest:].reshape(blocks, images, *a.shape[1:]) for a in (x, dy))
    return lax.scan(add, dw, parts)[0].astype(x.dtype)


def _is_partitioned() -> bool:
    """Whether XLA splits this program over the devices of a mesh (see `fnn.train.mesh`).

    It splits one operation on a batch. For a loop over images, each device would get them all.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size > 1 and AxisType.Auto in mesh.axis_types


def _images_together(x: Any, dy: Any, at: Windows) -> int:
    """How many images to sum over at a time: a power of two, as batches are; 0 for all.

    Each tap reads all of x and ȳ, so blocks that stay in the cache took 0.2 to 0.9 of the time.
    A block of many outputs must be larger before two cores share it. One axis of space, fewer than
    32 outputs, or images that fill the cache by themselves gain nothing.
    """
    if len(at.size) == 1 or dy.shape[-1] < _ENOUGH or not x.size or not dy.size:
        return 0
    image = (x.nbytes + dy.nbytes) // len(x)
    least = SHARED_CACHE if dy.shape[-1] >= 4 * _ENOUGH else CORE_CACHE
    return 0 if image > SHARED_CACHE else 1 << max(-(-least // image) - 1, 1).bit_length()


def _weigh_block(x: Any, dy: Any, at: Windows) -> Any:
    """Correlate as `weigh_by_xla` does, with the axes in the order of a plain convolution."""
    axes = len(at.size)
    if axes == 3 or at.size[-1] == 1:
        return _weigh_rows(x, dy, at)
    space = range(1, 1 + axes)
    x = x.transpose(1 + axes, *space, 0)
    dy = dy.transpose(*space, 0, 1 + axes)
    dw = _convolve(x, dy, at.dilation, _weigh_padding(at), at.stride)
    return dw.transpose(*space, 0, 1 + axes)


def _weigh_rows(x: Any, dy: Any, at: Windows) -> Any:
    """The same with one axis less to slide over.

    The taps of the last axis stand beside the channels, and its places beside the images. XLA's
    fast convolution has at most two axes, and with a window of 1 nothing is copied.
    """
    *sliding, last = range(len(at.size))
    (low, high), s, d = at.padding[last], at.stride[last], at.dilation[last]
    x = x.transpose(len(at.size) + 1, *(a + 1 for a in sliding), last + 1, 0)
    x = jnp.pad(x, [*[(0, 0)] * (x.ndim - 2), (low, high), (0, 0)])
    ends = [(t * d, t * d + (at.outputs[last] - 1) * s + 1) for t in range(at.size[last])]
    x = jnp.stack([x[..., start:stop:s, :] for start, stop in ends])
    taps, inputs, *space, places, images = x.shape
    x = x.reshape(taps * inputs, *space, places * images)
    dy = dy.transpose(*(a + 1 for a in sliding), last + 1, 0, dy.ndim - 1)
    dy = dy.reshape(*at.outputs[:-1], places * images, dy.shape[-1])
    if sliding:
        how = at.dilation[:-1], _weigh_padding(at)[:-1], at.stride[:-1]
        dw = _convolve(x, dy, *how)
    else:
        dw = x @ dy
    dw = dw.reshape(taps, inputs, *at.size[:-1], dy.shape[-1])
    return dw.transpose(*(a + 2 for a in sliding), 0, 1, dw.ndim - 1)


# A window of 1 on a CPU: matrix products


def _is_point(at: Windows, groups: int) -> bool:
    return groups == 1 and at.taps == 1 and not any(map(any, at.padding))


def _numbers_at_point(x: Any, at: Windows) -> Any:
    """What of x, which is not padded, the only tap meets."""
    return x[(slice(None), *at.slices((0,) * len(at.size)))]


# Many groups on a CPU


def _correlate_depthwise(x: Any, w: Any, at: Windows) -> Any:
    """Sum over the taps, all channels side by side: XLA makes one loop of it."""
    channels, outputs = x.shape[-1], w.shape[-1]
    w = w.reshape(*at.size, *(1,) * (x.ndim - 1), channels, outputs // channels)
    x = pad_with_zeros(x, at)
    each = [
        sum(x[(slice(None), *at.slices(o))] * w[t][..., m] for t, o in at.offsets())
        for m in range(w.shape[-1])
    ]
    # The channels stay innermost until the end, since that is where a CPU multiplies.
    y = jnp.swapaxes(jnp.stack(each, -2), -2, -1)
    return y.reshape(*y.shape[:-2], outputs)


def _weigh_depthwise(x: Any, dy: Any, at: Windows) -> Any:
    """Sum an image at a time: XLA writes each tap's products out, and these stay in the cache."""

    def add(dw, image):
        return dw + _weigh_taps(image[0][None], image[1][None], at), None

    channels, outputs = x.shape[-1], dy.shape[-1]
    x, dy = pad_with_zeros(x, at), dy.reshape(*dy.shape[:-1], channels, outputs // channels)
    if _is_partitioned():
        dw = _weigh_taps(x, dy, at)
    else:
        dw = lax.scan(add, _weigh_taps(x[:0], dy[:0], at), (x, dy))[0]
    return dw.astype(x.dtype).reshape(*at.size, 1, outputs)


def _weigh_taps(x: Any, dy: Any, at: Windows) -> Any:
    over = tuple(range(len(at.size) + 1))
    each = [
        jnp.stack(
            [
                at_least_float32(x[(slice(None), *at.slices(o))] * dy[..., m]).sum(over)
                for _, o in at.offsets()
            ]
        )
        for m in range(dy.shape[-1])
    ]
    return jnp.stack(each, -1)


def _together(groups: int, inputs: int) -> int:
    """How many groups to compute as one."""
    divisors = (g for g in range(1, groups) if groups % g == 0)
    return next((g for g in divisors if g * inputs >= _ENOUGH), groups)


def _block_diagonal(w: Any, groups: int, together: int) -> Any:
    """Write the weights of several groups as those of one, with zeros from group to group."""
    *window, inputs, outputs = w.shape
    split = w.reshape(*window, 1, inputs, groups // together, together, outputs // groups)
    return jnp.where(_same(together), split, 0).reshape(*window, together * inputs, outputs)


def _of_block_diagonal(w: Any, groups: int, together: int) -> Any:
    """Take the groups' own weights: the transpose of `_block_diagonal`."""
    *window, inputs, outputs = w.shape
    split = w.reshape(
        *window, together, inputs // together, groups // together, together, outputs // groups
    )
    own = jnp.where(_same(together), split, 0)
    return own.sum(len(window)).reshape(*window, inputs // together, outputs)


def _same(together: int) -> np.ndarray:
    """Whether the first and the fourth axis of a block name the same group."""
    return np.eye(together, dtype=bool)[:, None, None, :, None]
