"""One process of two: `python -m tests.one_process FILE INDEX RUNS`.

It trains by the command. SIGTERM stops process 1 in the third epoch; both resume, and SIGKILL ends
process 1 in the fifth.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np

from fnn.cli import app, experiment
from fnn.config import Config, load
from fnn.errors import FnnError
from fnn.runs.prepare import prepare
from fnn.train import distributed
from fnn.train.mesh import place


def agree(config: Config) -> None:
    """Print the rows of a batch in this process, and check that the processes communicate."""
    run = prepare(config)
    placement = place(config, run.model, run.x_shape)
    assert distributed.any_process(jax.process_index() == 1)
    assert not distributed.any_process(False)
    print("first says", distributed.from_first(f"process {jax.process_index()}"))
    rows, x = placement.rows(32), np.asarray(run.data.x_train[:32])
    print("rows", rows[0], rows[-1], len(rows))
    total = jax.jit(lambda x: x.sum(), out_shardings=placement.sharding())
    actual = float(total(placement.batches(x[None, rows], 32)))
    np.testing.assert_allclose(actual, x.sum(), rtol=1e-5)


def send_later(runs: str, number: int, epochs: int) -> None:
    """Send this process a signal once `epochs` epochs are recorded."""

    def watch():
        files = []
        while not files or len(files[0].read_text().splitlines()) < epochs:
            time.sleep(0.05)
            files = list(Path(runs).glob("*/*/metrics.jsonl"))
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, daemon=True).start()


def run_command(*words: str) -> None:
    """Run the command among the connected processes; print its exit status."""
    status = 0
    try:
        app([*words, "--json"], standalone_mode=False)
    except SystemExit as end:
        status = end.code
    print("ended", status, flush=True)


def main(file: str, index: str, runs: str) -> None:
    """Join the other process, run the command and resume the run."""
    distributed.HEARTBEAT = 5
    own = f"distributed.index={index}"
    config = load(file, [own])
    experiment.keep_libraries_off_stdout()
    with distributed.joined(config):
        agree(config)
        distributed.joined = lambda config: contextlib.nullcontext()
        experiment.keep_libraries_off_stdout = lambda: None
        if index == "1":
            send_later(runs, signal.SIGTERM, 2)
        # Both must agree on the best epoch.
        run_command("run", file, own, "train.epochs=9999", "checkpoint.keep_best=1", "--runs", runs)
        if index == "1":
            send_later(runs, signal.SIGKILL, 4)
        run_command("resume", str(Path(runs, config.name)), own)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except FnnError as error:
        print("fnn:", error, file=sys.stderr)
        sys.exit(2)
