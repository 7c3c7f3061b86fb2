"""Correct rules of convolution and pooling, over positions (n, l, c) or images (n, h, w, c)."""

import itertools

import jax
import jax.numpy as jnp

from .rule import X, vjp_rule

NLC = ("NWC", "WIO", "NWC")
NHWC = ("NHWC", "HWIO", "NHWC")


def conv1d(x, w, stride, padding):
    return jax.lax.conv_general_dilated(x, w, (stride,), padding, dimension_numbers=NLC)


@vjp_rule(conv1d, "f32[2,7,3]", "f32[3,3,5]", static=(2, "SAME"))
def conv1d_bwd(stride, padding, x, w, g):
    """Go through the taps of the kernel: each is a product of a strided slice."""
    taps = w.shape[0]
    [(low, high)] = jax.lax.padtype_to_pads(x.shape[1:2], (taps,), (stride,), padding)
    padded = jnp.pad(x, ((0, 0), (low, high), (0, 0)))
    dpadded, dw = jnp.zeros_like(padded), []
    for tap in range(taps):
        window = slice(tap, tap + stride * g.shape[1], stride)
        dw.append(jnp.einsum("nli,nlo->io", padded[:, window][:, : g.shape[1]], g))
        dpadded = dpadded.at[:, window].add(jnp.einsum("nlo,io->nli", g, w[tap]))
    return dpadded[:, low : low + x.shape[1]], jnp.stack(dw)


def conv2d(x, w, strides, padding):
    return jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=NHWC)


@vjp_rule(conv2d, "f32[2,5,6,3]", "f32[3,2,3,4]", static=((1, 2), "SAME"), name="conv2d_same")
@vjp_rule(conv2d, "f32[2,7,6,3]", "f32[3,2,3,4]", static=((2, 1), "VALID"))
def conv2d_bwd(strides, padding, x, w, g):
    """Convolve g, spread by the strides, with the kernel turned round; correlate x with g."""
    if g.size == 0:
        return jnp.zeros_like(x), jnp.zeros_like(w)
    pads = jax.lax.padtype_to_pads(x.shape[1:3], w.shape[:2], strides, padding)
    to_x, to_w = [], []
    for size, out, taps, stride, (low, _) in zip(
        x.shape[1:3], g.shape[1:3], w.shape[:2], strides, pads
    ):
        spread = stride * (out - 1) + 1
        to_x.append((taps - 1 - low, size - spread + low))
        to_w.append((low, spread + taps - 1 - size - low))
    dx = jax.lax.conv_general_dilated(
        *(g, jnp.flip(w, (0, 1)), (1, 1), to_x),
        lhs_dilation=strides,
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
    )
    dw = jax.lax.conv_general_dilated(
        *(x, g, (1, 1), to_w), rhs_dilation=strides, dimension_numbers=("CHWN", "IHWO", "HWNC")
    )
    return dx, dw


def depthwise_conv(x, w):
    """Convolve each channel of x (n, l, c) with its own causal kernel w (k, c)."""
    return jax.lax.conv_general_dilated(
        *(x, w[:, None], (1,), [(w.shape[0] - 1, 0)]),
        dimension_numbers=NLC,
        feature_group_count=x.shape[-1],
    )


@vjp_rule(depthwise_conv, "f32[2,7,3]", X)
def depthwise_conv_bwd(x, w, g):
    length, taps = x.shape[1], w.shape[0]
    past = jnp.pad(x, ((0, 0), (taps - 1, 0), (0, 0)))
    future = jnp.pad(g, ((0, 0), (0, taps - 1), (0, 0)))
    dx, dw = jnp.zeros_like(x), []
    for tap in range(taps):
        lag = taps - 1 - tap
        dx = dx + w[tap][None, None] * future[:, lag : lag + length]
        dw.append(jnp.sum(past[:, tap : tap + length] * g, axis=(0, 1)))
    return dx, jnp.stack(dw)


