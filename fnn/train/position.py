"""Where training stands: between two steps, of which epoch and after how many of its batches.

The order of the examples depends on seed and epoch alone, and where an epoch is cut into compiled
calls on the config and the shapes alone. So who goes on from a position runs the same programs on
the same batches as who never stopped.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

STEPS = 256
"""Steps in one compiled call: enough to make its overhead vanish, few enough to see progress."""
MULTIPLY_ADDS = 2 * 10**10
"""Of one example's forward pass, times examples: a call takes seconds, not minutes."""


@dataclass(frozen=True)
class Position:
    """After `done` batches of `epoch`, and what has been summed over them."""

    epoch: int = 1
    done: int = 0
    total: float = 0.0  # of the losses, each times its examples
    seen: int = 0  # examples

    def after(self, batches: np.ndarray, losses: np.ndarray) -> "Position":
        """Return the position after a call of (steps, batch size) examples.

        Steps whose losses are not finite, and which were therefore left out, are not summed.
        """
        steps, size = batches.shape
        finite = losses[np.isfinite(losses)]
        total = self.total + float(np.sum(finite, dtype=np.float64)) * size
        return Position(self.epoch, self.done + steps, total, self.seen + len(finite) * size)

    def step(self, an_epoch: int) -> int:
        """Return the number of steps before it, with so many in an epoch."""
        return (self.epoch - 1) * an_epoch + self.done

    def mean(self) -> float:
        """Return the mean loss of the epoch so far."""
        return self.total / self.seen if self.seen else math.nan

    def as_json(self) -> dict[str, Any]:
        """Return what `Position(**...)` takes."""
        return dataclasses.asdict(self)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Return how many batches an epoch has; the last may be smaller than the others."""
    return -(-examples // batch_size)


def steps_per_call(multiply_adds: int, batch_size: int, checkpoint_steps: int | None) -> int:
    """Return how many steps to compile into one call, for a model of so many multiply-adds."""
    affordable = MULTIPLY_ADDS // max(1, multiply_adds * batch_size)
    return max(1, min(STEPS, affordable, checkpoint_steps or STEPS))


def cut_epoch(
    order: np.ndarray, batch_size: int, done: int, longest: int, until: int | None = None
) -> Iterator[np.ndarray]:
    """Cut an epoch's order into calls of (steps, batch size), from `done` batches on.

    Cuts lie at multiples of `longest`. Every example is used once an epoch: what is left over is
    a small batch, a call of its own. With `until`, no batch from that one on is used.
    """
    whole = len(order) // batch_size
    batches = order[: whole * batch_size].reshape(whole, batch_size)[:until]
    while done < len(batches):
        cut = min(len(batches), (done // longest + 1) * longest)
        yield batches[done:cut]
        done = cut
    if done == whole and whole * batch_size < len(order) and (until is None or whole < until):
        yield order[None, whole * batch_size :]
