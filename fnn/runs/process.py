"""The process of a run: requests to stop, and compiled programs that outlive it."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from ..config import Config

CACHED_SECONDS = 0.2
"""Programs that compile faster are not worth a file."""


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], int]]:
    """Turn the first SIGINT (Ctrl-C) or SIGTERM into a request to stop, so that no state is lost.

    Yields a function that returns the signal's number, 0 if there was none. A second Ctrl-C does
    what it did before. Outside the main thread, which alone may handle signals, it is always 0.
    """
    received = 0
    before: dict[signal.Signals, Any] = {}

    def note(number, frame):
        del frame
        nonlocal received
        received = number
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:
        yield lambda: 0
        return
    try:
        yield lambda: received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_compiled(config: Config) -> None:
    """Keep compiled programs for later processes, in the folder of the user's cache that is named.

    A cache folder already set in JAX (`JAX_COMPILATION_CACHE_DIR`) takes precedence.
    """
    name = config.compilation_cache
    if name is None or jax.config.values["jax_compilation_cache_dir"]:
        return
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(cache, "fnn", name)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", CACHED_SECONDS)
