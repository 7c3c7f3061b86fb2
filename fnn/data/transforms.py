"""Other questions about the same examples: functions from a Dataset to a Dataset."""

from dataclasses import replace

import numpy as np

from ..errors import DataError, did_you_mean
from .arguments import check_number, check_seed
from .dataset import Dataset, Streamed
from .split import seed_for

NONE_OF_THE_ABOVE = "none of the above"


def one_vs_rest(dataset: Dataset, *, label: str | int) -> Dataset:
    """Ask for one class against the rest: "2 or not 2".

    y becomes 1 for examples of the class named `label` (2 and "2" are the same name) and 0 for all
    others, int32 as before; the classes become ("not 2", "2"). x is the same array.

    Raises DataError for an unknown label, with the known ones.
    """
    name = str(label)
    if name not in dataset.classes:
        names = ", ".join(dataset.classes[:20]) + (", ..." if len(dataset.classes) > 20 else "")
        raise DataError(
            f"one_vs_rest: label is {label!r}; expected a class of dataset {dataset.name!r}: "
            f"{names}{did_you_mean(name, dataset.classes)}"
        )
    index = dataset.classes.index(name)
    return replace(
        dataset,
        name=f"{dataset.name}, {name} or not {name}",
        y_train=(dataset.y_train == index).astype(np.int32),
        y_test=(dataset.y_test == index).astype(np.int32),
        classes=(f"not {name}", name),
    )


def none_of_the_above(dataset: Dataset, *, fraction: float = 0.1, seed: int = 0) -> Dataset:
    """Add a class "none of the above", of examples with real parts but no real whole.

    Each split of n gets round(n * fraction) more examples, at least one, made from its own alone,
    so training sees no part of a test example.

    An image, (height, width, channels) with both sizes at least 2, consists of quarters of images
    of up to four classes, with upper and lower quarters exchanged. Strokes are real and the left
    and right margins stay empty, so neither reveals the class; the exchange keeps the top of a 3
    over the bottom of a 5 from being a digit.

    Any other example, such as a vector of measurements, takes a random half of its features from an
    example of one class and the rest from another class. Each feature keeps its distribution and
    only their dependence is lost, so no classifier separates such examples fully.

    Shapes: x (n, *shape) -> (n + round(n * fraction), *shape) float32, y likewise, int32.
    Raises DataError for a fraction outside [1e-6, 1], a negative seed, a split with
    examples of one class only, examples of one feature, a class of that name already there, or
    examples that are streamed.
    """
    check_number("none_of_the_above", "fraction", fraction, 1e-6, 1)
    check_seed("none_of_the_above", "seed", seed)
    if NONE_OF_THE_ABOVE in dataset.classes:
        raise DataError(
            f"none_of_the_above: dataset {dataset.name!r} has a class {NONE_OF_THE_ABOVE!r} "
            "already; apply it once"
        )
    if isinstance(dataset.x_train, Streamed) or isinstance(dataset.x_test, Streamed):
        raise DataError(
            f"none_of_the_above: the examples of dataset {dataset.name!r} are streamed; expected "
            "them in memory, to mix them; load them with `stream: false`"
        )
    where = f"none_of_the_above: dataset {dataset.name!r}"

    def extended(x: np.ndarray, y: np.ndarray, split: str) -> tuple[np.ndarray, np.ndarray]:
        count = max(1, round(len(x) * fraction))
        rng = np.random.default_rng(seed_for(seed, f"none of the above, {split}"))
        labels = np.full(count, len(dataset.classes), np.int32)
        composites = _composites(x, y, count, rng, where)
        return np.concatenate([x, composites]), np.concatenate([y, labels])

    x_train, y_train = extended(dataset.x_train, dataset.y_train, "train")
    x_test, y_test = extended(dataset.x_test, dataset.y_test, "test")
    name, classes = f"{dataset.name}, with none of the above", (*dataset.classes, NONE_OF_THE_ABOVE)
    return Dataset(name, x_train, y_train, x_test, y_test, classes)


def _composites(
    x: np.ndarray, y: np.ndarray, count: int, rng: np.random.Generator, where: str
) -> np.ndarray:
    """Make `count` examples from the parts of others -> (count, *shape)."""
    if (y == y[0]).all():
        raise DataError(f"{where}: a split has one class only; expected two or more to mix")
    is_image = x.ndim == 4 and min(x.shape[1:3]) >= 2
    if is_image:
        return _moved_quarters(x, _draw_donors(y, count, 4, rng))
    if x[0].size < 2:
        raise DataError(f"{where}: examples have one feature; expected two or more to mix")
    return _mixed_features(x, _draw_donors(y, count, 2, rng), rng)


def _draw_donors(y: np.ndarray, count: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Draw examples of different classes for each composite -> indices (count, parts).

    With fewer classes than parts, classes repeat.
    """
    order = np.argsort(y, kind="stable")  # (n,)
    _, start, size = np.unique(y[order], return_index=True, return_counts=True)  # (classes,)
    ranking = np.argsort(rng.random((count, len(size))), axis=1)  # (count, classes)
    which = ranking[:, np.arange(parts) % len(size)]  # (count, parts)
    return order[start[which] + rng.integers(size[which])]


def _moved_quarters(x: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """Fill each quarter from the one above or below it in its donor -> (count, h, w, c)."""
    middle, centre = x.shape[1] // 2, x.shape[2] // 2
    upper, lower = slice(None, middle), slice(middle, None)
    left, right = slice(None, centre), slice(centre, None)
    quarters = np.empty((len(donors), *x.shape[1:]), np.float32)
    for part, rows in enumerate((upper, upper, lower, lower)):
        columns = (left, right)[part % 2]
        swapped = np.roll(x[donors[:, part]], middle, axis=1)  # its lower half above its upper
        quarters[:, rows, columns] = swapped[:, rows, columns]
    return quarters


def _mixed_features(x: np.ndarray, donors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Take half of the features from one donor and half from the other -> (count, *shape)."""
    first, second = x[donors[:, 0]], x[donors[:, 1]]  # (count, *shape)
    features = x[0].size
    rank = np.argsort(rng.random((len(donors), features)), axis=1)
    from_first = (rank < features // 2).reshape(first.shape)
    return np.where(from_first, first, second)
