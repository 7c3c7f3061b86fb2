"""Correct rules that look up, gather, sort, pick or drop elements."""

import math

import jax
import jax.numpy as jnp

from .rule import X, vjp_rule


def scatter_rows(g, index, size):
    """Add each g[..., j] to place index[..., j] of a last axis of `size`."""
    *lead, n = g.shape
    count = math.prod(lead)
    rows = jax.lax.broadcasted_iota(index.dtype, (count, n), 0)
    flat = jnp.zeros((count, size), g.dtype)
    flat = flat.at[rows, index.reshape(rows.shape)].add(g.reshape(rows.shape))
    return flat.reshape(*lead, size)


@vjp_rule(
    lambda table, ids: table[jnp.clip(ids, 0, table.shape[0] - 1)],
    *("f32[7,3]", "i32[4,2] in 0..6"),
    saves=lambda y, table, ids: (table.shape[0], ids),
)
def embedding_bwd(rows, ids, g):
    dtable = jnp.zeros((rows, g.shape[-1]), g.dtype)
    return dtable.at[jnp.clip(ids, 0, rows - 1)].add(g), None


vjp_rule(
    lambda x, index: jnp.take_along_axis(x, index, axis=-1),
    *("f32[4,5]", "i32[4,3] in 0..4"),
    saves=lambda y, x, index: (x.shape[-1], index),
    name="gather_last",
)(lambda size, index, g: (scatter_rows(g, index, size), None))


@vjp_rule(
    lambda data, ids, segments: jax.ops.segment_sum(data, ids, num_segments=segments),
    *("f32[6,3]", "i32[6] in 0..3"),
    static=(4,),
    saves=lambda y, data, ids, segments: ids,
)
def segment_sum(segments, ids, g):
    return g.at[ids].get(mode="fill", fill_value=0), None  # rows of no segment were dropped


def maximum_last(x):
    """Return the largest element along the last axis, and where it is."""
    return jnp.max(x, axis=-1), jnp.argmax(x, axis=-1).astype(jnp.int32)


@vjp_rule(maximum_last, X, saves=lambda y, x: (x.shape[-1], y[1]))
def maximum_last_bwd(size, index, cotangents):
    g, _ = cotangents
    hit = jax.lax.broadcasted_iota(jnp.int32, (*index.shape, size), index.ndim) == index[..., None]
    return jnp.where(hit, g[..., None], 0)


@vjp_rule(lambda x: jnp.min(x, axis=0), X, saves=lambda y, x: (x, y))
def minimum_columns(x, y, g):
    hit = x == y[None]  # columns with several minima split the cotangent evenly
    count = jnp.maximum(jnp.sum(hit, axis=0, dtype=jnp.int32), 1).astype(g.dtype)
    return jnp.where(hit, (g / count)[None], 0)


vjp_rule(
    lambda x: jnp.sort(x, axis=-1),
    "f32[4,5]",
    saves=lambda y, x: jnp.argsort(x, axis=-1),
    name="sort_last",
)(lambda order, g: jnp.take_along_axis(g, jnp.argsort(order, axis=-1), axis=-1))
vjp_rule(
    lambda x, k: jax.lax.top_k(x, k)[0],
    "f32[4,5]",
    static=(2,),
    saves=lambda y, x, k: (x.shape[-1], jax.lax.top_k(x, k)[1]),
    name="top_k",
)(lambda k, size, index, g: scatter_rows(g, index, size))
vjp_rule(
    lambda condition, a, b: jnp.where(condition, a, b),
    *("bool[4,3]", X, X),
    saves=lambda y, condition, a, b: condition,
    name="where_select",
)(lambda condition, g: (None, jnp.where(condition, g, 0), jnp.where(condition, 0, g)))


def masked_mean(x, mask):
    """Return the mean of the unmasked elements of each row, 0 where there is none."""
    count = jnp.maximum(jnp.sum(mask, axis=-1, dtype=jnp.int32), 1).astype(x.dtype)
    return jnp.sum(jnp.where(mask, x, 0), axis=-1) / count


@vjp_rule(masked_mean, X, "bool[4,3]", saves=lambda y, x, mask: mask)
def masked_mean_bwd(mask, g):
    count = jnp.maximum(jnp.sum(mask, axis=-1, dtype=jnp.int32), 1).astype(g.dtype)
    return jnp.where(mask, (g / count)[..., None], 0), None


def _keep(key, shape, rate):
    # Drawn in float32 whatever the types, so that the same key always drops the same elements.
    return jax.random.uniform(key, shape, jnp.float32) >= rate


vjp_rule(
    lambda key, x, rate: jnp.where(_keep(key, x.shape, rate), x / (1 - rate), 0),
    *("key[]", X),
    static=(0.25,),
    saves=lambda y, key, x, rate: key,
    name="dropout",
)(lambda rate, key, g: (None, jnp.where(_keep(key, g.shape, rate), g / (1 - rate), 0)))


def _noise(key, like):
    return jax.random.normal(key, like.shape, jnp.float32).astype(like.dtype)


def reparameterize(key, mean, log_std):
    """Draw from a normal distribution of the given mean and standard deviation."""
    return mean + jnp.exp(log_std) * _noise(key, mean)


vjp_rule(
    reparameterize, *("key[]", X, X), saves=lambda y, key, mean, s: (key, s), name="reparameterize"
)(lambda key, log_std, g: (None, g, g * _noise(key, g) * jnp.exp(log_std)))
