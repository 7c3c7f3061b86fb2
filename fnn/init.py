"""Initialisers: how a parameter starts.

An initialiser is a function of a key, a shape and the fans of a unit: how many numbers come in
(`fan_in`) and go out (`fan_out`). Variance-scaling ones keep the spread of activations, or of
gradients, the same from layer to layer, so that neither vanishes at the start.

The table `INITIALIZERS` holds their makers: `he_normal()`, `normal(stddev=0.1)`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp


class Fans(NamedTuple):
    """How many connections end in a unit, and how many begin in one."""

    fan_in: float
    fan_out: float


class Initializer(Protocol):
    """Draw a float32 array of `shape`; `fans` default to those of a fully connected `shape`."""

    def __call__(  # noqa: D102
        self, key: jax.Array, shape: tuple[int, ...], fans: Fans | None = None
    ) -> jax.Array: ...


def fans_of(shape: tuple[int, ...]) -> Fans:
    """Fans of weights of shape (..., in, out), the leading axes being a receptive field.

    Raises ValueError for fewer than two axes: a vector has no fans.
    """
    if len(shape) < 2:
        raise ValueError(
            f"fans need weights of shape (..., in, out), got {shape}; "
            "start a vector with zeros, constant, normal or uniform"
        )
    receptive_field = math.prod(shape[:-2])
    return Fans(receptive_field * shape[-2], receptive_field * shape[-1])


def zeros() -> Initializer:
    """All 0: for biases. Weights that start equal get equal gradients and stay equal."""
    return constant(value=0.0)


def constant(*, value: float) -> Initializer:
    """All `value`."""
    return lambda key, shape, fans=None: jnp.full(shape, value, jnp.float32)


def normal(*, stddev: float = 0.01) -> Initializer:
    """Normal, mean 0, standard deviation `stddev`."""
    return lambda key, shape, fans=None: stddev * jax.random.normal(key, shape, jnp.float32)


def uniform(*, scale: float = 0.01) -> Initializer:
    """Uniform on [-scale, scale)."""
    return lambda key, shape, fans=None: jax.random.uniform(key, shape, jnp.float32, -scale, scale)


def _scaled(distribution: Callable, variance: Callable[[Fans], float]) -> Initializer:
    """Mean 0 and the variance that the fans ask for."""

    def initialize(key, shape, fans=None):
        fans = fans_of(shape) if fans is None else fans
        return math.sqrt(variance(fans)) * distribution(key, shape, jnp.float32)

    return initialize


def _unit_uniform(key, shape, dtype):
    """Uniform with variance 1."""
    return jax.random.uniform(key, shape, dtype, -math.sqrt(3), math.sqrt(3))


def _glorot(fans: Fans) -> float:
    return 2 / (fans.fan_in + fans.fan_out)


def _he(fans: Fans) -> float:
    return 2 / fans.fan_in


def _lecun(fans: Fans) -> float:
    return 1 / fans.fan_in


def glorot_normal() -> Initializer:
    """Variance 2 / (fan_in + fan_out): a compromise of both passes (Glorot & Bengio 2010)."""
    return _scaled(jax.random.normal, _glorot)


def glorot_uniform() -> Initializer:
    """Variance 2 / (fan_in + fan_out), uniform (Glorot & Bengio 2010)."""
    return _scaled(_unit_uniform, _glorot)


def he_normal() -> Initializer:
    """Variance 2 / fan_in: for relu, which stops half of its input (He et al. 2015)."""
    return _scaled(jax.random.normal, _he)


def he_uniform() -> Initializer:
    """Variance 2 / fan_in, uniform (He et al. 2015)."""
    return _scaled(_unit_uniform, _he)


def lecun_normal() -> Initializer:
    """Variance 1 / fan_in: activations keep their spread (LeCun et al. 1998)."""
    return _scaled(jax.random.normal, _lecun)


def lecun_uniform() -> Initializer:
    """Variance 1 / fan_in, uniform (LeCun et al. 1998)."""
    return _scaled(_unit_uniform, _lecun)


def orthogonal(*, scale: float = 1.0) -> Initializer:
    """Orthonormal rows or columns, times `scale` (Saxe, McClelland & Ganguli 2014)."""
    draw = jax.nn.initializers.orthogonal(scale)
    return lambda key, shape, fans=None: draw(key, shape, jnp.float32)


INITIALIZERS: dict[str, Callable[..., Initializer]] = {
    make.__name__: make
    for make in (
        zeros,
        constant,
        normal,
        uniform,
        glorot_normal,
        glorot_uniform,
        he_normal,
        he_uniform,
        lecun_normal,
        lecun_uniform,
        orthogonal,
    )
}
