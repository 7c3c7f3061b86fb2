"""Normalisation within an example: of rows, vectors, weights or neighbouring channels.

With x̂ = (x - μ) r and r = 1/σ, the Jacobian of x̂ by x is r (I - 1/n - x̂ x̂ᵀ/n): it takes out of
a cotangent its mean, and its part along x̂. Where no mean is subtracted (rms_norm), the mean stays.
"""

import jax
import jax.numpy as jnp

from ..custom_op import op
from ..errors import ShapeError
from ..example import example, normal, values
from .norm_parts import affine, at_least_float32, check, leading, per_channel, row_mean, scaled


def _examples(bias):
    """Ordinary and odd shapes, with and without parameters, sizes 0 and 1, tails."""

    def parameters(n):
        return {"scale": normal(n), **({"bias": normal(n)} if bias else {})}

    return (
        example(x=normal(4, 5), **parameters(5)),
        example(x=normal(2, 3, 7), **parameters(7), eps=1e-3),
        example(x=normal(3, 5)),
        example(x=normal(6), **parameters(6)),
        example(x=normal(3, 1), **parameters(1)),
        example(x=normal(0, 5), **parameters(5)),
        example(x=normal(3, 0), **parameters(0)),
        example(
            x=values([1e4, 1e4, 1e4], [1e4, -1e4, 0.0], [1e-6, -1e-6, 0.0], [100.0, 100.5, 101.0]),
            **parameters(3),
            tags={"extreme"},
        ),
    )


@op(
    reference=lambda x, scale, bias, *, eps: affine(
        jax.nn.standardize(x, -1, epsilon=eps), scale, bias
    ),
    examples=(
        *_examples(bias=True),
        example(x=normal(3, 5), scale=normal(5)),
        example(x=normal(3, 5), bias=normal(5)),
        example(x=normal(4096, 512), scale=normal(512), bias=normal(512), tags={"bench"}),
    ),
    source="Ba, Kiros & Hinton 2016, arXiv:1607.06450",
)
def layer_norm(x, scale=None, bias=None, *, eps: float = 1e-5):
    """Give every row mean 0 and variance 1, then scale and shift its entries.

        μ = E[x],   r = 1/√(E[(x - μ)²] + ε),   x̂ = (x - μ) r,   y = γ x̂ + β

    Shapes: x (..., n), scale γ and bias β (n,) or None -> y (..., n), of x's dtype; means are
    over the last axis, in at least float32. Backward, Σ over the leading axes:

        x̄ = r (γȳ - E[γȳ] - x̂ E[γȳ x̂]),   γ̄ = Σ ȳ x̂,   β̄ = Σ ȳ

    Saves x, γ, and μ and r of each row.
    """
    wide_x = at_least_float32(x)
    mean = jnp.mean(wide_x, -1, keepdims=True)
    var = jnp.mean((wide_x - mean) ** 2, -1, keepdims=True)
    return affine((wide_x - mean) / jnp.sqrt(var + eps), scale, bias).astype(x.dtype)


@layer_norm.def_fwd
def layer_norm_fwd(x, scale, bias, *, eps):
    check("layer_norm", x, eps, scale=scale, bias=bias)
    wide_x = at_least_float32(x)
    mean = row_mean(wide_x)
    centred = wide_x - mean
    r = jax.lax.rsqrt(row_mean(centred * centred) + eps)
    return affine(centred * r, scale, bias).astype(x.dtype), (x, scale, mean, r)


@layer_norm.def_bwd
def layer_norm_bwd(residuals, dy, *, eps):
    del eps
    x, scale, mean, r = residuals
    dy, z = at_least_float32(dy), (at_least_float32(x) - mean) * r
    # γȳ, its projection on 1, its projection on x̂
    dx = r * (scaled(dy, scale) - row_mean(dy, scale) - z * row_mean(dy * z, scale))
    return dx, jnp.sum(dy * z, leading(x)), jnp.sum(dy, leading(x))


@op(
    reference=lambda x, scale, *, eps: scaled(
        jax.nn.standardize(x, -1, mean=jnp.zeros(1), epsilon=eps), scale
    ),
    examples=(
        *_examples(bias=False),
        example(x=normal(4096, 512), scale=normal(512), tags={"bench"}),
    ),
    source="Zhang & Sennrich 2019, arXiv:1910.07467",
)
def rms_norm(x, scale=None, *, eps: float = 1e-6):
    """Give every row a mean square of 1, then scale its entries.

        r = 1/√(E[x²] + ε),   x̂ = x r,   y = γ x̂

    Shapes: x (..., n), scale γ (n,) or None -> y (..., n), of x's dtype; means are over the last
    axis, in at least float32. Backward, Σ over the leading axes:

        x̄ = r (γȳ - x̂ E[γȳ x̂]),   γ̄ = Σ ȳ x̂

    Saves x, γ, and r of each row.
    """
    wide_x = at_least_float32(x)
    z = wide_x / jnp.sqrt(jnp.mean(wide_x**2, -1, keepdims=True) + eps)
    return scaled(z, scale).astype(x.dtype)


