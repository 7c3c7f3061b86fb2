"""Correct rules of linear algebra, complex numbers, and functions that an equation defines."""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from .rule import X, output, vjp_rule, wide

SPD = "f32[4,4] in spd"


def _transpose(a):
    return jnp.swapaxes(a, -1, -2)


@vjp_rule(
    lambda a, b: jnp.linalg.solve(wide(a), wide(b)).astype(b.dtype),
    SPD,
    X,
    saves=lambda x, a, b: (a, x),
)
def solve_bwd(a, x, g):
    db = jnp.linalg.solve(_transpose(a), g)
    return -db @ _transpose(x), db


@vjp_rule(lambda a: jnp.linalg.inv(wide(a)).astype(a.dtype), SPD, saves=output)
def inverse_bwd(y, g):
    t = _transpose(y)
    return -(t @ g @ t)


vjp_rule(lambda a: jnp.linalg.slogdet(wide(a))[1].astype(a.dtype), SPD, name="logdet")(
    lambda a, g: g * _transpose(jnp.linalg.inv(a))
)


@vjp_rule(
    lambda a: jnp.linalg.cholesky(wide(a)).astype(a.dtype), SPD, saves=lambda factor, a: factor
)
def cholesky_bwd(factor, g):
    """Murray 2016, arXiv:1602.07527: the lower half of LᵀL̄, between two triangular solves."""
    l_t = _transpose(factor)
    phi = jnp.tril(l_t @ g)
    phi = phi - 0.5 * phi * jnp.eye(phi.shape[-1], dtype=phi.dtype)
    half = solve_triangular(l_t, phi, lower=False)
    da = _transpose(solve_triangular(l_t, _transpose(half), lower=False))
    return 0.5 * (da + _transpose(da))


@vjp_rule(
    lambda factor, b: solve_triangular(wide(factor), wide(b), lower=True).astype(b.dtype),
    SPD,
    X,
    saves=lambda x, factor, b: (factor, x),
)
def triangular_solve_bwd(factor, x, g):
    db = solve_triangular(_transpose(factor), g, lower=False)
    return jnp.tril(-db @ _transpose(x)), db


vjp_rule(lambda x, a: jnp.einsum("i,ij,j->", x, a, x), "f32[4]", "f32[4,4]", name="quadratic_form")(
    lambda x, a, g: (g * (a @ x + x @ a), g * x[:, None] * x[None, :])
)


@vjp_rule(lambda z: z.real * z.real + z.imag * z.imag, "c64[4,3]")
def abs_square(z, g):
    # The cotangent of a complex number is not conjugated: 2 (∂/∂z) |z|² = 2 z̄.
    return 2 * g.astype(z.dtype) * jnp.conj(z)


def turn(z, angle):
    """Turn complex numbers by real angles."""
    t = angle.astype(z.real.dtype)
    return z * jax.lax.complex(jnp.cos(t), jnp.sin(t))


@vjp_rule(turn, "c64[4,3]", X)
def turn_bwd(z, angle, g):
    dz = turn(g, angle)
    return dz, -(dz * z).imag


def power_spectrum(x):
    spectrum = jnp.fft.fft(wide(x), axis=-1)
    return (spectrum.real**2 + spectrum.imag**2).astype(x.dtype)


@vjp_rule(power_spectrum, "f32[3,5]")
def power_spectrum_bwd(x, g):
    spectrum = jnp.conj(jnp.fft.fft(x, axis=-1))
    return 2 * jnp.fft.fft(g.astype(spectrum.dtype) * spectrum, axis=-1).real


STEPS = 60


def newton_sqrt(x):
    """Newton's iteration from above, until it no longer falls."""

    def falls(state):
        step, before, y = state
        return (step < STEPS) & jnp.any(y < before)

    def improve(state):
        step, _, y = state
        return step + 1, y, jnp.minimum(0.5 * (y + x_ / y), y)

    x_ = jax.lax.stop_gradient(wide(x))
    start = jnp.maximum(x_, 1)
    _, _, y = jax.lax.while_loop(falls, improve, (0, jnp.full_like(start, jnp.inf), start))
    # A last step that is differentiated has the right derivative, as the others have none.
    return (0.5 * (y + wide(x) / y)).astype(x.dtype)


vjp_rule(newton_sqrt, "f32[4,3] in 0.1..9", saves=output, definition=jnp.sqrt, name="newton_sqrt")(
    lambda y, g: 0.5 * g / y
)


def _kepler_step(anomaly, mean, eccentricity):
    excess = anomaly - eccentricity * jnp.sin(anomaly) - mean
    return anomaly - excess / (1 - eccentricity * jnp.cos(anomaly))


def kepler(mean, eccentricity):
    """Solve E - e sin E = M for E, by as many steps of Newton's as it takes."""
    m, e = wide((mean, eccentricity))
    m_, e_ = jax.lax.stop_gradient((m, e))

    def moves(state):
        step, before, anomaly = state
        return (step < STEPS) & jnp.any(anomaly != before)

    def improve(state):
        step, _, anomaly = state
        return step + 1, anomaly, _kepler_step(anomaly, m_, e_)

    start = (0, jnp.full_like(m_, jnp.inf), m_)
    _, _, anomaly = jax.lax.while_loop(moves, improve, start)
    return _kepler_step(anomaly, m, e).astype(mean.dtype)


def kepler_unrolled(mean, eccentricity):
    m, e = wide((mean, eccentricity))
    anomaly = jax.lax.fori_loop(0, 12, lambda _, anomaly: _kepler_step(anomaly, m, e), m)
    return anomaly.astype(mean.dtype)


@vjp_rule(
    kepler,
    *("f32[4,3] in 0..3", "f32[4,3] in 0.1..0.6"),
    saves=lambda anomaly, mean, eccentricity: (anomaly, eccentricity),
    definition=kepler_unrolled,
)
def kepler_bwd(anomaly, e, g):
    dmean = g / (1 - e * jnp.cos(anomaly))
    return dmean, dmean * jnp.sin(anomaly)


def _fixed_point(w, x):
    return jax.lax.fori_loop(0, STEPS, lambda _, z: jnp.tanh(w @ z + x), jnp.zeros_like(x))


def equilibrium(w, x):
    """Return the z with z = tanh(W z + x), for a W that contracts."""
    return _fixed_point(wide(w), wide(x)).astype(x.dtype)


def equilibrium_fwd(w, x):
    # Kept as it is: rounded to 16 bits, 1 - z² would have no digits where z is near 1.
    z = _fixed_point(wide(w), wide(x))
    return z.astype(x.dtype), (w, z)


@vjp_rule(
    equilibrium,
    *("f32[4,4] in -0.15..0.15", "f32[4]"),  # it contracts even if all numbers are alike
    fwd=equilibrium_fwd,
)
def equilibrium_bwd(w, z, g):
    """Implicit differentiation: with D = diag(1 - z²), solve (I - D W)ᵀ u = z̄."""
    d = (1 - z) * (1 + z)
    dx = d * jnp.linalg.solve(jnp.eye(z.size, dtype=z.dtype) - (d[:, None] * w).T, g)
    return dx[:, None] * z[None, :], dx
