"""Correct rules of products and sums: dense layers, broadcasting, einsum."""

import jax
import jax.numpy as jnp

from .rule import Rule
from .rules_shared import unbroadcast, wide


def dense(x, w, b):
    return jnp.einsum("...i,io->...o", x, w) + jnp.broadcast_to(b, (*x.shape[:-1], b.size))


def dense_fwd(x, w, b):
    return dense(x, w, b), (x, w)


def dense_bwd(residuals, g):
    x, w = map(wide, residuals)
    g_ = wide(g)
    dx = jnp.einsum("...o,io->...i", g_, w)
    dw = jnp.einsum("...i,...o->io", x, g_)
    db = jnp.einsum("...o->o", g_)
    return dx.astype(g.dtype), dw.astype(g.dtype), db.astype(g.dtype)


def dense_optional_bias(x, w, b):
    y = x @ w
    return y if b is None else y + b


def dense_optional_bias_fwd(x, w, b):
    # Of the bias, only whether there is one matters.
    return dense_optional_bias(x, w, b), (x, w, b is not None)


def dense_optional_bias_bwd(residuals, g):
    x, w, biased = residuals
    g_ = wide(g)
    dx, dw = g_ @ wide(w).T, wide(x).T @ g_
    db = jnp.sum(g_, axis=0, keepdims=True).astype(g.dtype) if biased else None
    return dx.astype(x.dtype), dw.astype(w.dtype), db


def block(params, x):
    """Return a layer's output and its hidden activation."""
    hidden = jnp.tanh(jnp.einsum("ni,ih->nh", x, params["in"]["w"]) + params["in"]["b"][None])
    return jnp.einsum("nh,ho->no", hidden, params["out"]["w"]), hidden


def block_fwd(params, x):
    y, hidden = block(params, x)
    return (y, hidden), (params["in"]["w"], params["out"]["w"], x, hidden)


def block_bwd(residuals, cotangents):
    w_in, w_out, x, hidden = map(wide, residuals)
    dtype = cotangents[0].dtype
    dy, dhidden = map(wide, cotangents)
    dhidden = dhidden + jnp.einsum("no,ho->nh", dy, w_out)
    dz = dhidden * (1 - hidden) * (1 + hidden)
    dparams = {
        "in": {"w": jnp.einsum("ni,nh->ih", x, dz), "b": jnp.sum(dz, axis=0)},
        "out": {"w": jnp.einsum("nh,no->ho", hidden, dy)},
    }
    dx = jnp.einsum("nh,ih->ni", dz, w_in)
    return jax.tree.map(lambda d: d.astype(dtype), (dparams, dx))


def bias_channels(x, b):
    return x + b[None, :, None]


def bias_channels_fwd(x, b):
    return bias_channels(x, b), None


def bias_channels_bwd(_, g):
    return g, jnp.sum(wide(g), axis=(0, 2)).astype(g.dtype)


def scale_features(x, a):
    return x * a[None, :]


def scale_features_fwd(x, a):
    return x * a[None, :], (x, a)


def scale_features_bwd(residuals, g):
    x, a = residuals
    return g * a[None, :], jnp.sum(wide(g) * wide(x), axis=0).astype(a.dtype)


def multiply_fwd(a, b):
    return a * b, (a, b)


def multiply_bwd(residuals, g):
    a, b = residuals
    a_, b_, g_ = wide(a), wide(b), wide(g)
    da, db = unbroadcast(g_ * b_, a.shape), unbroadcast(g_ * a_, b.shape)
    return da.astype(a.dtype), db.astype(b.dtype)


def subtract_fwd(a, b):
    return a - b, (a.shape, b.shape)


def subtract_bwd(shapes, g):
    da, db = (unbroadcast(wide(g), shape) for shape in shapes)
    return da.astype(g.dtype), -db.astype(g.dtype)


def divide_fwd(a, b):
    y = a / b
    return y, (a.shape, y, b)


def divide_bwd(residuals, g):
    shape, y, b = residuals
    da = wide(g) / wide(b)
    db = unbroadcast(-da * wide(y), b.shape)
    return unbroadcast(da, shape).astype(g.dtype), db.astype(b.dtype)


def affine_scalar(x, a, b):
    return a * x + b


def affine_scalar_fwd(x, a, b):
    return a * x + b, (x, a)


