"""What a process has to itself: on how many cores XLA runs, and the memory that it frees."""

import ctypes
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


def keep_memory() -> None:
    """Keep what is freed, for the next call to use; call it before JAX has run anything.

    glibc gives large arrays back to the system. Their pages are then found and cleared again at
    every call, which took up to three times as long as the ops that were to be timed, and not in
    a training step, which holds on to its memory. Elsewhere this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        for parameter, value in _KEEP.items():
            mallopt(parameter, value)


_KEEP = {-4: 0, -8: 1, -1: 2**31 - 1, -2: 2**28}
"""M_MMAP_MAX: no mapping of its own for an array; M_ARENA_MAX: one arena, since only the first can
grow so far; M_TRIM_THRESHOLD: give nothing back; M_TOP_PAD: grow by so many bytes."""


def available() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
