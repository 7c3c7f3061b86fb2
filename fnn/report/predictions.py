"""The test predictions: the confusion matrix, and the network's output for the true class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .run import Predictions

Floats = NDArray[np.float64]

_MOST_CLASSES = 24  # beyond this a confusion matrix does not fit on a page
_MOST_MISTAKES = 10
_Z95 = 1.959964  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class Mistake:
    """How often examples of one class were predicted as another."""

    true: str
    predicted: str
    count: int


class Table(NamedTuple):
    """A confusion matrix of k classes."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]  # true class by predicted class
    heat: tuple[tuple[float, ...], ...]  # each count over its row's total
    recall: tuple[float, ...]  # NaN for a class that has no example
    precision: tuple[float, ...]  # NaN for a class that was never predicted


class Confusion(NamedTuple):
    """True classes against predicted ones; the table is None where k classes do not fit a page."""

    classes: int
    table: Table | None
    mistakes: tuple[Mistake, ...]  # the most frequent, first
    right: int
    total: int


def confusion(predictions: Predictions, classes: Sequence[str]) -> Confusion:
    """Count the n > 0 predictions."""
    y_true, y_pred = predictions.y_true.astype(int), predictions.y_pred.astype(int)
    k = max(len(classes), 1 + int(max(y_true.max(), y_pred.max())))
    pairs, times = np.unique(np.stack([y_true, y_pred]), axis=1, return_counts=True)
    mistakes = [
        Mistake(class_name(classes, true), class_name(classes, predicted), count)
        for true, predicted, count in zip(*pairs.tolist(), times.tolist(), strict=True)
        if true != predicted
    ]
    counts = np.zeros((k, k), int) if k <= _MOST_CLASSES else None
    if counts is not None:
        counts[pairs[0], pairs[1]] = times
    return Confusion(
        classes=k,
        table=None if counts is None else _table(counts, classes),
        mistakes=tuple(sorted(mistakes, key=lambda mistake: -mistake.count)[:_MOST_MISTAKES]),
        right=int((y_true == y_pred).sum()),
        total=len(y_true),
    )


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion, correct of total > 0.

    Unlike p ± 1.96 √(p(1-p)/n) it stays inside [0, 1] and keeps its width at p = 1.
    Source: Wilson 1927, J. Am. Stat. Assoc. 22(158).
    """
    p, z2 = correct / total, _Z95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def _table(counts: NDArray[np.int_], classes: Sequence[str]) -> Table:
    rows, columns, diagonal = counts.sum(1), counts.sum(0), counts.diagonal()
    return Table(
        names=tuple(class_name(classes, i) for i in range(len(counts))),
        counts=tuple(map(tuple, counts.tolist())),
        heat=tuple(map(tuple, (counts / np.maximum(rows, 1)[:, None]).tolist())),
        recall=_shares(diagonal, rows),
        precision=_shares(diagonal, columns),
    )


def class_name(classes: Sequence[str], number: int) -> str:
    """Return a class's name, or its number where it has none."""
    return classes[number] if number < len(classes) else str(number)


def _shares(part: NDArray[np.int_], whole: NDArray[np.int_]) -> tuple[float, ...]:
    return tuple(
        a / b if b else math.nan for a, b in zip(part.tolist(), whole.tolist(), strict=True)
    )


def true_class_output(predictions: Predictions, loss: str) -> tuple[str, Floats] | None:
    """Return a name for the network's output for each example's true class, and its values (n,).

    Logits, recognised by the loss's name, become probabilities. Other scores stay as they are if
    all lie in [0, 1]: a probability `p` under a cross-entropy, an `output` otherwise. Returns None
    for scores on no known scale, and for labels without an output of their own.
    """
    scores = predictions.scores.astype(float)
    labels = predictions.y_true.astype(int)
    if scores.ndim != 2 or not scores.size or labels.max() >= max(2, scores.shape[1]):
        return None
    if "logits" in loss or "softmax" in loss:
        # A single output is the logit of class 1 against a fixed 0 for class 0.
        logits = scores if scores.shape[1] > 1 else np.hstack([np.zeros_like(scores), scores])
        independent = "binary" in loss and scores.shape[1] > 1
        outputs = _sigmoid(logits) if independent else _softmax(logits)
        return "p", outputs[np.arange(len(labels)), labels]
    finite = scores[np.isfinite(scores)]
    if finite.size and (finite.min() < -1e-6 or finite.max() > 1 + 1e-6):
        return None
    outputs = scores if scores.shape[1] > 1 else np.hstack([1 - scores, scores])
    name = "p" if "entropy" in loss or "divergence" in loss else "output"
    return name, outputs[np.arange(len(labels)), labels]


def _softmax(logits: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)


def _sigmoid(logits: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * logits))