def affine_scalar_bwd(residuals, g):
    x, a = residuals
    g_ = wide(g)
    return g * a, jnp.sum(g_ * wide(x)).astype(g.dtype), jnp.sum(g_).astype(g.dtype)


def outer(x, y):
    return x[:, None] * y[None, :]


def outer_fwd(x, y):
    return outer(x, y), (x, y)


def outer_bwd(residuals, g):
    x, y = residuals
    g_ = wide(g)
    return (g_ @ wide(y)).astype(x.dtype), (wide(x) @ g_).astype(y.dtype)


def bilinear(x, w, y):
    return jnp.einsum("ni,ijo,nj->no", x, w, y)


def bilinear_fwd(x, w, y):
    return bilinear(x, w, y), (x, w, y)


def bilinear_bwd(residuals, g):
    x, w, y = map(wide, residuals)
    g_ = wide(g)
    dx = jnp.einsum("no,ijo,nj->ni", g_, w, y)
    dw = jnp.einsum("no,ni,nj->ijo", g_, x, y)
    dy = jnp.einsum("no,ni,ijo->nj", g_, x, w)
    return dx.astype(g.dtype), dw.astype(g.dtype), dy.astype(g.dtype)


def batch_matmul(a, b):
    return jnp.einsum("...ij,...jk->...ik", a, b)


def batch_matmul_fwd(a, b):
    return batch_matmul(a, b), (a, b)


def batch_matmul_bwd(residuals, g):
    a, b = residuals
    da = jnp.einsum("...ik,...jk->...ij", wide(g), wide(b))
    db = jnp.einsum("...ij,...ik->...jk", wide(a), wide(g))
    return unbroadcast(da, a.shape).astype(a.dtype), unbroadcast(db, b.shape).astype(b.dtype)


RULES = [
    Rule("dense", dense, ("f32[4,3]", "f32[3,5]", "f32[5]"), dense_fwd, dense_bwd),
    Rule(
        "dense_without_bias",
        dense_optional_bias,
        ("f32[4,3]", "f32[3,5]", None),
        dense_optional_bias_fwd,
        dense_optional_bias_bwd,
    ),
    Rule(
        "dense_row_bias",
        dense_optional_bias,
        ("f32[4,3]", "f32[3,5]", "f32[1,5]"),
        dense_optional_bias_fwd,
        dense_optional_bias_bwd,
    ),
    Rule(
        "block",
        block,
        ({"in": {"w": "f32[3,5]", "b": "f32[5]"}, "out": {"w": "f32[5,2]"}}, "f32[4,3]"),
        block_fwd,
        block_bwd,
    ),
    Rule(
        "bias_channels",
        bias_channels,
        ("f32[2,4,3]", "f32[4]"),
        bias_channels_fwd,
        bias_channels_bwd,
    ),
    Rule(
        "scale_features",
        scale_features,
        ("f32[4,3]", "f32[3]"),
        scale_features_fwd,
        scale_features_bwd,
    ),
    Rule("multiply_column", jnp.multiply, ("f32[4,1]", "f32[4,3]"), multiply_fwd, multiply_bwd),
    Rule("multiply_cross", jnp.multiply, ("f32[4,1]", "f32[1,3]"), multiply_fwd, multiply_bwd),
    Rule("subtract_row", jnp.subtract, ("f32[4,3]", "f32[1,3]"), subtract_fwd, subtract_bwd),
    Rule(
        "divide_column",
        jnp.divide,
        ("f32[4,3]", "f32[4,1] in positive"),
        divide_fwd,
        divide_bwd,
    ),
    Rule(
        "affine_scalar",
        affine_scalar,
        ("f32[4,3]", "f32[]", "f32[]"),
        affine_scalar_fwd,
        affine_scalar_bwd,
    ),
    Rule("outer", outer, ("f32[4]", "f32[3]"), outer_fwd, outer_bwd),
    Rule("bilinear", bilinear, ("f32[4,3]", "f32[3,5,2]", "f32[4,5]"), bilinear_fwd, bilinear_bwd),
    Rule(
        "batch_matmul",
        batch_matmul,
        ("f32[2,4,3]", "f32[2,3,5]"),
        batch_matmul_fwd,
        batch_matmul_bwd,
    ),
]
