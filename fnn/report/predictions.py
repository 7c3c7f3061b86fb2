"""What the test predictions come to: who was taken for whom, and how sure the network was."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .run import Predictions

Floats = NDArray[np.float64]

_MOST_CLASSES = 24  # beyond this a confusion matrix does not fit on a page
_MOST_MISTAKES = 10


@dataclass(frozen=True)
class Mistake:
    """How often examples of one class were taken for another."""

    true: str
    predicted: str
    count: int


@dataclass(frozen=True)
class Table:
    """A confusion matrix of k classes."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]  # true class by predicted class
    heat: tuple[tuple[float, ...], ...]  # each count over its row's total
    recall: tuple[float, ...]  # NaN for a class that has no example
    precision: tuple[float, ...]  # NaN for a class that was never predicted


@dataclass(frozen=True)
class Confusion:
    """Who was taken for whom among k classes.

    With more classes than a page can hold there is no table, only the mistakes.
    """

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
    """Return a class's name; one that was given none is called by its number."""
    return classes[number] if number < len(classes) else str(number)


def _shares(part: NDArray[np.int_], whole: NDArray[np.int_]) -> tuple[float, ...]:
    return tuple(
        a / b if b else math.nan for a, b in zip(part.tolist(), whole.tolist(), strict=True)
    )


def true_class_output(predictions: Predictions, loss: str) -> tuple[str, Floats] | None:
    """Return what the network gave the true class of each example, (n,), and what to call it.

    Logits, which the loss's name tells, become probabilities. Other scores are taken as they are
    where all lie in [0, 1]: a probability `p` under a cross-entropy, an `output` otherwise.
    Returns None for scores on no known scale, and for labels that have no output of their own.
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
    known = scores[np.isfinite(scores)]
    if known.size and (known.min() < -1e-6 or known.max() > 1 + 1e-6):
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