def conv_transpose(x, w, stride):
    """Spread x (n, l, i) by the stride, and give each element the kernel w (k, i, o)."""
    reach = w.shape[0] - 1
    return jax.lax.conv_general_dilated(
        *(x, jnp.flip(w, 0), (1,), [(reach, reach)]), lhs_dilation=(stride,), dimension_numbers=NLC
    )


@vjp_rule(conv_transpose, "f32[2,4,3]", "f32[5,3,6]", static=(2,))
def conv_transpose_bwd(stride, x, w, g):
    reach = stride * x.shape[1]
    dx, dw = jnp.zeros_like(x), []
    for tap in range(w.shape[0]):
        met = g[:, tap : tap + reach : stride]
        dx = dx + jnp.einsum("nlo,io->nli", met, w[tap])
        dw.append(jnp.einsum("nli,nlo->io", x, met))
    return dx, jnp.stack(dw)


def max_pool(x, size):
    """Return the largest element of each size × size block; a remainder is left out."""
    window = (1, size, size, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def _blocks(x, size):
    """Return (n, h, w, size², c): the elements of each block side by side."""
    n, h, w, c = x.shape
    h, w = h // size, w // size
    x = x[:, : h * size, : w * size].reshape(n, h, size, w, size, c)
    return jnp.swapaxes(x, 2, 3).reshape(n, h, w, size * size, c)


def max_pool_fwd(x, size):
    blocks = _blocks(x, size)
    winner = jnp.argmax(blocks, axis=3, keepdims=True).astype(jnp.uint8)
    y = jnp.take_along_axis(blocks, winner.astype(jnp.int32), axis=3)[:, :, :, 0]
    return y, (x.shape, winner)


@vjp_rule(max_pool, "f32[2,5,4,3]", static=(2,), fwd=max_pool_fwd)
def max_pool_bwd(size, shape, winner, g):
    n, height, width, c = shape
    _, h, w, _ = g.shape
    place = jax.lax.broadcasted_iota(jnp.uint8, (n, h, w, size * size, c), 3)
    dblocks = jnp.where(place == winner, g[:, :, :, None], 0)
    dx = jnp.swapaxes(dblocks.reshape(n, h, w, size, size, c), 2, 3)
    dx = dx.reshape(n, h * size, w * size, c)
    return jnp.pad(dx, ((0, 0), (0, height - h * size), (0, width - w * size), (0, 0)))


def window_sums(x, size, stride):
    """Return the sum of each window, and the padding."""
    pads = jax.lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")
    padding = ((0, 0), *pads, (0, 0))
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, padding), pads


def avg_pool(x, size, stride):
    """Return the mean of each window, of the elements that are not padding."""
    total, _ = window_sums(x, size, stride)
    count, _ = window_sums(jnp.ones((1, *x.shape[1:3], 1), x.dtype), size, stride)
    return total / count


@vjp_rule(avg_pool, "f32[2,7,6,3]", static=(3, 2), saves=lambda y, x, size, stride: (x.shape,))
def avg_pool_bwd(size, stride, shape, g):
    n, height, width, c = shape
    count, pads = window_sums(jnp.ones((1, height, width, 1), g.dtype), size, stride)
    share = g / count
    (top, bottom), (left, right) = pads
    dx = jnp.zeros((n, top + height + bottom, left + width + right, c), g.dtype)
    for i, j in itertools.product(range(size), repeat=2):
        rows = slice(i, i + stride * g.shape[1], stride)
        columns = slice(j, j + stride * g.shape[2], stride)
        dx = dx.at[:, rows, columns].add(share)
    return dx[:, top : top + height, left : left + width]


@vjp_rule(lambda x: jnp.mean(x, axis=(1, 2)), "f32[2,5,4,3]", saves=lambda y, x: (x.shape,))
def global_avg_pool(shape, g):
    share = g / (shape[1] * shape[2])
    return jnp.broadcast_to(share[:, None, None], shape)
