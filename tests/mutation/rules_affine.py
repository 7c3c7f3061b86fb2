"""Correct rules of products and sums: dense layers, broadcasting, einsum."""

import jax.numpy as jnp

from .rule import X, vjp_rule


def unbroadcast(g, shape):
    """Sum `g` over the axes along which an array of `shape` was stretched."""
    g = jnp.sum(g, axis=tuple(range(g.ndim - len(shape))))
    stretched = [axis for axis, size in enumerate(shape) if size == 1 and g.shape[axis] != 1]
    return jnp.sum(g, axis=tuple(stretched), keepdims=True)


def dense(x, w, b):
    return jnp.einsum("...i,io->...o", x, w) + jnp.broadcast_to(b, (*x.shape[:-1], b.size))


@vjp_rule(dense, X, "f32[3,5]", "f32[5]", saves=lambda y, x, w, b: (x, w))
def dense_bwd(x, w, g):
    dx = jnp.einsum("...o,io->...i", g, w)
    dw = jnp.einsum("...i,...o->io", x, g)
    return dx, dw, jnp.einsum("...o->o", g)


def dense_optional_bias(x, w, b):
    y = x @ w
    return y if b is None else y + b


BIASED = {"saves": lambda y, x, w, b: (x, w, b is not None)}


@vjp_rule(dense_optional_bias, X, "f32[3,5]", None, name="dense_without_bias", **BIASED)
@vjp_rule(dense_optional_bias, X, "f32[3,5]", "f32[1,5]", name="dense_row_bias", **BIASED)
def dense_optional_bias_bwd(x, w, biased, g):
    return g @ w.T, x.T @ g, jnp.sum(g, axis=0, keepdims=True) if biased else None


def block(params, x):
    """Return a layer's output and its hidden activation."""
    hidden = jnp.tanh(jnp.einsum("ni,ih->nh", x, params["in"]["w"]) + params["in"]["b"][None])
    return jnp.einsum("nh,ho->no", hidden, params["out"]["w"]), hidden


@vjp_rule(
    block,
    {"in": {"w": "f32[3,5]", "b": "f32[5]"}, "out": {"w": "f32[5,2]"}},
    X,
    saves=lambda y, params, x: (params["in"]["w"], params["out"]["w"], x, y[1]),
)
def block_bwd(w_in, w_out, x, hidden, cotangents):
    dy, dhidden = cotangents
    dhidden = dhidden + jnp.einsum("no,ho->nh", dy, w_out)
    dz = dhidden * (1 - hidden) * (1 + hidden)
    dparams = {
        "in": {"w": jnp.einsum("ni,nh->ih", x, dz), "b": jnp.sum(dz, axis=0)},
        "out": {"w": jnp.einsum("nh,no->ho", hidden, dy)},
    }
    return dparams, jnp.einsum("nh,ih->ni", dz, w_in)


vjp_rule(
    lambda x, b: x + b[None, :, None],
    *("f32[2,4,3]", "f32[4]"),
    saves=lambda y, x, b: (),
    name="bias_channels",
)(lambda g: (g, jnp.sum(g, axis=(0, 2))))
vjp_rule(lambda x, a: x * a[None, :], X, "f32[3]", name="scale_features")(
    lambda x, a, g: (g * a[None, :], jnp.sum(g * x, axis=0))
)


@vjp_rule(jnp.multiply, "f32[4,1]", "f32[1,3]", name="multiply_cross")
@vjp_rule(jnp.multiply, "f32[4,1]", X, name="multiply_column")
def multiply(a, b, g):
    return unbroadcast(g * b, a.shape), unbroadcast(g * a, b.shape)


@vjp_rule(jnp.subtract, X, "f32[1,3]", saves=lambda y, a, b: (a.shape, b.shape))
def subtract_row(a_shape, b_shape, g):
    da, db = unbroadcast(g, a_shape), unbroadcast(g, b_shape)
    return da, -db


@vjp_rule(jnp.divide, X, "f32[4,1] in positive", saves=lambda y, a, b: (a.shape, y, b))
def divide_column(shape, y, b, g):
    da = g / b
    db = unbroadcast(-da * y, b.shape)
    return unbroadcast(da, shape), db


vjp_rule(
    lambda x, a, b: a * x + b,
    *(X, "f32[]", "f32[]"),
    saves=lambda y, x, a, b: (x, a),
    name="affine_scalar",
)(lambda x, a, g: (g * a, jnp.sum(g * x), jnp.sum(g)))
vjp_rule(lambda x, y: x[:, None] * y[None, :], "f32[4]", "f32[3]", name="outer")(
    lambda x, y, g: (g @ y, x @ g)
)


@vjp_rule(lambda x, w, y: jnp.einsum("ni,ijo,nj->no", x, w, y), X, "f32[3,5,2]", "f32[4,5]")
def bilinear(x, w, y, g):
    dx = jnp.einsum("no,ijo,nj->ni", g, w, y)
    dw = jnp.einsum("no,ni,nj->ijo", g, x, y)
    return dx, dw, jnp.einsum("no,ni,ijo->nj", g, x, w)


@vjp_rule(lambda a, b: jnp.einsum("...ij,...jk->...ik", a, b), "f32[2,4,3]", "f32[2,3,5]")
def batch_matmul(a, b, g):
    da = jnp.einsum("...ik,...jk->...ij", g, b)
    db = jnp.einsum("...ij,...ik->...jk", a, g)
    return unbroadcast(da, a.shape), unbroadcast(db, b.shape)
