"""Evaluation: the loss of every example and the decision on it, one part at a time."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ..data import Streamed
from ..layers import Layer
from ..loss import Loss
from .mesh import Placement, one_device
from .precision import FLOAT32, Precision, cast, widen

CHUNK, CHUNK_BYTES = 4096, 4 * 2**20
"""Examples in one forward pass, at most: bounds the memory of a large test set."""


class Evaluation(NamedTuple):
    """The model's output, the loss and the predicted label per example."""

    scores: np.ndarray  # (n, outputs)
    losses: np.ndarray  # (n,)
    decisions: np.ndarray  # (n,)

    def of_run(self, index: int) -> "Evaluation":
        """Return the evaluation of one run, from arrays that have an axis of runs first."""
        return Evaluation(*(array[index] for array in self))

    def loss(self) -> float:
        """Return the mean loss."""
        return float(np.mean(self.losses, dtype=np.float64))

    def accuracy(self, labels: np.ndarray) -> float:
        """Return the fraction of decisions that equal the labels."""
        return float(np.mean(self.decisions == labels))


def make_evaluate(
    model: Layer,
    loss: Loss,
    precision: Precision = FLOAT32,
    placement: Placement | None = None,
) -> Callable[..., Evaluation]:
    """Return a compiled function of `params, layers, x, labels`, in the dtypes of a step.

    Streamed examples are read one part at a time, while the previous part is computed. The
    placement's devices share the examples, and all its processes get the whole evaluation.
    """
    placement = placement or one_device()

    @functools.partial(jax.jit, out_shardings=placement.sharding())
    def part(params, layers, x, labels):
        x, labels = placement.spread((x, labels))
        return evaluate_batch(model, loss, precision, params, layers, x, labels)

    def evaluate(
        params: Any, layers: Any, x: jax.Array | Streamed, labels: jax.Array | np.ndarray
    ) -> Evaluation:
        size = max(1, min(CHUNK, CHUNK_BYTES * len(x) // x.nbytes))
        parts = [
            part(params, layers, x[i : i + size], labels[i : i + size])
            for i in range(0, len(x), size)
        ]
        return Evaluation(*(np.concatenate(a) for a in zip(*jax.device_get(parts), strict=True)))

    return evaluate


def evaluate_batch(
    model: Layer,
    loss: Loss,
    precision: Precision,
    params: Any,
    layers: Any,
    x: jax.Array,
    labels: jax.Array,
) -> Any:  # an Evaluation of arrays on the device
    """Return outputs, losses and decisions of a batch, in the dtypes of a step."""
    y = outputs(model, precision, params, layers, x)
    scores, losses = widen((y, loss.per_example(y, labels)))
    decisions: Any = loss.decide(y)
    return Evaluation(scores, losses, decisions)


def outputs(model: Layer, precision: Precision, params: Any, layers: Any, x: jax.Array) -> Any:
    """Return a model's outputs for x outside training, in `precision.reduce`."""
    params, x = cast((params, x), precision.compute)
    return model.apply(params, layers, x)[0].astype(precision.reduce)
