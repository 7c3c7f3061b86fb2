"""Numbers to try a rule on: ordinary, large, small, special, masked, each in its domain."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .arguments import Arguments, Leaf

Style = Callable[[Leaf, np.random.Generator, np.ndarray], np.ndarray]
"""A function of a leaf, a generator and ordinary values of the leaf; it returns other values."""


def draw(leaf: Leaf, rng: np.random.Generator, high: int = 1) -> Any:
    """Draw an array of the leaf's shape in its domain: float64, int, bool, or a PRNG key.

    Integers without a domain lie in 0..`high`.
    """
    shape, domain = leaf.shape, leaf.domain
    if leaf.kind == "key":
        key = jax.random.key(int(rng.integers(2**31)))
        return jax.random.split(key, shape) if shape else key
    if leaf.kind == "bool":
        return rng.random(shape) < 0.6
    if leaf.kind == "int":
        low, top = domain if isinstance(domain, tuple) else (0, high)
        return rng.integers(int(low), int(top) + 1, shape).astype(leaf.dtype)
    if leaf.kind == "complex":
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return np.asarray(_float(domain, shape, rng))


def _float(domain: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if isinstance(domain, tuple):
        low, high = domain
        return rng.uniform(low + 0.02 * (high - low), high - 0.02 * (high - low), shape)
    if domain == "positive":
        return np.exp(rng.normal(0.0, 0.7, shape))
    if domain == "simplex":
        return rng.dirichlet(np.ones(shape[-1]), shape[:-1]) if shape[-1] else np.zeros(shape)
    if domain in ("spd", "symmetric"):
        a = rng.normal(size=shape)
        t = np.swapaxes(a, -1, -2)
        return (a + t) / 2 if domain == "symmetric" else a @ t / shape[-1] + np.eye(shape[-1])
    return rng.normal(size=shape)


def free(leaf: Leaf) -> bool:
    """Whether the leaf's numbers may be any real numbers."""
    return leaf.kind in ("float", "complex") and leaf.domain in (None, "real")


def scaled(exponent: int) -> Style:
    """Ordinary numbers times 2^exponent.

    In a range from 0, they only become smaller. In rows that sum to 1, every second one does.
    """

    def style(leaf: Leaf, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        if free(leaf) or leaf.domain in ("positive", "spd", "symmetric"):
            return np.ldexp(x, exponent) if leaf.kind == "float" else x * 2.0**exponent
        if leaf.kind != "float" or exponent > 0:
            return x
        if leaf.domain == "simplex" and x.shape[-1] > 1:
            x = np.ldexp(x, np.arange(x.shape[-1]) % 2 * exponent)
            return x / np.sum(x, axis=-1, keepdims=True)
        from_zero = isinstance(leaf.domain, tuple) and leaf.domain[0] == 0
        return np.ldexp(x, exponent) if from_zero else x

    return style


def wide(leaf: Leaf, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Numbers of many magnitudes side by side, 2^-8 to 2^5."""
    if leaf.domain == "positive" or free(leaf):
        size = 2.0 ** rng.uniform(-8, 5, x.shape)
        return size * x / np.maximum(np.abs(x), 1e-300)
    if isinstance(leaf.domain, tuple) and leaf.kind == "float":
        low, high = leaf.domain
        near = (high - low) * 2.0 ** rng.uniform(-20, -1, x.shape)
        return np.where(rng.random(x.shape) < 0.5, low + near, high - near)
    return x


def zeros(leaf: Leaf, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Zero in a third of the places, of either sign."""
    if not free(leaf):
        return x
    where = rng.random(x.shape) < 0.34
    return np.where(where, np.where(rng.random(x.shape) < 0.5, 0.0, -0.0), x)


def integers(leaf: Leaf, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Multiples of ½, with many ties."""
    if isinstance(leaf.domain, tuple) and leaf.kind == "float":
        return np.clip(np.round(x), *leaf.domain)
    if leaf.domain == "positive":
        return np.maximum(np.round(2 * x), 1.0) / 2
    return np.round(2 * x) / 2 if free(leaf) else x


def among(landmarks: Sequence[float]) -> Style:
    """These numbers in any order, as many as fit."""

    def style(leaf: Leaf, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        numbers = np.asarray(landmarks)
        if isinstance(leaf.domain, tuple):
            numbers = numbers[(leaf.domain[0] < numbers) & (numbers < leaf.domain[1])]
        elif leaf.domain == "positive":
            numbers = numbers[numbers > 0]
        elif not free(leaf):
            return x
        if leaf.kind != "float" or not numbers.size:
            return x
        return rng.permutation(np.resize(rng.permutation(numbers), x.size)).reshape(x.shape)

    return style


def level(leaf: Leaf, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """The same number everywhere in a leaf."""
    if free(leaf) or leaf.domain == "positive" or isinstance(leaf.domain, tuple):
        return np.full_like(x, x.flat[0]) if x.size and leaf.kind == "float" else x
    return x


def extreme(mask: bool) -> Style:
    """Every mask this, and every index the lowest or, for true masks, the highest."""

    def style(leaf: Leaf, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        if leaf.kind == "bool":
            return np.full_like(x, mask)
        return np.full_like(x, x.max() if mask else x.min()) if leaf.kind == "int" and x.size else x

    return style


def empty_rows(leaf: Leaf, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Some rows of a mask false entirely."""
    if leaf.kind != "bool" or x.ndim == 0:
        return x
    rows = rng.random((*x.shape[:-1], 1)) < 0.5
    return x & rows


def to_dtype(value: Any, dtype: str) -> Any:
    """Return numbers rounded to a dtype, and keys unchanged."""
    if dtype == "key":
        return value
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return np.asarray(value).astype(jnp.dtype(dtype))


def rounded(arguments: Arguments, values: Sequence[Any], dtype: str) -> list[Any]:
    """Return values for a call, rounded to where its floating-point numbers are `dtype`."""
    return [to_dtype(v, a.cast(dtype)) for v, a in zip(values, arguments.leaves, strict=True)]


def shaken(value: Any, rng: np.random.Generator, eps: float) -> Any:
    """Return floating-point numbers changed by one rounding, up or down; others unchanged."""
    if not is_inexact(value):
        return value
    sign = np.where(rng.random(value.shape) < 0.5, eps, -eps)
    return value * (1 + sign)


def is_inexact(value: Any) -> bool:
    """Whether a value is an array of floating-point or complex numbers."""
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.inexact)
