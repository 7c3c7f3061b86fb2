"""A pool of processes that loses one item of work, and no more, where a process dies or hangs."""

import functools
import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.pool import ThreadPool
from typing import Any

PATIENCE = 600.0
"""Seconds after which a process is ended and its item is lost."""


class Processes:
    """A pool of `count` processes; with 1, the work is done in this process."""

    def __init__(self, count: int):
        self.count = count
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(None)  # a process that is not started yet

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *exception: object) -> None:
        while not self._idle.empty():
            if worker := self._idle.get():
                worker[0].kill()

    def results(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        on_loss: Callable[[Any, str], Any],
    ) -> Iterator[Any]:
        """Yield `function(item)` for each item, in any order; `on_loss(item, why)` for a lost one.

        `function` and the items are pickled: a process imports the function by its name.
        """
        if self.count == 1:
            yield from map(function, items)
            return
        with ThreadPool(self.count) as threads:  # each thread waits for one process
            yield from threads.imap_unordered(
                functools.partial(self._result, function, on_loss), items
            )

    def _result(self, function, on_loss, item):
        process, connection = self._idle.get() or _start()
        try:
            connection.send((function, item))
            if connection.poll(PATIENCE):
                result = connection.recv()
                self._idle.put((process, connection))
                return result
            why = f"no answer within {PATIENCE:.0f} s"
        except (EOFError, ConnectionError):
            process.join()
            why = f"its process died, exit code {process.exitcode}"
        process.kill()
        self._idle.put(None)
        return on_loss(item, why)


def _start():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _serve(connection: Connection) -> None:
    """Send back `function(item)` for each pair that arrives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, interrupted too, ends this process
    while True:
        function, item = connection.recv()
        connection.send(function(item))
