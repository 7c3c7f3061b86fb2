"""Several processes: how one joins the others, what they agree on, and how it leaves them.

    with distributed.joined(config):     before JAX computes anything
        ...
        if distributed.is_first(): ...   the only one that writes and prints

All processes run the same program on the same config, and each compiled call that spans their
devices is made by all of them, in the same order. See docs/distributed.md.
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
"""Seconds without a sign of life after which a process counts as dead, and the others end."""
_TEXT = 4096  # bytes
_MISSED = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED")
"""What the errors of a broken collective name: its library, or the state of the other process."""


@contextlib.contextmanager
def joined(config: Config) -> Iterator[None]:
    """Join the other processes that a config speaks of; if it speaks of none, do nothing.

    A process that ends well waits for the others at its exit. One that an error ends does not:
    they could wait for it, and it for them. They end too, as soon as it is missed.

    Raises FnnError, with the line, where the others are not found in time.
    """
    try:
        if config.distributed is not None:
            _join(config)
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        missed = isinstance(error, jax.errors.JaxRuntimeError) and any(
            word in str(error) for word in _MISSED
        )
        atexit.register(_leave, 2 if missed else _status(error))
        if not missed:
            raise
        raise FnnError(
            f"process {jax.process_index()} cannot reach another of the {jax.process_count()}: it "
            "has ended, or the network between them; see what it said last, then start all of them "
            f"again ({str(error).splitlines()[0]})"
        ) from error


def is_first() -> bool:
    """Whether this is the process that writes the run folder and speaks for all."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; every process must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def from_first(text: str) -> str:
    """Return what the first process says, a text of up to 4096 bytes; every process must ask."""
    if jax.process_count() == 1:
        return text
    said = np.frombuffer(text.encode().ljust(_TEXT, b"\0"), np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(said)).tobytes().rstrip(b"\0").decode()


def _join(config: Config) -> None:
    asked, where = config.distributed, config.where("distributed")
    assert asked is not None
    if asked.index is not None and asked.processes is not None and asked.index >= asked.processes:
        raise ConfigError(
            f"{where}: distributed: index {asked.index} of {asked.processes} processes; "
            "the first has index 0"
        )
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    failure: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                asked.address,
                asked.processes,
                asked.index,
                initialization_timeout=asked.timeout + HEARTBEAT,
                heartbeat_timeout_seconds=HEARTBEAT,
            )
        except Exception as error:
            failure.append(error)

    # If the others do not come, JAX aborts the process. The main thread stops waiting before.
    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(asked.timeout)
    if thread.is_alive():
        raise FnnError(
            f"{where}: distributed: after {asked.timeout} s not all processes have met at "
            f"{asked.address or 'the address that the cluster gave'}; start all of them with the "
            "same address and number of processes, each with an index of its own"
        )
    if failure and isinstance(failure[0], ValueError):
        raise ConfigError(
            f"{where}: distributed: no cluster that JAX knows says the rest ({failure[0]}); write "
            "{address: host:port, processes: 2, index: 0}"
        ) from failure[0]
    if failure:
        raise FnnError(
            f"{where}: distributed: cannot start at {asked.address or 'the address given'}: "
            f"{failure[0]}"
        ) from failure[0]


def _status(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 2 if isinstance(error, FnnError) else 1


def _leave(status: int) -> None:
    """Exit without JAX's barrier, which runs at exit too, and after this."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
