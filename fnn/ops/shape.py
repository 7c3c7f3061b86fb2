"""Ops that move numbers without changing them; their Jacobians are permutations."""

import math

import jax.numpy as jnp

from ..custom_op import Static, op
from ..errors import ShapeError
from ..example import example, normal


@op(
    reference=lambda x: jnp.stack([row.ravel() for row in x]) if len(x) else x.reshape(0, 12),
    examples=(
        example(x=normal(2, 3, 4)),
        example(x=normal(3, 2, 2, 1)),
        example(x=normal(5, 3)),
        example(x=normal(4)),
        example(x=normal(1, 1, 1)),
        example(x=normal(0, 3, 4)),
        example(x=normal(128, 14, 14, 32), tags={"bench"}),
    ),
    source="row-major order",
)
def flatten(x):
    """Make one row of each example.

        y[n, (i, j, ...)] = x[n, i, j, ...],   x̄[n, i, j, ...] = ȳ[n, (i, j, ...)]

    Shapes: x (batch, ...) -> y (batch, size of the rest). Saves the shape alone.
    """
    if x.ndim < 1:
        raise ShapeError(f"flatten: expects (batch, ...), got {x.shape}")
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


@flatten.def_fwd
def flatten_fwd(x):
    return flatten.definition(x), Static(x.shape)


@flatten.def_bwd
def flatten_bwd(shape, dy):
    return dy.reshape(shape.value)
