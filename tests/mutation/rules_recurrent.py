"""Correct rules of recurrences: cells, and scans whose backward pass runs in reverse."""

import jax
import jax.numpy as jnp

from .rule import Rule
from .rules_shared import wide


def _previous(first, states):
    """Return the state before each step."""
    return jnp.concatenate([first[None], states], axis=0)[: states.shape[0]]


def elman(x, h0, u, w):
    """h_t = tanh(x_t U + h_{t-1} W); returns every h_t."""

    def step(h, z):
        h = jnp.tanh(z + h @ w)
        return h, h

    return jax.lax.scan(step, h0, x @ u)[1]


def elman_fwd(x, h0, u, w):
    h = elman(x, h0, u, w)
    return h, (x, h0, u, w, h)


def elman_bwd(residuals, g):
    x, h0, u, w, h = map(wide, residuals)

    def step(dh, inputs):
        h, g = inputs
        dz = (dh + g) * (1 - h) * (1 + h)
        return dz @ w.T, dz

    dh0, dz = jax.lax.scan(step, jnp.zeros_like(h0), (h, wide(g)), reverse=True)
    cotangents = dz @ u.T, dh0, x.T @ dz, _previous(h0, h).T @ dz
    return tuple(d.astype(g.dtype) for d in cotangents)


def linear_recurrence(a, b, h0):
    """h_t = a_t h_{t-1} + b_t, element by element; returns every h_t."""

    def step(h, inputs):
        a, b = inputs
        h = a * h + b
        return h, h

    return jax.lax.scan(step, h0, (a, b))[1]


def linear_recurrence_fwd(a, b, h0):
    h = linear_recurrence(a, b, h0)
    return h, (a, h0, h)


def linear_recurrence_bwd(residuals, g):
    a, h0, h = map(wide, residuals)

    def step(carried, inputs):
        a, g = inputs
        dh = carried + g
        return a * dh, dh

    dh0, db = jax.lax.scan(step, jnp.zeros_like(h0), (a, wide(g)), reverse=True)
    da = db * _previous(h0, h)
    return da.astype(g.dtype), db.astype(g.dtype), dh0.astype(g.dtype)


def _compose(first, second):
    """Compose two affine maps h -> a h + b."""
    return second[0] * first[0], second[0] * first[1] + second[1]


def parallel_recurrence(a, b):
    """h_t = a_t h_{t-1} + b_t from h_{-1} = 0, in a logarithm of the steps."""
    return jax.lax.associative_scan(_compose, (a, b))[1]


def parallel_recurrence_fwd(a, b):
    h = parallel_recurrence(a, b)
    return h, (a, h)


def parallel_recurrence_bwd(residuals, g):
    a, h = map(wide, residuals)
    after = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])], axis=0)
    db = jax.lax.associative_scan(_compose, (after, wide(g)), reverse=True)[1]
    da = db * _previous(jnp.zeros(h.shape[1:], h.dtype), h)
    return da.astype(g.dtype), db.astype(g.dtype)


def scanned_recurrence(a, b):
    return linear_recurrence(a, b, jnp.zeros(b.shape[1:], b.dtype))


def moving_average(x, decay):
    """y_t = decay y_{t-1} + (1 - decay) x_t."""

    def step(y, x):
        y = decay * y + (1 - decay) * x
        return y, y

    return jax.lax.scan(step, jnp.zeros(x.shape[1:], x.dtype), x)[1]


def moving_average_fwd(x, decay):
    return moving_average(x, decay), None


def moving_average_bwd(decay, _, g):
    def step(carried, g):
        dy = carried + g
        return decay * dy, (1 - decay) * dy

    zero = jnp.zeros(g.shape[1:], wide(g).dtype)
    return (jax.lax.scan(step, zero, wide(g), reverse=True)[1].astype(g.dtype),)


def cumsum(x):
    return jnp.cumsum(x, axis=0)


def cumsum_fwd(x):
    return cumsum(x), None


def cumsum_bwd(_, g):
    return (jnp.flip(jnp.cumsum(jnp.flip(wide(g), 0), axis=0), 0).astype(g.dtype),)


def _gates(params, x, h):
    z = jnp.einsum("ni,gih->gnh", x, params["x"]) + jnp.einsum("ni,gih->gnh", h, params["h"])
    return z + params["b"][:, None]


def _gates_bwd(params, x, h, dz):
    dparams = {
        "x": jnp.einsum("ni,gnh->gih", x, dz),
        "h": jnp.einsum("ni,gnh->gih", h, dz),
        "b": jnp.sum(dz, axis=1),
    }
    dx = jnp.einsum("gnh,gih->ni", dz, params["x"])
    dh = jnp.einsum("gnh,gih->ni", dz, params["h"])
    return dparams, dx, dh


