"""Correct rules of recurrences: cells, and scans whose backward pass runs in reverse."""

import jax
import jax.numpy as jnp

from .rule import vjp_rule


def _previous(first, states):
    """Return the state before each step."""
    return jnp.concatenate([first[None], states], axis=0)[: states.shape[0]]


def elman(x, h0, u, w):
    """h_t = tanh(x_t U + h_{t-1} W); returns every h_t."""

    def step(h, z):
        h = jnp.tanh(z + h @ w)
        return h, h

    return jax.lax.scan(step, h0, x @ u)[1]


@vjp_rule(
    elman,
    *("f32[6,3]", "f32[4]", "f32[3,4]", "f32[4,4]"),
    saves=lambda h, x, h0, u, w: (x, h0, u, w, h),
)
def elman_bwd(x, h0, u, w, h, g):
    def step(dh, inputs):
        h, g = inputs
        dz = (dh + g) * (1 - h) * (1 + h)
        return dz @ w.T, dz

    dh0, dz = jax.lax.scan(step, jnp.zeros_like(h0), (h, g), reverse=True)
    return dz @ u.T, dh0, x.T @ dz, _previous(h0, h).T @ dz


def linear_recurrence(a, b, h0):
    """h_t = a_t h_{t-1} + b_t, element by element; returns every h_t."""

    def step(h, inputs):
        a, b = inputs
        h = a * h + b
        return h, h

    return jax.lax.scan(step, h0, (a, b))[1]


@vjp_rule(
    linear_recurrence,
    *("f32[5,3] in -0.9..0.9", "f32[5,3]", "f32[3]"),
    saves=lambda h, a, b, h0: (a, h0, h),
)
def linear_recurrence_bwd(a, h0, h, g):
    def step(carried, inputs):
        a, g = inputs
        dh = carried + g
        return a * dh, dh

    dh0, db = jax.lax.scan(step, jnp.zeros_like(h0), (a, g), reverse=True)
    return db * _previous(h0, h), db, dh0


def _compose(first, second):
    """Compose two affine maps h -> a h + b."""
    return second[0] * first[0], second[0] * first[1] + second[1]


def parallel_recurrence(a, b):
    """h_t = a_t h_{t-1} + b_t from h_{-1} = 0, in a logarithm of the steps."""
    return jax.lax.associative_scan(_compose, (a, b))[1]


@vjp_rule(
    parallel_recurrence,
    *("f32[7,3] in -0.9..0.9", "f32[7,3]"),
    saves=lambda h, a, b: (a, h),
    definition=lambda a, b: linear_recurrence(a, b, jnp.zeros(b.shape[1:], b.dtype)),
)
def parallel_recurrence_bwd(a, h, g):
    after = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])], axis=0)
    db = jax.lax.associative_scan(_compose, (after, g), reverse=True)[1]
    return db * _previous(jnp.zeros(h.shape[1:], h.dtype), h), db


def moving_average(x, decay):
    """y_t = decay y_{t-1} + (1 - decay) x_t."""

    def step(y, x):
        y = decay * y + (1 - decay) * x
        return y, y

    return jax.lax.scan(step, jnp.zeros(x.shape[1:], x.dtype), x)[1]


@vjp_rule(moving_average, "f32[5,3]", static=(0.8,), saves=lambda y, x, decay: ())
def moving_average_bwd(decay, g):
    def step(carried, g):
        dy = carried + g
        return decay * dy, (1 - decay) * dy

    return jax.lax.scan(step, jnp.zeros(g.shape[1:], g.dtype), g, reverse=True)[1]


vjp_rule(lambda x: jnp.cumsum(x, axis=0), "f32[5,3]", saves=lambda y, x: (), name="cumsum")(
    lambda g: jnp.flip(jnp.cumsum(jnp.flip(g, 0), axis=0), 0)
)


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


@vjp_rule(
    lstm_cell,
    {"x": "f32[4,3,5]", "h": "f32[4,5,5]", "b": "f32[4,5]"},
    "f32[2,3]",
    {"h": "f32[2,5]", "c": "f32[2,5]"},
)
def lstm_cell_bwd(params, x, state, cotangents):
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
    return dparams, dx, {"h": dh, "c": dc * f}


def gru_cell(params, x, h):
    """Take one step of x (n, i) and h (n, h); gates are reset r and update u, then candidate."""
    w_r, w_u, w = params["x"]
    v_r, v_u, v = params["h"]
    b_r, b_u, b = params["b"][:, None]
    r = jax.nn.sigmoid(x @ w_r + h @ v_r + b_r)
    u = jax.nn.sigmoid(x @ w_u + h @ v_u + b_u)
    return u * h + (1 - u) * jnp.tanh(x @ w + (r * h) @ v + b)


@vjp_rule(
    gru_cell, {"x": "f32[3,4,5]", "h": "f32[3,5,5]", "b": "f32[3,5]"}, *("f32[2,4]", "f32[2,5]")
)
def gru_cell_bwd(params, x, h, g):
    gates = {name: p[:2] for name, p in params.items()}
    r, u = jax.nn.sigmoid(_gates(gates, x, h))
    n = jnp.tanh(x @ params["x"][2] + (r * h) @ params["h"][2] + params["b"][2][None])
    dcandidate = g * (1 - u) * (1 - n) * (1 + n)
    dreset = dcandidate @ params["h"][2].T
    dz = jnp.stack([dreset * h * r * (1 - r), g * (h - n) * u * (1 - u)])
    dgates, dx, dh = _gates_bwd(gates, x, h, dz)
    last = {"x": x.T @ dcandidate, "h": (r * h).T @ dcandidate, "b": jnp.sum(dcandidate, axis=0)}
    dparams = {name: jnp.concatenate([dgates[name], last[name][None]]) for name in params}
    return dparams, dx + dcandidate @ params["x"][2].T, dh + dreset * r + g * u
