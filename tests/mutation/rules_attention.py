"""Correct rules of attention, over (heads, positions, features)."""

import jax
import jax.numpy as jnp

from .rule import vjp_rule, wide


def _scores(q, k):
    # Scaled after the product, the scores would be rounded once for the maximum and not at all
    # where the maximum is subtracted: compilers fuse a product and a difference.
    return jnp.einsum("htd,hsd->hts", q * q.shape[-1] ** -0.5, k)


def _attend(q, k, v, mask):
    """Return the weighted values and the weights; a row that is masked entirely has none."""
    scores = jnp.where(mask[None], _scores(q, k), jnp.finfo(q.dtype).min)
    p = jnp.where(mask[None], jax.nn.softmax(scores, axis=-1), 0)
    return jnp.einsum("hts,hsd->htd", p, v), p


def _attend_bwd(q, k, v, p, g):
    dp = jnp.einsum("htd,hsd->hts", g, v)
    ds = p * (dp - jnp.sum(dp * p, axis=-1, keepdims=True)) * q.shape[-1] ** -0.5
    dq = jnp.einsum("hts,hsd->htd", ds, k)
    dk = jnp.einsum("hts,htd->hsd", ds, q)
    dv = jnp.einsum("hts,htd->hsd", p, g)
    return dq, dk, dv


@vjp_rule(
    lambda q, k, v, mask: _attend(q, k, v, mask)[0],
    *("f32[2,5,3]", "f32[2,4,3]", "f32[2,4,6]", "bool[5,4]"),
)
def attention_bwd(q, k, v, mask, g):
    _, p = _attend(q, k, v, mask)
    return *_attend_bwd(q, k, v, p, g), None


def _causal(q, k):
    shape = (q.shape[1], k.shape[1])
    rows = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    return jax.lax.broadcasted_iota(jnp.int32, shape, 1) <= rows


def causal_attention_fwd(q, k, v):
    y, p = _attend(q, k, v, _causal(q, k))
    return y, (q, k, v, p)


vjp_rule(
    lambda q, k, v: _attend(q, k, v, _causal(q, k))[0],
    *("f32[2,5,3]", "f32[2,5,3]", "f32[2,5,4]"),
    fwd=causal_attention_fwd,
    name="causal_attention",
)(lambda q, k, v, p, g: _attend_bwd(q, k, v, p, g))


def plain_attention(q, k, v):
    return jnp.einsum("hts,hsd->htd", jax.nn.softmax(_scores(q, k), axis=-1), v)


BLOCK = 4


def flash_attention_fwd(q, k, v):
    """Go through the keys in blocks with a running maximum; save the logsumexp of each row."""
    q_, k_, v_ = wide((q, k, v))
    top = jnp.full(q.shape[:2], -jnp.inf, q_.dtype)
    total = jnp.zeros_like(top)
    out = jnp.zeros((*q.shape[:2], v.shape[-1]), q_.dtype)
    for start in range(0, k.shape[1], BLOCK):
        scores = _scores(q_, k_[:, start : start + BLOCK])
        new_top = jax.lax.stop_gradient(jnp.maximum(top, jnp.max(scores, axis=-1)))
        decay = jnp.exp(top - new_top)
        e = jnp.exp(scores - new_top[..., None])
        total = decay * total + jnp.sum(e, axis=-1)
        value = jnp.einsum("hts,hsd->htd", e, v_[:, start : start + BLOCK])
        out = decay[..., None] * out + value
        top = new_top
    out = out / total[..., None]
    return out.astype(q.dtype), (q, k, v, out, top + jnp.log(total))


@vjp_rule(
    lambda q, k, v: flash_attention_fwd(q, k, v)[0],
    *("f32[2,5,3]", "f32[2,6,3]", "f32[2,6,4]"),
    fwd=flash_attention_fwd,
    definition=plain_attention,
)
def flash_attention_bwd(q, k, v, out, lse, g):
    scale = q.shape[-1] ** -0.5
    delta = jnp.sum(g * out, axis=-1)[..., None]
    dq, dk, dv = jnp.zeros_like(q), [], []
    for start in range(0, k.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        p = jnp.exp(_scores(q, k[:, block]) - lse[..., None])
        ds = p * (jnp.einsum("htd,hsd->hts", g, v[:, block]) - delta) * scale
        dq = dq + jnp.einsum("hts,hsd->htd", ds, k[:, block])
        dk.append(jnp.einsum("hts,htd->hsd", ds, q))
        dv.append(jnp.einsum("hts,htd->hsd", p, g))
    return dq, jnp.concatenate(dk, axis=1), jnp.concatenate(dv, axis=1)


def _rotate(x, positions, base, sign):
    a, b = jnp.split(wide(x), 2, axis=-1)
    half = a.shape[-1]
    exponent = jnp.arange(half, dtype=a.dtype) / half
    angle = positions[:, None].astype(exponent.dtype) * (base**-exponent)[None]
    cos, sin = jnp.cos(angle)[None], sign * jnp.sin(angle)[None]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)


def rotary(x, positions, base):
    """Turn pairs of features of x (h, t, d) by angles that grow with the position."""
    return _rotate(x, positions, base, 1)


vjp_rule(
    rotary,
    *("f32[2,5,6]", "i32[5] in 0..9"),
    static=(100.0,),
    saves=lambda y, x, positions, base: positions,
    name="rotary",
)(lambda base, positions, g: (_rotate(g, positions, base, -1), None))


def linear_attention(q, k, v):
    """Causal attention without a softmax: y_t = q_t Σ_{s ≤ t} k_s v_sᵀ."""
    memory = jnp.cumsum(k[..., :, None] * v[..., None, :], axis=-3)
    return jnp.einsum("htd,htde->hte", q, memory)


@vjp_rule(linear_attention, "f32[2,5,3]", "f32[2,5,3]", "f32[2,5,4]")
def linear_attention_bwd(q, k, v, g):
    memory = jnp.cumsum(k[..., :, None] * v[..., None, :], axis=-3)
    dmemory = jax.lax.cumsum(q[..., :, None] * g[..., None, :], axis=1, reverse=True)
    dq = jnp.einsum("hte,htde->htd", g, memory)
    dk = jnp.einsum("htde,hte->htd", dmemory, v)
    return dq, dk, jnp.einsum("htde,htd->hte", dmemory, k)