def lstm_cell(params, x, state):
    """Take one step of x (n, i) and the state {"h", "c"} (n, h); gates are i, f, o and g."""
    z = _gates(params, x, state["h"])
    i, f, o, g = z
    c = jax.nn.sigmoid(f) * state["c"] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return {"h": jax.nn.sigmoid(o) * jnp.tanh(c), "c": c}


def lstm_cell_fwd(params, x, state):
    return lstm_cell(params, x, state), (params, x, state)


def lstm_cell_bwd(residuals, cotangents):
    dtype = cotangents["h"].dtype
    (params, x, state), cotangents = jax.tree.map(wide, (residuals, cotangents))
    z = _gates(params, x, state["h"])
    (i, f, o), g = jax.nn.sigmoid(z[:3]), jnp.tanh(z[3])
    t = jnp.tanh(f * state["c"] + i * g)
    dc = cotangents["c"] + cotangents["h"] * o * (1 - t) * (1 + t)
    dz = jnp.stack(
        [
            dc * g * i * (1 - i),
            dc * state["c"] * f * (1 - f),
            cotangents["h"] * t * o * (1 - o),
            dc * i * (1 - g) * (1 + g),
        ]
    )
    dparams, dx, dh = _gates_bwd(params, x, state["h"], dz)
    return jax.tree.map(lambda d: d.astype(dtype), (dparams, dx, {"h": dh, "c": dc * f}))


def gru_cell(params, x, h):
    """Take one step of x (n, i) and h (n, h); gates are reset r and update u, then candidate."""
    w_r, w_u, w = params["x"]
    v_r, v_u, v = params["h"]
    b_r, b_u, b = params["b"][:, None]
    r = jax.nn.sigmoid(x @ w_r + h @ v_r + b_r)
    u = jax.nn.sigmoid(x @ w_u + h @ v_u + b_u)
    return u * h + (1 - u) * jnp.tanh(x @ w + (r * h) @ v + b)


def gru_cell_fwd(params, x, h):
    return gru_cell(params, x, h), (params, x, h)


def gru_cell_bwd(residuals, g):
    params, x, h = jax.tree.map(wide, residuals)
    g_ = wide(g)
    gates = {name: p[:2] for name, p in params.items()}
    r, u = jax.nn.sigmoid(_gates(gates, x, h))
    n = jnp.tanh(x @ params["x"][2] + (r * h) @ params["h"][2] + params["b"][2][None])
    dcandidate = g_ * (1 - u) * (1 - n) * (1 + n)
    dreset = dcandidate @ params["h"][2].T
    dz = jnp.stack([dreset * h * r * (1 - r), g_ * (h - n) * u * (1 - u)])
    dgates, dx, dh = _gates_bwd(gates, x, h, dz)
    last = {
        "x": x.T @ dcandidate,
        "h": (r * h).T @ dcandidate,
        "b": jnp.sum(dcandidate, axis=0),
    }
    dparams = {name: jnp.concatenate([dgates[name], last[name][None]]) for name in params}
    dx = dx + dcandidate @ params["x"][2].T
    dh = dh + dreset * r + g_ * u
    return jax.tree.map(lambda d: d.astype(g.dtype), (dparams, dx, dh))


RULES = [
    Rule("elman", elman, ("f32[6,3]", "f32[4]", "f32[3,4]", "f32[4,4]"), elman_fwd, elman_bwd),
    Rule(
        "linear_recurrence",
        linear_recurrence,
        ("f32[5,3] in -0.9..0.9", "f32[5,3]", "f32[3]"),
        linear_recurrence_fwd,
        linear_recurrence_bwd,
    ),
    Rule(
        "parallel_recurrence",
        parallel_recurrence,
        ("f32[7,3] in -0.9..0.9", "f32[7,3]"),
        parallel_recurrence_fwd,
        parallel_recurrence_bwd,
        definition=scanned_recurrence,
    ),
    Rule(
        "moving_average",
        moving_average,
        ("f32[5,3]", 0.8),
        moving_average_fwd,
        moving_average_bwd,
        nondiff_argnums=(1,),
    ),
    Rule("cumsum", cumsum, ("f32[5,3]",), cumsum_fwd, cumsum_bwd),
    Rule(
        "lstm_cell",
        lstm_cell,
        (
            {"x": "f32[4,3,5]", "h": "f32[4,5,5]", "b": "f32[4,5]"},
            "f32[2,3]",
            {"h": "f32[2,5]", "c": "f32[2,5]"},
        ),
        lstm_cell_fwd,
        lstm_cell_bwd,
    ),
    Rule(
        "gru_cell",
        gru_cell,
        ({"x": "f32[3,4,5]", "h": "f32[3,5,5]", "b": "f32[3,5]"}, "f32[2,4]", "f32[2,5]"),
        gru_cell_fwd,
        gru_cell_bwd,
    ),
]
