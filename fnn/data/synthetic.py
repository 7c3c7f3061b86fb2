"""Synthetic sets: points of the plane that no straight line separates, and pure noise.

The draws are those of `np.random.default_rng(seed)`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import DataError
from . import dataset
from .arguments import check_integer, check_number, check_seed
from .dataset import Dataset, numbered_classes
from .split import check_split_arguments, split_dataset

MAX_POINTS = 10_000_000
MAX_COPIES = 1_000_000
MAX_CLASSES = 100
MAX_NOISE = 100.0
MAX_AXES = 8
MAX_NUMBERS = 2**28  # one gibibyte per split


def xor(*, copies: int = 1, noise: float = 0.0, seed: int = 0) -> Dataset:
    """Make the four points of exclusive or, `copies` times, in both splits.

        y = x₀ ⊕ x₁,  x ∈ {0, 1}²,  then x + ε,  ε ~ N(0, noise²)

    The noise of the training and of the test points is drawn independently.

    Shapes: x (4 copies, 2) float32, y (4 copies,) int32; classes "0", "1".
    Raises DataError for an argument out of range.
    Source: M. Minsky & S. Papert, "Perceptrons", 1969.
    """
    check_integer("xor", "copies", copies, 1, MAX_COPIES)
    check_number("xor", "noise", noise, 0, MAX_NOISE)
    check_seed("xor", "seed", seed)
    rng = np.random.default_rng(seed)
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    x = np.tile(corners, (copies, 1))  # (4 copies, 2)
    y = (x[:, 0] ^ x[:, 1]).astype(np.int32)  # (4 copies,)
    x_train, x_test = (
        (x + noise * rng.standard_normal(x.shape)).astype(np.float32) for _ in ("train", "test")
    )
    return Dataset("xor", x_train, y, x_test, y, ("0", "1"))


def spirals(
    *,
    arms: int = 2,
    points: int = 1000,
    noise: float = 0.02,
    turns: float = 1.5,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Make interleaved spirals from the origin to the unit circle, one class per arm.

        x = t (cos θ, sin θ) + ε,  θ = 2π (turns t + k / arms),  t ~ U(0, 1),  ε ~ N(0, noise²)

    Shapes: x (points, 2) float32 in about [-1, 1], y (points,) int32, the classes "0" to
    arms - 1 of equal size (to one); the split is stratified.
    Raises DataError for an argument out of range.
    Source: K. Lang & M. Witbrock, "Learning to tell two spirals apart", Proc. 1988 Connectionist
    Models Summer School.
    """
    check_integer("spirals", "arms", arms, 2, MAX_CLASSES)
    check_number("spirals", "turns", turns, 0, 100)

    def curve(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        t = rng.uniform(size=points)  # (points,)
        return t[:, None] * _on_circle(turns * t + y / arms)

    return _along("spirals", curve, arms, points, noise, test_fraction, seed)


def rings(
    *,
    rings: int = 2,
    points: int = 1000,
    noise: float = 0.05,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Make concentric rings, one class per ring, from the innermost.

        x = (k + 1) / rings (cos θ, sin θ) + ε,  θ ~ U(0, 2π),  ε ~ N(0, noise²)

    Shapes: x (points, 2) float32 in about [-1, 1], y (points,) int32, the classes "0" to
    rings - 1 of equal size (to one); the split is stratified.
    Raises DataError for an argument out of range.
    Source: after `sklearn.datasets.make_circles`.
    """
    check_integer("rings", "rings", rings, 2, MAX_CLASSES)

    def curve(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (y[:, None] + 1) / rings * _on_circle(rng.uniform(size=points))

    return _along("rings", curve, rings, points, noise, test_fraction, seed)


def moons(
    *, points: int = 1000, noise: float = 0.05, test_fraction: float = 0.2, seed: int = 0
) -> Dataset:
    """Make two interlocking half circles, one class each.

        x = ±⅔ (cos θ - ½, sin θ - ¼) + ε,  θ ~ U(0, π),  ε ~ N(0, noise²)

    Shapes: x (points, 2) float32 in about [-1, 1], y (points,) int32, the classes "0" (the upper,
    sign +) and "1" of equal size (to one); the split is stratified.
    Raises DataError for an argument out of range.
    Source: after `sklearn.datasets.make_moons`, centred and scaled.
    """

    def curve(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        arc = _on_circle(rng.uniform(0, 0.5, points)) - [0.5, 0.25]  # (points, 2)
        return arc * (1 - 2 * y[:, None]) / 1.5

    return _along("moons", curve, 2, points, noise, test_fraction, seed)


def noise(
    *, shape: Sequence[int], classes: int = 10, examples: int = 256, seed: int = 0
) -> Dataset:
    """Make examples independent of their labels, to measure a model's step.

        x ~ N(0, 1)

    Shapes: x (examples, *shape) float32, y (examples,) int32, the classes "0" to classes - 1 in
    turn; both splits are drawn alike.
    Raises DataError for an argument out of range.
    """
    check_integer("noise", "classes", classes, 2, dataset.MAX_CLASSES)
    check_integer("noise", "examples", examples, 1, MAX_POINTS)
    check_seed("noise", "seed", seed)
    if (
        not 1 <= len(shape) <= MAX_AXES
        or min(shape) < 1
        or examples * math.prod(shape) > MAX_NUMBERS
    ):
        raise DataError(
            f"noise: shape is {tuple(shape)} of {examples} examples; expected 1 to {MAX_AXES} "
            f"sizes of at least 1, and at most {MAX_NUMBERS:,} numbers in all"
        )
    rng = np.random.default_rng(seed)
    x_train, x_test = (rng.standard_normal((examples, *shape), np.float32) for _ in range(2))
    y = np.arange(examples, dtype=np.int32) % classes
    names = tuple(str(k) for k in range(classes))
    return Dataset("noise", x_train, y, x_test, y, names)


def _on_circle(turn: np.ndarray) -> np.ndarray:
    """Return the points of the unit circle at angles 2π turn: (n,) -> (n, 2)."""
    return np.stack([np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)], axis=1)


def _along(
    name: str,
    curve: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    classes: int,
    points: int,
    noise: float,
    test_fraction: float,
    seed: int,
) -> Dataset:
    """Draw points on `curve(y, rng)`, (points, 2), with labels in turn; add noise and split."""
    check_integer(name, "points", points, 2 * classes, MAX_POINTS)
    check_number(name, "noise", noise, 0, MAX_NOISE)
    check_split_arguments(name, test_fraction, "seed", seed)
    rng = np.random.default_rng(seed)
    y = np.arange(points, dtype=np.int32) % classes
    x = curve(y, rng)
    x = (x + noise * rng.standard_normal(x.shape)).astype(np.float32)
    return split_dataset(name, x, y, numbered_classes(y), test_fraction=test_fraction, seed=seed)
