"""What hands the compiled steps their data: all of it at once, or a call's examples at a time.

feed = make_feed(x, labels)
for batches, x, labels, indices in feed.chunks(cuts):
    state, loss = steps(state, x, labels, indices)
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import numpy as np

from ..data import Streamed
from .mesh import Placement, one_device

CALL_BYTES = 64 * 2**20
"""Bytes of streamed examples in one compiled call, at most, but for a single larger batch."""
AHEAD = 2
"""Calls whose examples are read, or wait, while another computes."""


class Chunk(NamedTuple):
    """The arguments of one compiled call of (steps, batch size) examples."""

    batches: np.ndarray  # which examples of the data
    x: jax.Array
    labels: jax.Array
    indices: np.ndarray | None  # the same examples, as they lie in x; None if x is the batches


class Feed(Protocol):
    """Data which are handed to compiled steps."""

    def chunks(self, cuts: Iterable[np.ndarray]) -> Iterator[Chunk]:
        """Return the arguments of a call for each of `cuts`, integers (steps, batch size)."""


@dataclass(frozen=True)
class Resident:
    """All data, on the device."""

    x: jax.Array
    labels: jax.Array

    def chunks(self, cuts: Iterable[np.ndarray]) -> Iterator[Chunk]:
        """Pass each cut on, with all data."""
        for batches in cuts:
            yield Chunk(batches, self.x, self.labels, batches)


@dataclass(frozen=True)
class Prefetched:
    """Streamed examples, of which a call is given its own: read while the calls before it compute.

    The compiled steps see the same numbers in the same order as of resident data.
    """

    x: Streamed
    labels: np.ndarray
    placement: Placement

    def chunks(self, cuts: Iterable[np.ndarray]) -> Iterator[Chunk]:
        """Read each cut in a thread, at most AHEAD of them before they are asked for.

        `cuts` is consumed as far ahead, in the caller's thread. The thread ends with the iterator:
        when it is exhausted or closed (as by `break`), or an error passes through it.

        Raises what reading raises, when its call is asked for.
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
        """Read the examples of a call, each batch after the other, and put them on the device."""
        if self.placement.mesh.size > 1:
            return self._fetch_own(batches)
        examples = batches.reshape(-1)
        # device_put, unlike jnp.asarray, does not copy what a CPU can read where it is.
        x, labels = jax.device_put((self.x[examples], self.labels[examples]))
        indices = np.arange(len(examples), dtype=batches.dtype).reshape(batches.shape)
        return Chunk(batches, x, labels, indices)

    def _fetch_own(self, batches: np.ndarray) -> Chunk:
        """Read what the devices of this process take of each batch, as batches of their own."""
        size = batches.shape[1]
        own = batches[:, self.placement.rows(size)]
        x, labels = self.x[own.reshape(-1)], self.labels[own]
        x = x.reshape(*own.shape, *x.shape[1:])
        split = self.placement.batches
        return Chunk(batches, split(x, size), split(labels, size), None)


def make_feed(
    x: np.ndarray | Streamed, labels: np.ndarray, placement: Placement | None = None
) -> Feed:
    """Return what feeds x (n, ...) and labels (n,) to compiled steps on the placement's devices."""
    placement = placement or one_device()
    if isinstance(x, Streamed):
        return Prefetched(x, labels, placement)
    return Resident(placement.resident(x), placement.resident(labels))


def steps_per_call(batch_bytes: int, most: int) -> int:
    """Return how many steps on batches of streamed examples one call takes: 1 to `most`."""
    return max(1, min(most, CALL_BYTES // batch_bytes))
