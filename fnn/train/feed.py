"""The order in which training takes its examples, and the arguments of each compiled call.

feed = make_feed(x, labels)
for batches, x, labels, indices in feed.chunks(cut_epoch(examples, batch_size, done, longest)):
    state, losses = steps(state, x, labels, indices)

A chunk is the steps of one compiled call. The order of the examples depends on seed and epoch
alone, and the cuts between chunks on the config and the shapes alone. So a resumed run executes
the same programs on the same batches as an uninterrupted one.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from ..data import Streamed
from .mesh import Placement, one_device

STEPS = 256
"""Steps of one chunk, at most: enough to hide the overhead of a call, few enough for progress."""
MULTIPLY_ADDS = 2 * 10**10
"""The most multiply-adds of forward passes in one chunk, so that it takes seconds."""
CHUNK_BYTES = 64 * 2**20
"""Bytes of streamed examples in one chunk, at most, unless a single batch is larger."""
AHEAD = 2
"""The number of chunks that are read ahead of the one being computed."""


@dataclass(frozen=True)
class Position:
    """A place between two steps: `done` batches of `epoch`, and sums over those batches."""

    epoch: int = 1
    done: int = 0
    total: float = 0.0  # of the losses, each times its examples
    examples: int = 0

    def after(self, batches: np.ndarray, losses: np.ndarray) -> "Position":
        """Return the position after a chunk (..., steps, batch size) of examples.

        A step whose loss is not finite counts as done, but not in the mean.
        """
        steps, size = batches.shape[-2:]
        finite = losses[np.isfinite(losses)]
        total = self.total + float(np.sum(finite, dtype=np.float64)) * size
        return Position(self.epoch, self.done + steps, total, self.examples + len(finite) * size)

    def carry(self, per_epoch: int) -> "Position":
        """Return the start of the next epoch if this is the end of one, else this position."""
        return Position(self.epoch + 1) if self.done == per_epoch else self

    def step(self, per_epoch: int) -> int:
        """Return the number of steps before it, for this many steps per epoch."""
        return (self.epoch - 1) * per_epoch + self.done

    def mean(self) -> float:
        """Return the mean loss of the epoch so far."""
        return self.total / self.examples if self.examples else math.nan

    def as_json(self) -> dict[str, Any]:
        """Return the position as the plain JSON of a checkpoint."""
        fields = dataclasses.asdict(self)
        return {**fields, "seen": fields.pop("examples")}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Position":
        """Return the position that `as_json` describes."""
        return cls(*(fields[key] for key in ("epoch", "done", "total", "seen")))


def steps_per_call(batch_bytes: int, most: int) -> int:
    """Return how many steps on batches of streamed examples one call takes: 1 to `most`."""
    return max(1, min(most, CHUNK_BYTES // batch_bytes))


def cut_epoch(
    order: np.ndarray, batch_size: int, done: int, longest: int, until: int | None = None
) -> Iterator[np.ndarray]:
    """Cut an epoch's order (..., n) into chunks (..., steps, batch size), from `done` batches on.

    Cuts lie at multiples of `longest`. Every example is used once per epoch: the remainder is a
    small batch in a chunk of its own. With `until`, no batch from that one on is used.
    """
    whole = order.shape[-1] // batch_size
    shape = *order.shape[:-1], whole, batch_size
    batches = order[..., : whole * batch_size].reshape(shape)[..., :until, :]
    while done < batches.shape[-2]:
        cut = min(batches.shape[-2], (done // longest + 1) * longest)
        yield batches[..., done:cut, :]
        done = cut
    remainder = order[..., None, whole * batch_size :]
    if done == whole and remainder.size and (until is None or whole < until):
        yield remainder


class Chunk(NamedTuple):
    """The arguments of one compiled call on (steps, batch size) examples."""

    batches: np.ndarray  # which examples of the data
    x: jax.Array
    labels: jax.Array
    indices: np.ndarray | None  # rows of x per batch; None if x has the axes (steps, batch size)


@dataclass(frozen=True)
class Resident:
    """A feed of data that lie on the device as a whole."""

    x: jax.Array
    labels: jax.Array

    def chunks(self, cuts: Iterable[np.ndarray]) -> Generator[Chunk]:
        """Pass each cut on, with all data."""
        for batches in cuts:
            yield Chunk(batches, self.x, self.labels, batches)


@dataclass(frozen=True)
class Prefetched:
    """A feed of streamed data: the examples of a chunk are read while earlier chunks compute.

    The compiled steps see the same numbers in the same order as with resident data.
    """

    x: Streamed
    labels: np.ndarray
    placement: Placement

    def chunks(self, cuts: Iterable[np.ndarray]) -> Generator[Chunk]:
        """Read the chunks in a thread, at most AHEAD of the one that is requested.

        `cuts` is consumed as far ahead, in the caller's thread. The thread ends with the iterator:
        when it is exhausted or closed (as by `break`), or an error passes through it.

        An error of reading is raised when its chunk is requested.
        """
        thread = ThreadPoolExecutor(1, "prefetch")
        waiting: deque[Future[Chunk]] = deque()
        try:
            for batches in cuts:
                waiting.append(thread.submit(self._fetch, batches))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            thread.shutdown(cancel_futures=True)

    def _fetch(self, batches: np.ndarray) -> Chunk:
        """Read the examples of a chunk, batch after batch, and put them on the device."""
        if self.placement.mesh.size > 1:
            return self._fetch_own(batches)
        examples = batches.reshape(-1)
        # device_put, unlike jnp.asarray, does not copy what a CPU can read where it is.
        x, labels = jax.device_put((self.x[examples], self.labels[examples]))
        indices = np.arange(len(examples), dtype=batches.dtype).reshape(batches.shape)
        return Chunk(batches, x, labels, indices)

    def _fetch_own(self, batches: np.ndarray) -> Chunk:
        """Read the part of each batch that the devices of this process take."""
        size = batches.shape[1]
        own = batches[:, self.placement.rows(size)]
        x, labels = self.x[own.reshape(-1)], self.labels[own]
        x = x.reshape(*own.shape, *x.shape[1:])
        split = self.placement.batches
        return Chunk(batches, split(x, size), split(labels, size), None)


def make_feed(
    x: np.ndarray | Streamed, labels: np.ndarray, placement: Placement | None = None
) -> Resident | Prefetched:
    """Return a feed of x (n, ...) and labels (n,) for compiled steps on the placement's devices."""
    placement = placement or one_device()
    if isinstance(x, Streamed):
        return Prefetched(x, labels, placement)
    return Resident(placement.resident(x), placement.resident(labels))
