"""Examples: the arguments that an op is verified on, as recipes that any dtype can draw.

    example(x=normal(4, 3), w=normal(3, 2), b=None)
    example(x=values(-1.0, -0.0, 0.0, 1.0), subgradient_at_zero=0.5, tags={"kink"})

Tags say what is special: `kink` (a point where the derivative is a convention), `extreme`
(numbers near a dtype's limits), `bench` (large, only for timing), `no reference` (a point where the
op's reference is not defined, or by another convention).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class Draw:
    """A recipe for one array: `sample` makes it, in float64, of integers, booleans or keys."""

    sample: Callable[[np.random.Generator], Any]

    def __call__(self, rng: np.random.Generator, dtype: Any) -> Any:
        """Draw the array; floating-point values are rounded to `dtype`."""
        array = self.sample(rng)
        return array.astype(dtype) if jax.dtypes.issubdtype(array.dtype, np.floating) else array


@dataclass(frozen=True)
class Example:
    """Arguments of an op by name: recipes for its arrays, values for its statics."""

    arguments: Mapping[str, Any]
    tags: frozenset[str]

    def draw(self, seed: int, dtype: Any) -> dict[str, Any]:
        """Return the keyword arguments of one call, the same for the same seed."""
        rng = np.random.default_rng(seed)
        return {
            name: value(rng, dtype) if isinstance(value, Draw) else value
            for name, value in self.arguments.items()
        }


def example(*, tags: Collection[str] = (), **arguments: Any) -> Example:
    """One example: arrays as recipes (or None for an optional one), statics as values."""
    return Example(arguments, frozenset(tags))


def normal(*shape: int, scale: float = 1.0) -> Draw:
    """Independent normal numbers, mean 0, standard deviation `scale`."""
    return Draw(lambda rng: rng.normal(0.0, scale, shape))


def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Draw:
    """Independent uniform numbers in [low, high)."""
    return Draw(lambda rng: rng.uniform(low, high, shape))


def simplex(*shape: int) -> Draw:
    """Probability vectors along the last axis (Dirichlet, all concentrations 1)."""
    return Draw(lambda rng: rng.dirichlet(np.ones(shape[-1]), shape[:-1]))


def integers(*shape: int, low: int = 0, high: int) -> Draw:
    """Independent int32 numbers in [low, high)."""
    return Draw(lambda rng: rng.integers(low, high, shape, dtype=np.int32))


def booleans(*shape: int) -> Draw:
    """Independent fair coins."""
    return Draw(lambda rng: rng.random(shape) < 0.5)


def key() -> Draw:
    """One PRNG key."""
    return Draw(lambda rng: jax.random.key(int(rng.integers(2**31))))


def values(*array: Any) -> Draw:
    """Exactly these numbers, as an array; nested lists make more axes. Floats follow the dtype."""
    constant = np.asarray(array)
    return Draw(lambda rng: constant.astype(np.int32) if constant.dtype == np.int64 else constant)
