"""On how many cores XLA runs: on as many as the process may use when it starts."""

import os

from ..errors import FnnError


def pin(count: int) -> None:
    """Keep this process to its first `count` cores; call it before JAX has run anything.

    Raises FnnError where there are not so many, or the system cannot pin a process.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise FnnError("--cores: this system cannot keep a process to some cores; leave it out")
    have = sorted(os.sched_getaffinity(0))
    if count > len(have):
        raise FnnError(f"--cores {count}: this process may use {len(have)}")
    os.sched_setaffinity(0, have[:count])


def available() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
