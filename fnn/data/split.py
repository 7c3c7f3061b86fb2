"""The stratified split into training and test examples."""

import numpy as np

from ..errors import DataError
from .arguments import check_fraction, check_seed
from .dataset import Dataset


def seed_for(seed: int, purpose: str) -> np.random.SeedSequence:
    """Return a seed for one purpose, independent of the same seed's use for any other.

    Otherwise a set drawn and split with the same seed would be split by the numbers it was drawn
    from: its test points would be those of the smallest angle.
    """
    return np.random.SeedSequence(seed, spawn_key=tuple(purpose.encode()))


def stratified_split(
    y: np.ndarray, *, test_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the training and of the test examples, each in ascending order.

    Of every class with n >= 2 examples, round(n * test_fraction) go to the test split, but at least
    one and at most n - 1; the only example of a class goes to the training split.
    Each example draws one 64-bit integer, and those with the smallest in their class are the test
    examples.

    Shapes: y (n,) integers -> (n_train,), (n_test,) int64.
    Raises DataError if no class has two examples, so that the test split would be empty.
    """
    # NumPy keeps the bit generator's integers stable, but not the methods of Generator.
    draw = np.random.PCG64(seed_for(seed, "split")).random_raw(len(y))  # (n,)
    order = np.lexsort((draw, y))  # by class, then by the drawn integer
    _, sizes = np.unique(y, return_counts=True)  # (classes present,)
    test_sizes = np.clip(np.rint(sizes * test_fraction).astype(int), 1, np.maximum(sizes - 1, 1))
    test_sizes[sizes == 1] = 0
    if not test_sizes.any():
        raise DataError(
            f"a stratified split of {len(y)} examples leaves no test example: each of the "
            f"{len(sizes)} classes has only one; expected a class with two or more; "
            "is the label column the right one?"
        )
    rank = np.arange(len(y)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # place in its class
    is_test = np.zeros(len(y), bool)
    is_test[order] = rank < np.repeat(test_sizes, sizes)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def split_dataset(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    classes: tuple[str, ...],
    *,
    test_fraction: float,
    seed: int,
) -> Dataset:
    """Return x (n, *shape) and y (n,) as a Dataset with a stratified test split.

    Raises DataError as `stratified_split` and `Dataset` do. The caller checks the arguments first,
    with `check_split_arguments`.
    """
    try:
        train, test = stratified_split(y, test_fraction=test_fraction, seed=seed)
    except DataError as error:
        raise DataError(f"dataset {name!r}: {error}") from None
    return Dataset(name, x[train], y[train], x[test], y[test], classes)


def check_split_arguments(where: str, test_fraction: float, seed_name: str, seed: int) -> None:
    """Raise DataError unless 0 < test_fraction < 1 and the seed is valid."""
    check_fraction(where, "test_fraction", test_fraction)
    check_seed(where, seed_name, seed)
