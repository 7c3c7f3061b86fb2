"""The table of small programs, and their inputs."""

import functools

import jax.numpy as jnp
import numpy as np

FLOATS = (np.float64, np.float32, jnp.bfloat16)
INTEGERS = (np.int32, np.uint8)

SECTIONS = {}
"""Per name: a function that yields programs as (function, *arrays), and their tolerance."""


def section(roundings=0, of_largest=False):
    """Enter programs in the table; the tolerance is relative to each entry or to the largest."""

    def enter(cases):
        SECTIONS[cases.__name__] = cases, roundings, of_largest
        return cases

    return enter


def each(functions, *arrays, **statics):
    """Yield one program per function, on the same arrays."""
    yield from ((functools.partial(f, **statics), *arrays) for f in functions)


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


def whole(*shape, dtype=np.int32, low=-5, high=6):
    return np.random.default_rng(shape).integers(low, high, shape).astype(dtype)


def special(dtype):
    """Return numbers at which conventions differ, in a floating-point dtype."""
    half = np.nextafter(np.asarray(0.5, dtype), np.asarray(0, dtype))
    x = [np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1, -1, -2, 129, 3e4, -3e4]
    return np.array([*x, half, -half], dtype)


def extremes(dtype):
    limits = np.iinfo(dtype)
    return np.array([limits.min, limits.min + 1, limits.max, 0, 1, 2, 3, 7, 100], dtype)


def pairs(x):
    """Return all pairs of the numbers, as two arrays."""
    return np.repeat(x, len(x)), np.tile(x, len(x))
