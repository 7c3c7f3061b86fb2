"""Correct rules of linear algebra, complex numbers, and functions that an equation defines."""

import jax
import jax.numpy as jnp

from .rule import Rule
from .rules_shared import wide


def _transpose(a):
    return jnp.swapaxes(a, -1, -2)


def solve(a, b):
    return jnp.linalg.solve(wide(a), wide(b)).astype(b.dtype)


def solve_fwd(a, b):
    x = solve(a, b)
    return x, (a, x)


def solve_bwd(residuals, g):
    a, x = map(wide, residuals)
    db = jnp.linalg.solve(_transpose(a), wide(g))
    return (-db @ _transpose(x)).astype(g.dtype), db.astype(g.dtype)


def inverse(a):
    return jnp.linalg.inv(wide(a)).astype(a.dtype)


def inverse_fwd(a):
    y = inverse(a)
    return y, y


def inverse_bwd(y, g):
    t = _transpose(wide(y))
    return (-(t @ wide(g) @ t).astype(y.dtype),)


def logdet(a):
    return jnp.linalg.slogdet(wide(a))[1].astype(a.dtype)


def logdet_fwd(a):
    return logdet(a), a


def logdet_bwd(a, g):
    return ((wide(g) * _transpose(jnp.linalg.inv(wide(a)))).astype(a.dtype),)


def cholesky(a):
    return jnp.linalg.cholesky(wide(a)).astype(a.dtype)


def cholesky_fwd(a):
    factor = cholesky(a)
    return factor, factor


def cholesky_bwd(factor, g):
    """Murray 2016, arXiv:1602.07527: the lower half of LᵀL̄, between two triangular solves."""
    l_t = _transpose(wide(factor))
    phi = jnp.tril(l_t @ wide(g))
    phi = phi - 0.5 * phi * jnp.eye(phi.shape[-1], dtype=phi.dtype)
    half = jax.scipy.linalg.solve_triangular(l_t, phi, lower=False)
    da = _transpose(jax.scipy.linalg.solve_triangular(l_t, _transpose(half), lower=False))
    return (0.5 * (da + _transpose(da)).astype(g.dtype),)


def triangular_solve(factor, b):
    return jax.scipy.linalg.solve_triangular(wide(factor), wide(b), lower=True).astype(b.dtype)


def triangular_solve_fwd(factor, b):
    x = triangular_solve(factor, b)
    return x, (factor, x)


def triangular_solve_bwd(residuals, g):
    factor, x = map(wide, residuals)
    db = jax.scipy.linalg.solve_triangular(_transpose(factor), wide(g), lower=False)
    return jnp.tril(-db @ _transpose(x)).astype(g.dtype), db.astype(g.dtype)


def quadratic_form(x, a):
    return jnp.einsum("i,ij,j->", x, a, x)


def quadratic_form_fwd(x, a):
    return quadratic_form(x, a), (x, a)


def quadratic_form_bwd(residuals, g):
    x, a = map(wide, residuals)
    g_ = wide(g)
    return (g_ * (a @ x + x @ a)).astype(g.dtype), (g_ * x[:, None] * x[None, :]).astype(g.dtype)


def abs_square(z):
    return z.real * z.real + z.imag * z.imag


def abs_square_fwd(z):
    return abs_square(z), z


def abs_square_bwd(z, g):
    # The cotangent of a complex number is not conjugated: 2 (∂/∂z) |z|² = 2 z̄.
    return (2 * g.astype(z.dtype) * jnp.conj(z),)


def turn(z, angle):
    """Turn complex numbers by real angles."""
    t = angle.astype(z.real.dtype)
    return z * jax.lax.complex(jnp.cos(t), jnp.sin(t))


def turn_fwd(z, angle):
    return turn(z, angle), (z, angle)


def turn_bwd(residuals, g):
    z, angle = residuals
    t = angle.astype(z.real.dtype)
    dz = g * jax.lax.complex(jnp.cos(t), jnp.sin(t))
    return dz, -(dz * z).imag.astype(angle.dtype)


def power_spectrum(x):
    spectrum = jnp.fft.fft(wide(x), axis=-1)
    return (spectrum.real**2 + spectrum.imag**2).astype(x.dtype)


def power_spectrum_fwd(x):
    return power_spectrum(x), x


def power_spectrum_bwd(x, g):
    spectrum = jnp.conj(jnp.fft.fft(wide(x), axis=-1))
    dx = 2 * jnp.fft.fft(wide(g).astype(spectrum.dtype) * spectrum, axis=-1).real
    return (dx.astype(x.dtype),)


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


