"""Correct rules that look up, gather, sort, pick or drop elements."""

import jax
import jax.numpy as jnp

from .rule import Rule
from .rules_shared import wide


def scatter_rows(g, index, size):
    """Add each g[..., j] to place index[..., j] of a last axis of `size`."""
    *lead, n = g.shape
    rows = jax.lax.broadcasted_iota(index.dtype, (_count(lead), n), 0)
    flat = jnp.zeros((_count(lead), size), g.dtype)
    flat = flat.at[rows, index.reshape(rows.shape)].add(g.reshape(rows.shape))
    return flat.reshape(*lead, size)


def _count(lead):
    count = 1
    for size in lead:
        count *= size
    return count


def embedding(table, ids):
    return table[jnp.clip(ids, 0, table.shape[0] - 1)]


def embedding_fwd(table, ids):
    return embedding(table, ids), (table.shape[0], ids)


def embedding_bwd(residuals, g):
    rows, ids = residuals
    dtable = jnp.zeros((rows, g.shape[-1]), wide(g).dtype)
    return dtable.at[jnp.clip(ids, 0, rows - 1)].add(wide(g)).astype(g.dtype), None


def gather_last(x, index):
    return jnp.take_along_axis(x, index, axis=-1)


def gather_last_fwd(x, index):
    return gather_last(x, index), (x.shape[-1], index)


def gather_last_bwd(residuals, g):
    size, index = residuals
    return scatter_rows(wide(g), index, size).astype(g.dtype), None


def segment_sum(data, ids, segments):
    return jax.ops.segment_sum(data, ids, num_segments=segments)


def segment_sum_fwd(data, ids, segments):
    return segment_sum(data, ids, segments), ids


def segment_sum_bwd(segments, ids, g):
    # Rows of no segment were dropped.
    return g.at[ids].get(mode="fill", fill_value=0), None


def maximum_last(x):
    """Return the largest element along the last axis, and where it is."""
    return jnp.max(x, axis=-1), jnp.argmax(x, axis=-1).astype(jnp.int32)


def maximum_last_fwd(x):
    y, index = maximum_last(x)
    return (y, index), (x.shape[-1], index)


def maximum_last_bwd(residuals, cotangents):
    size, index = residuals
    g, _ = cotangents
    hit = jax.lax.broadcasted_iota(jnp.int32, (*index.shape, size), index.ndim) == index[..., None]
    return (jnp.where(hit, g[..., None], 0),)


def minimum_columns(x):
    return jnp.min(x, axis=0)


def minimum_columns_fwd(x):
    y = minimum_columns(x)
    return y, (x, y)


def minimum_columns_bwd(residuals, g):
    # Columns with several minima split the cotangent evenly.
    x, y = residuals
    hit = x == y[None]
    count = jnp.maximum(jnp.sum(hit, axis=0, dtype=jnp.int32), 1).astype(g.dtype)
    return (jnp.where(hit, (g / count)[None], 0),)


def sort_last(x):
    return jnp.sort(x, axis=-1)


def sort_last_fwd(x):
    order = jnp.argsort(x, axis=-1)
    return jnp.take_along_axis(x, order, axis=-1), order


def sort_last_bwd(order, g):
    return (jnp.take_along_axis(g, jnp.argsort(order, axis=-1), axis=-1),)


def top_k(x, k):
    return jax.lax.top_k(x, k)[0]


def top_k_fwd(x, k):
    values, index = jax.lax.top_k(x, k)
    return values, (x.shape[-1], index)


def top_k_bwd(k, residuals, g):
    size, index = residuals
    return (scatter_rows(g, index, size),)


def where_select(condition, a, b):
    return jnp.where(condition, a, b)


def where_select_fwd(condition, a, b):
    return where_select(condition, a, b), condition


def where_select_bwd(condition, g):
    return None, jnp.where(condition, g, 0), jnp.where(condition, 0, g)


def masked_mean(x, mask):
    """Return the mean of the unmasked elements of each row, 0 where there is none."""
    count = jnp.maximum(jnp.sum(mask, axis=-1, dtype=jnp.int32), 1).astype(x.dtype)
    return jnp.sum(jnp.where(mask, x, 0), axis=-1) / count


def masked_mean_fwd(x, mask):
    return masked_mean(x, mask), mask


def masked_mean_bwd(mask, g):
    count = jnp.maximum(jnp.sum(mask, axis=-1, dtype=jnp.int32), 1).astype(g.dtype)
    return jnp.where(mask, (g / count)[..., None], 0), None


def _keep(key, shape, rate):
    # Drawn in float32 whatever the types, so that the same key always drops the same elements.
    return jax.random.uniform(key, shape, jnp.float32) >= rate


def dropout(key, x, rate):
    return jnp.where(_keep(key, x.shape, rate), x / (1 - rate), 0)


def dropout_fwd(key, x, rate):
    return dropout(key, x, rate), key


def dropout_bwd(rate, key, g):
    return None, jnp.where(_keep(key, g.shape, rate), g / (1 - rate), 0)


def reparameterize(key, mean, log_std):
    """Draw from a normal distribution of the given mean and standard deviation."""
    noise = jax.random.normal(key, mean.shape, jnp.float32).astype(mean.dtype)
    return mean + jnp.exp(log_std) * noise


def reparameterize_fwd(key, mean, log_std):
    return reparameterize(key, mean, log_std), (key, log_std)


def reparameterize_bwd(residuals, g):
    key, log_std = residuals
    noise = wide(jax.random.normal(key, g.shape, jnp.float32).astype(g.dtype))
    return None, g, (wide(g) * noise * jnp.exp(wide(log_std))).astype(g.dtype)


RULES = [
    Rule("embedding", embedding, ("f32[7,3]", "i32[4,2] in 0..6"), embedding_fwd, embedding_bwd),
    Rule(
        "gather_last",
        gather_last,
        ("f32[4,5]", "i32[4,3] in 0..4"),
        gather_last_fwd,
        gather_last_bwd,
    ),
    Rule(
        "segment_sum",
        segment_sum,
        ("f32[6,3]", "i32[6] in 0..3", 4),
        segment_sum_fwd,
        segment_sum_bwd,
        nondiff_argnums=(2,),
    ),
    Rule("maximum_last", maximum_last, ("f32[4,3]",), maximum_last_fwd, maximum_last_bwd),
    Rule(
        "minimum_columns",
        minimum_columns,
        ("f32[4,3]",),
        minimum_columns_fwd,
        minimum_columns_bwd,
    ),
    Rule("sort_last", sort_last, ("f32[4,5]",), sort_last_fwd, sort_last_bwd),
    Rule("top_k", top_k, ("f32[4,5]", 2), top_k_fwd, top_k_bwd, None, (1,)),
    Rule(
        "where_select",
        where_select,
        ("bool[4,3]", "f32[4,3]", "f32[4,3]"),
        where_select_fwd,
        where_select_bwd,
    ),
    Rule(
        "masked_mean",
        masked_mean,
        ("f32[4,3]", "bool[4,3]"),
        masked_mean_fwd,
        masked_mean_bwd,
    ),
    Rule("dropout", dropout, ("key[]", "f32[4,3]", 0.25), dropout_fwd, dropout_bwd, None, (2,)),
    Rule(
        "reparameterize",
        reparameterize,
        ("key[]", "f32[4,3]", "f32[4,3]"),
        reparameterize_fwd,
        reparameterize_bwd,
    ),
]
