"""The cores and the memory of a benchmark's process."""

import ctypes
import os

from ..errors import FnnError


def pin(count: int) -> None:
    """Pin this process to its first `count` cores; call it before JAX has run anything.

    Raises FnnError where there are fewer, or the system cannot pin a process.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise FnnError("--cores: this system cannot pin a process to some cores; leave it out")
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        raise FnnError(f"--cores {count}: this process may use {len(cores)}")
    os.sched_setaffinity(0, cores[:count])


def keep_memory() -> None:
    """Keep freed memory for the next call; call it before JAX has run anything.

    glibc returns large arrays to the system, and every call pays for their pages again: up to
    three times the time of an op. A training step holds its memory and pays nothing. Without glibc
    this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        for parameter, value in _KEEP.items():
            mallopt(parameter, value)


_KEEP = {-4: 0, -8: 1, -1: 2**31 - 1, -2: 2**28}
"""M_MMAP_MAX: no mapping per array; M_ARENA_MAX: one arena, since only the first can grow so far;
M_TRIM_THRESHOLD: return nothing; M_TOP_PAD: grow in steps of this size."""


def available() -> int:
    """Return the count of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
