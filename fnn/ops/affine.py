"""Affine maps: z = x W + b, with x a row (or many), and W of shape (inputs, outputs)."""

import jax.numpy as jnp

from ..cotangent import contract
from ..custom_op import op
from ..example import booleans, example, normal, values
from .norm_parts import add_bias, leading


@op(
    reference=lambda x, w, b: x @ w + (0 if b is None else b),
    examples=(
        example(x=normal(5, 3), w=normal(3, 4), b=normal(4)),
        example(x=normal(5, 3), w=normal(3, 4)),
        example(x=normal(2, 3, 2, 3), w=normal(3, 4), b=normal(4)),
        example(x=normal(1, 1), w=normal(1, 1), b=normal(1)),
        example(x=normal(0, 3), w=normal(3, 4), b=normal(4)),
        example(x=normal(5, 3), w=normal(3, 4), b=normal(1)),
        example(x=normal(5, 3, scale=1e4), w=normal(3, 4), b=normal(4), tags={"extreme"}),
        example(x=normal(256, 512), w=normal(512, 512), b=normal(512), tags={"bench"}),
    ),
    source="Rumelhart, Hinton & Williams 1986, doi:10.1038/323533a0",
)
def dense(x, w, b=None):
    """Map every row by the same matrix, and shift it.

        y = x W + b

    Shapes: x (..., in), W (in, out), b (out,) or (1,) or None -> y (..., out).
    Backward, Σ over the leading axes:

        x̄ = ȳ Wᵀ,   W̄ = Σ xᵀ ȳ,   b̄ = Σ ȳ

    Saves x and W.
    """
    return add_bias(jnp.einsum("...i,io->...o", x, w), b)


@dense.def_fwd
def dense_fwd(x, w, b):
    return add_bias(jnp.tensordot(x, w, 1), b), (x, w)


@dense.def_bwd
def dense_bwd(residuals, dy):
    x, w = residuals
    dx = contract(dy, w, ((dy.ndim - 1,), (1,)), like=x)
    dw = contract(x, dy, (leading(x), leading(x)), like=w)
    return dx, dw, dy


@op(
    reference=lambda x, w, mask, b: x @ jnp.where(mask, w, 0) + (0 if b is None else b),
    examples=(
        example(x=normal(5, 3), w=normal(3, 4), mask=booleans(3, 4), b=normal(4)),
        example(x=normal(5, 3), w=normal(3, 4), mask=booleans(3, 4)),
        example(x=normal(2, 3, 3), w=normal(3, 2), mask=booleans(3, 2), b=normal(2)),
        example(x=normal(1, 1), w=normal(1, 1), mask=values([True]), b=normal(1)),
        example(x=normal(2, 2), w=normal(2, 2), mask=values([True, False], [False, False])),
        example(x=normal(0, 3), w=normal(3, 4), mask=booleans(3, 4), b=normal(4)),
        example(
            x=normal(256, 512),
            w=normal(512, 512),
            mask=booleans(512, 512),
            b=normal(512),
            tags={"bench"},
        ),
    ),
    source="sparse connectivity; as masks: Germain, Gregor, Murray & Larochelle 2015, MADE",
)
def masked_dense(x, w, mask, b=None):
    """Let each unit see only a subset of the layer below.

        y = x (M ∘ W) + b

    Shapes: x (..., in), W (in, out), M (in, out) of booleans, b (out,) or None -> y (..., out).
    Backward, Σ over the leading axes:

        x̄ = ȳ (M ∘ W)ᵀ,   W̄ = M ∘ Σ xᵀ ȳ,   b̄ = Σ ȳ

    A connection that is masked out gets gradient 0, so it stays as it is. Saves x, W and M.
    """
    return add_bias(jnp.einsum("...i,io->...o", x, jnp.where(mask, w, 0)), b)


@masked_dense.def_fwd
def masked_dense_fwd(x, w, mask, b):
    if mask.dtype != bool:
        raise TypeError(f"masked_dense: mask must be boolean, got {mask.dtype}; pass mask != 0")
    return add_bias(jnp.tensordot(x, jnp.where(mask, w, 0), 1), b), (x, w, mask)


@masked_dense.def_bwd
def masked_dense_bwd(residuals, dy):
    x, w, mask = residuals
    dx = contract(dy, jnp.where(mask, w, 0), ((dy.ndim - 1,), (1,)), like=x)
    dw = contract(x, dy, (leading(x), leading(x)), like=w)
    return dx, jnp.where(mask, dw, 0), None, dy
