"""What the rules of the corpus share: wide arithmetic, and sums over broadcast axes."""

import jax
import jax.numpy as jnp


def wide(x: jax.Array) -> jax.Array:
    """Return `x` in float32 if it has 16 bits: sums and products of such arrays are done there."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def unbroadcast(g: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sum `g` over the axes along which an array of `shape` was stretched."""
    g = jnp.sum(g, axis=tuple(range(g.ndim - len(shape))))
    stretched = [axis for axis, size in enumerate(shape) if size == 1 and g.shape[axis] != 1]
    return jnp.sum(g, axis=tuple(stretched), keepdims=True)