@rms_norm.def_fwd
def rms_norm_fwd(x, scale, *, eps):
    check("rms_norm", x, eps, scale=scale)
    wide_x = at_least_float32(x)
    r = jax.lax.rsqrt(row_mean(wide_x * wide_x) + eps)
    return scaled(wide_x * r, scale).astype(x.dtype), (x, scale, r)


@rms_norm.def_bwd
def rms_norm_bwd(residuals, dy, *, eps):
    del eps
    x, scale, r = residuals
    dy, z = at_least_float32(dy), at_least_float32(x) * r
    dx = r * (scaled(dy, scale) - z * row_mean(dy * z, scale))  # γȳ less its projection on x̂
    return dx, jnp.sum(dy * z, leading(x))


@op(
    reference=lambda x, *, axis, eps: (
        x / jnp.sqrt(jnp.linalg.norm(x, axis=axis, keepdims=True) ** 2 + eps)
    ),
    examples=(
        example(x=normal(4, 5)),
        example(x=normal(2, 3, 4), axis=1),
        example(x=normal(3, 4), axis=0, eps=1e-3),
        example(x=normal(6)),
        example(x=normal(3, 1), eps=1e-2),
        example(x=normal(0, 5)),
        example(x=normal(3, 0)),
        example(x=values([1e4, 1e4, 1e4], [1e-6, -1e-6, 0.0], [0.0, 0.0, 0.0]), tags={"extreme"}),
        example(x=normal(4096, 512), tags={"bench"}),
    ),
    source="cosine similarity; in networks: Wang, Xiang, Cheng & Yuille 2017, arXiv:1704.06369",
)
def l2_normalize(x, *, axis: int = -1, eps: float = 1e-12):
    """Give every vector along `axis` the length 1; one much shorter than √ε is divided by √ε.

        r = 1/√(Σ x² + ε),   y = x r,   x̄ = r (ȳ - y Σ ȳ y)

    Shapes: x (..., n, ...) -> y of the same shape; sums along `axis`, in at least float32.
    Saves x, and r of each vector.
    """
    wide_x = at_least_float32(x)
    squared = jnp.sum(wide_x**2, axis, keepdims=True)
    return (wide_x / jnp.sqrt(squared + eps)).astype(x.dtype)


@l2_normalize.def_fwd
def l2_normalize_fwd(x, *, axis, eps):
    check("l2_normalize", x, eps)
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"l2_normalize: there is no axis {axis} in x {x.shape}")
    wide_x = at_least_float32(x)
    r = jax.lax.rsqrt(jnp.sum(wide_x * wide_x, axis, keepdims=True) + eps)
    return (wide_x * r).astype(x.dtype), (x, r)


@l2_normalize.def_bwd
def l2_normalize_bwd(residuals, dy, *, axis, eps):
    del eps
    x, r = residuals
    x, dy = at_least_float32(x), at_least_float32(dy)
    along = r * jnp.sum(dy * x, axis, keepdims=True)
    return r * (dy - x * (r * along))  # ȳ less its projection on y


@op(
    reference=lambda v, g, *, eps: (
        v * (g / jnp.sqrt(jnp.einsum("...o,...o->o", v, v) + eps))[(None,) * (v.ndim - 1)]
    ),
    examples=(
        example(v=normal(5, 3), g=normal(3)),
        example(v=normal(2, 3, 4, 5), g=normal(5), eps=1e-3),
        example(v=normal(4), g=normal(4), eps=1e-2),
        example(v=normal(1, 1), g=normal(1), eps=1e-2),
        example(v=normal(0, 3), g=normal(3)),
        example(v=normal(5, 0), g=normal(0)),
        example(v=values([1e4, 1e-6, 0.0], [-1e4, 1e-6, 0.0]), g=normal(3), tags={"extreme"}),
        example(v=normal(1024, 1024), g=normal(1024), tags={"bench"}),
    ),
    source="Salimans & Kingma 2016, arXiv:1602.07868",
)
def weight_norm(v, g, *, eps: float = 1e-12):
    """Give the weights of each output a direction v and a length g of their own.

        r = 1/√(Σ v² + ε),   u = v r,   w = g u

    Shapes: v (..., out), such as a matrix or a convolution's kernel, g (out,) -> w as v; sums are
    over all axes but the last, in at least float32. Backward:

        ḡ = Σ w̄ u,   v̄ = g r (w̄ - u ḡ)

    ε keeps weights of 0 from a division by 0. Saves v, g, and r of each output.
    """
    wide_v = at_least_float32(v)
    length = jnp.sqrt(jnp.sum(wide_v**2, leading(v)) + eps)
    return scaled(wide_v / per_channel(length, wide_v), g).astype(v.dtype)


