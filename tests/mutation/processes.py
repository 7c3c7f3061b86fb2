"""Processes that share items of work: where one dies or hangs, only its item is lost."""

import contextlib
import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.pool import ThreadPool
from typing import Any

PATIENCE = 600.0
"""Seconds after which a process is ended and its item is lost."""


def results(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    processes: int,
    on_loss: Callable[[Any, str], Any],
) -> Iterator[Any]:
    """Yield `function(item)` for each item, in any order; `on_loss(item, why)` for a lost one.

    The processes import the function by its name; with 1, the work is done in this process.
    """
    if processes == 1:
        yield from map(function, items)
        return
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(processes):
        idle.put(None)  # a process that is not started yet

    def result(item):
        process, connection = idle.get() or _start(function)
        try:
            connection.send(item)
            if connection.poll(PATIENCE):
                value = connection.recv()
                idle.put((process, connection))
                return value
            why = f"no answer within {PATIENCE:.0f} s"
        except (EOFError, ConnectionError):
            process.join()
            why = f"its process died, exit code {process.exitcode}"
        process.kill()
        idle.put(None)
        return on_loss(item, why)

    with ThreadPool(processes) as threads:  # each thread waits for one process
        yield from threads.imap_unordered(result, items)


def _start(function):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Send back `function(item)` for each item that arrives, until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, interrupted too, ends this process
    with contextlib.suppress(EOFError):
        while True:
            connection.send(function(connection.recv()))