def newton_sqrt_fwd(x):
    y = newton_sqrt(x)
    return y, y


def newton_sqrt_bwd(y, g):
    return ((0.5 * wide(g) / wide(y)).astype(y.dtype),)


def _kepler_step(anomaly, mean, eccentricity):
    excess = anomaly - eccentricity * jnp.sin(anomaly) - mean
    return anomaly - excess / (1 - eccentricity * jnp.cos(anomaly))


def kepler(mean, eccentricity):
    """Solve E - e sin E = M for E, by as many steps of Newton's as it takes."""
    m, e = wide(mean), wide(eccentricity)
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
    m, e = wide(mean), wide(eccentricity)
    anomaly = jax.lax.fori_loop(0, 12, lambda _, anomaly: _kepler_step(anomaly, m, e), m)
    return anomaly.astype(mean.dtype)


def kepler_fwd(mean, eccentricity):
    anomaly = kepler(mean, eccentricity)
    return anomaly, (anomaly, eccentricity)


def kepler_bwd(residuals, g):
    anomaly, e = map(wide, residuals)
    dmean = wide(g) / (1 - e * jnp.cos(anomaly))
    return dmean.astype(g.dtype), (dmean * jnp.sin(anomaly)).astype(g.dtype)


def _fixed_point(w, x):
    return jax.lax.fori_loop(0, STEPS, lambda _, z: jnp.tanh(w @ z + x), jnp.zeros_like(x))


def equilibrium(w, x):
    """Return the z with z = tanh(W z + x), for a W that contracts."""
    return _fixed_point(wide(w), wide(x)).astype(x.dtype)


def equilibrium_fwd(w, x):
    # Kept as it is: rounded to 16 bits, 1 - z² would have no digits where z is near 1.
    z = _fixed_point(wide(w), wide(x))
    return z.astype(x.dtype), (w, z)


def equilibrium_bwd(residuals, g):
    """Implicit differentiation: with D = diag(1 - z²), solve (I - D W)ᵀ u = z̄."""
    w, z = wide(residuals[0]), residuals[1]
    d = (1 - z) * (1 + z)
    u = jnp.linalg.solve(jnp.eye(z.size, dtype=z.dtype) - (d[:, None] * w).T, wide(g))
    dx = d * u
    return (dx[:, None] * z[None, :]).astype(g.dtype), dx.astype(g.dtype)


SPD = "f32[4,4] in spd"

RULES = [
    Rule("solve", solve, (SPD, "f32[4,3]"), solve_fwd, solve_bwd),
    Rule("inverse", inverse, (SPD,), inverse_fwd, inverse_bwd),
    Rule("logdet", logdet, (SPD,), logdet_fwd, logdet_bwd),
    Rule("cholesky", cholesky, (SPD,), cholesky_fwd, cholesky_bwd),
    Rule(
        "triangular_solve",
        triangular_solve,
        (SPD, "f32[4,3]"),
        triangular_solve_fwd,
        triangular_solve_bwd,
    ),
    Rule(
        "quadratic_form",
        quadratic_form,
        ("f32[4]", "f32[4,4]"),
        quadratic_form_fwd,
        quadratic_form_bwd,
    ),
    Rule("abs_square", abs_square, ("c64[4,3]",), abs_square_fwd, abs_square_bwd),
    Rule("turn", turn, ("c64[4,3]", "f32[4,3]"), turn_fwd, turn_bwd),
    Rule(
        "power_spectrum",
        power_spectrum,
        ("f32[3,5]",),
        power_spectrum_fwd,
        power_spectrum_bwd,
    ),
    Rule(
        "newton_sqrt",
        newton_sqrt,
        ("f32[4,3] in 0.1..9",),
        newton_sqrt_fwd,
        newton_sqrt_bwd,
        definition=jnp.sqrt,
    ),
    Rule(
        "kepler",
        kepler,
        ("f32[4,3] in 0..3", "f32[4,3] in 0.1..0.6"),
        kepler_fwd,
        kepler_bwd,
        definition=kepler_unrolled,
    ),
    Rule(
        "equilibrium",
        equilibrium,
        ("f32[4,4] in -0.15..0.15", "f32[4]"),  # where it contracts, be all numbers alike
        equilibrium_fwd,
        equilibrium_bwd,
    ),
]
