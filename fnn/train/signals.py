"""Being asked to stop: Ctrl-C (SIGINT) and SIGTERM, which schedulers and shutdowns send."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], int]]:
    """Turn the first signal into a number to ask for, so that no state is lost.

    Yields a function that returns the signal's number, 0 if there was none. A second Ctrl-C does
    what it did before. Outside the main thread, which alone may handle signals, it is always 0.
    """
    asked = 0
    before: dict[signal.Signals, Any] = {}

    def note(number, frame):
        nonlocal asked
        asked = number
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:
        yield lambda: 0
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
