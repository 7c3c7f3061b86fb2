"""Several processes: joining them, agreeing on values, and leaving them.

    with distributed.joined(config):     before JAX computes anything
        ...
        if distributed.is_first(): ...   the only process that writes and prints

All processes run the same program on the same config. Each makes every compiled call that spans
their devices, in the same order. See docs/distributed.md.
"""

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..config import Config
from ..errors import ConfigError, FnnError

HEARTBEAT = 60
"""Seconds of silence after which a process counts as dead, and the others end."""
_TEXT = 4096  # bytes
_BROKEN = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED")
"""Words in the errors of a broken collective: its library, or the state of the other process."""


@contextlib.contextmanager
def joined(config: Config) -> Iterator[None]:
    """Join the other processes that a config names; without any, do nothing.

    A process that ends well waits for the others at its exit. One that fails does not: they could
    wait for each other. The others end as soon as they miss it.

    Raises FnnError, with the line, if the others do not come in time.
    """
    try:
        if config.distributed is not None:
            _join(config)
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        broken = isinstance(error, jax.errors.JaxRuntimeError) and any(
            word in str(error) for word in _BROKEN
        )
        atexit.register(_leave, 2 if broken else _status(error))
        if not broken:
            raise
        raise FnnError(
            f"process {jax.process_index()} cannot reach another of the {jax.process_count()}: it "
            "has ended, or the network between them; see its last message, then start all of them "
            f"again ({str(error).splitlines()[0]})"
        ) from error


def is_first() -> bool:
    """Return whether this is the process that writes the run folder and prints."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process; every process must call this."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def from_first(text: str) -> str:
    """Return the first process's text, of up to 4096 bytes; every process must call this."""
    if jax.process_count() == 1:
        return text
    octets = np.frombuffer(text.encode().ljust(_TEXT, b"\0"), np.uint8)
    octets = np.asarray(multihost_utils.broadcast_one_to_all(octets))
    return octets.tobytes().rstrip(b"\0").decode()


def _join(config: Config) -> None:
    processes, where = config.distributed, f"{config.where('distributed')}: distributed"
    assert processes is not None
    count, index = processes.processes, processes.index
    if index is not None and count is not None and index >= count:
        raise ConfigError(f"{where}: index {index} of {count} processes; the first has index 0")
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    failure: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                processes.address,
                count,
                index,
                initialization_timeout=processes.timeout + HEARTBEAT,
                heartbeat_timeout_seconds=HEARTBEAT,
            )
        except Exception as error:
            failure.append(error)

    # If the others do not come, JAX aborts the process. The main thread stops waiting before.
    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(processes.timeout)
    if thread.is_alive():
        raise FnnError(
            f"{where}: after {processes.timeout} s not all processes have met at "
            f"{processes.address or 'the address of the cluster'}; start all of them with the "
            "same address and number of processes, each with an index of its own"
        )
    if failure and isinstance(failure[0], ValueError):
        raise ConfigError(
            f"{where}: JAX finds no cluster to fill in the missing fields ({failure[0]}); write "
            "{address: host:port, processes: 2, index: 0}"
        ) from failure[0]
    if failure:
        address = processes.address or "the address of the cluster"
        raise FnnError(f"{where}: cannot start at {address}: {failure[0]}") from failure[0]


def _status(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 2 if isinstance(error, FnnError) else 1


def _leave(status: int) -> None:
    """Exit without JAX's barrier, which would run at exit after this."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