@weight_norm.def_fwd
def weight_norm_fwd(v, g, *, eps):
    check("weight_norm", v, eps, g=g)
    wide_v = at_least_float32(v)
    r = jax.lax.rsqrt(jnp.sum(wide_v * wide_v, leading(v)) + eps)
    return (wide_v * per_channel(scaled(r, g), wide_v)).astype(v.dtype), (v, g, r)


@weight_norm.def_bwd
def weight_norm_bwd(residuals, dw, *, eps):
    del eps
    v, g, r = residuals
    v, dw = at_least_float32(v), at_least_float32(dw)
    dg = jnp.sum(dw * v, leading(v)) * r
    # w̄ less its projection on u, times g r
    return (dw - v * per_channel(r * dg, v)) * per_channel(scaled(r, g), v), dg


@op(
    reference=lambda x, *, size, alpha, beta, k: (
        x * jnp.exp(-beta * jnp.log(k + alpha * jnp.einsum("...i,ij->...j", x * x, _band(x, size))))
    ),
    examples=(
        example(x=normal(3, 7), alpha=0.5),
        example(x=normal(2, 3, 2, 6), size=3, alpha=0.5, beta=0.5, k=1.0),
        example(x=normal(2, 3, 5), size=4, alpha=0.5),
        example(x=normal(4, 3), size=9, alpha=0.5),
        example(x=normal(4, 3), size=1, alpha=0.5),
        example(x=normal(5)),
        example(x=normal(1, 1)),
        example(x=normal(0, 5)),
        example(x=normal(3, 0)),
        example(x=values([1e4, 1e-6, -1e4], [0.0, 1e-6, 0.0]), tags={"extreme"}),
        example(x=normal(32, 27, 27, 96), tags={"bench"}),
    ),
    source="Krizhevsky, Sutskever & Hinton 2012, NIPS, section 3.3",
)
def local_response_norm(
    x, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
):
    """Divide every channel by a power of k + α Σ x² over it and its neighbours.

        dᵢ = k + α Σⱼ xⱼ²,   yᵢ = xᵢ dᵢ^-β,   j from i - ⌊size/2⌋ to i + ⌊(size-1)/2⌋

    Shapes: x (..., channels) -> y as x, computed in at least float32. Backward, i over the
    channels whose neighbour j is:

        x̄ⱼ = ȳⱼ dⱼ^-β - 2αβ xⱼ Σᵢ ȳᵢ xᵢ dᵢ^(-β-1)

    α multiplies the sum, as in the paper; elsewhere it multiplies the mean. Saves x.
    """
    wide_x = at_least_float32(x)
    channels = x.shape[-1]
    below, above = min(size // 2, channels), min((size - 1) // 2, channels)
    aside = [(0, 0)] * (x.ndim - 1)
    squares = jnp.pad(wide_x**2, [*aside, (below, above)])
    total = sum(squares[..., i : i + channels] for i in range(below + above + 1))
    return (wide_x / (k + alpha * total) ** beta).astype(x.dtype)


def _band(x, size):
    """Whether channel i is a neighbour of channel j, as a matrix of 0 and 1."""
    distance = jnp.arange(x.shape[-1])[:, None] - jnp.arange(x.shape[-1])[None]
    return ((-(size // 2) <= distance) & (distance <= (size - 1) // 2)).astype(x.dtype)


def _power(d, exponent):
    """d to a power, for d > 0: XLA's own takes twice as long, as it allows for any d."""
    return jnp.exp(exponent * jnp.log(d))


def _neighbours(x, below, above):
    """Sum over the channels from i - `below` to i + `above`, as far as there are any."""
    below, above = min(below, x.shape[-1]), min(above, x.shape[-1])
    aside = (1,) * (x.ndim - 1)
    window, strides = (*aside, below + above + 1), (1,) * x.ndim
    padding = [(0, 0)] * (x.ndim - 1) + [(below, above)]
    return jax.lax.reduce_window(x, jnp.zeros((), x.dtype), jax.lax.add, window, strides, padding)


@local_response_norm.def_fwd
def local_response_norm_fwd(x, *, size, alpha, beta, k):
    check("local_response_norm", x, 0)
    if size < 1 or not k > 0 or alpha < 0:
        raise ValueError(
            "local_response_norm: expected size ≥ 1, k > 0 and alpha ≥ 0, got "
            f"size {size!r}, k {k!r}, alpha {alpha!r}"
        )
    wide_x = at_least_float32(x)
    d = k + alpha * _neighbours(wide_x * wide_x, size // 2, (size - 1) // 2)
    return (wide_x * _power(d, -beta)).astype(x.dtype), x


@local_response_norm.def_bwd
def local_response_norm_bwd(x, dy, *, size, alpha, beta, k):
    x, dy = at_least_float32(x), at_least_float32(dy)
    d = k + alpha * _neighbours(x * x, size // 2, (size - 1) // 2)
    direct = dy * _power(d, -beta)  # ȳⱼ dⱼ^-β: through xⱼ itself; below, through the dᵢ
    return direct - 2 * alpha * beta * x * _neighbours(direct * x / d, (size - 1) // 2, size // 2)
