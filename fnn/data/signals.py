"""Signals: a word at some place in noise.

The draws are those of `np.random.default_rng(seed)`, and the split is that of `stratified_split`.
"""

import numpy as np

from ..errors import DataError
from .arguments import check_integer, check_number
from .dataset import Dataset
from .split import check_split_arguments, stratified_split
from .synthetic import MAX_NOISE

SHORTEST_WORD = 8  # a shorter tone resembles its reverse
MAX_LENGTH = 100_000
MAX_NUMBERS = 50_000_000


def keyword(
    *,
    points: int = 2000,
    length: int = 100,
    word: int = 16,
    noise: float = 0.1,
    train_part: tuple[float, float] = (0.15, 0.5),
    test_part: tuple[float, float] = (0.5, 0.85),
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Make signals in which a word, a rising tone, stands somewhere, or else its reverse.

        x_{s + k} = w_k (keyword) or w_{word - 1 - k} (none), and 0 elsewhere; then x + ε,
        w_k = sin²(π t) sin(3/8 π word t²),  t = (k + ½) / word,  ε ~ N(0, noise²)

    Word and reverse have the same numbers, energy and spectrum, and differ only in their order in
    time. The place s is uniform such that the word lies within a part of the signal, given by its
    begin and end as fractions of the length: `train_part` in the training split, `test_part` in the
    test split. By default the two do not overlap, so knowledge of places does not help in the test,
    and both sides of the signal leave room to slide a window off the word, as a scan does.

    Shapes: x (points, length, 1) float32, y (points,) int32; the classes "none" and "keyword" are
    of equal size (to one), and the split is stratified.
    Raises DataError for an argument out of range, and for a part shorter than the word.
    """
    check_integer("keyword", "length", length, SHORTEST_WORD, MAX_LENGTH)
    check_integer("keyword", "word", word, SHORTEST_WORD, length)
    check_integer("keyword", "points", points, 4, MAX_NUMBERS // length)
    check_number("keyword", "noise", noise, 0, MAX_NOISE)
    check_split_arguments("keyword", test_fraction, "seed", seed)
    train_places = _places("train_part", train_part, length, word)
    test_places = _places("test_part", test_part, length, word)
    y = np.arange(points, dtype=np.int32) % 2  # (points,)
    train, test = stratified_split(y, test_fraction=test_fraction, seed=seed)
    rng = np.random.default_rng(seed)
    place = np.empty((points, 1), int)
    place[train, 0] = rng.integers(*train_places, len(train), endpoint=True)
    place[test, 0] = rng.integers(*test_places, len(test), endpoint=True)
    rising = _rising_tone(word)
    x = np.float32(noise) * rng.standard_normal((points, length), np.float32)
    x[np.arange(points)[:, None], place + np.arange(word)] += np.stack([rising[::-1], rising])[y]
    x = x[..., None]  # (points, length, 1)
    return Dataset("keyword", x[train], y[train], x[test], y[test], ("none", "keyword"))


def _places(argument: str, part: tuple[float, float], length: int, word: int) -> tuple[int, int]:
    """Return the first and the last place where the word can begin and lie within the part."""
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise DataError(
            f"keyword: {argument} is {part!r}; expected two numbers, where the part begins and "
            "ends, such as (0, 0.5) for the first half"
        )
    for number in part:
        check_number("keyword", argument, number, 0, 1)
    begin, end = (round(number * length) for number in part)
    if end - begin < word:
        raise DataError(
            f"keyword: {argument} is {part!r}, samples {begin} to {end} of {length}; expected room "
            f"for a word of {word}; widen the part, or make the signal longer or the word shorter"
        )
    return begin, end - word


def _rising_tone(word: int) -> np.ndarray:
    """Return a tone that rises to 3/8 of the sampling rate, faded in and out: (word,) float32."""
    t = (np.arange(word) + 0.5) / word
    return (np.sin(np.pi * t) ** 2 * np.sin(3 / 8 * np.pi * word * t**2)).astype(np.float32)
