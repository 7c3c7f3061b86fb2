"""Arithmetic of whole arrays: where two branches of a graph meet."""

import jax.numpy as jnp

from ..custom_op import op
from ..errors import ShapeError
from ..example import example, normal, values


@op(
    reference=jnp.add,
    examples=(
        example(x=normal(3, 4), y=normal(3, 4)),
        example(x=normal(2, 3, 4, 5), y=normal(2, 3, 4, 5)),
        example(x=normal(), y=normal()),
        example(x=normal(1, 1), y=normal(1, 1)),
        example(x=normal(0, 3), y=normal(0, 3)),
        example(x=values([1e30, -1e30, 0.0]), y=values([1e30, 1e30, 0.0]), tags={"extreme"}),
        example(x=normal(32, 28, 28, 64), y=normal(32, 28, 28, 64), tags={"bench"}),
    ),
    source="the sum rule",
)
def add(x, y):
    """Add two arrays of one shape.

        z = x + y,   x̄ = z̄,   ȳ = z̄

    Both branches get the whole cotangent: what a residual connection passes on undiminished.
    Shapes: x and y (...) -> z (...). Saves nothing. Raises ShapeError where the shapes differ.
    """
    return x + y


@add.def_fwd
def add_fwd(x, y):
    if x.shape != y.shape:
        raise ShapeError(f"add: expects two arrays of one shape, got {x.shape} and {y.shape}")
    return x + y, None


@add.def_bwd
def add_bwd(residuals, dz):
    del residuals
    return dz, dz
