"""One process of several: `python -m tests.one_process CONFIG STEP`.

It trains on the config's text and prints what it finds. Process 1 kills itself after STEP.
"""

import os
import signal
import sys

import jax
import numpy as np

from fnn.config import Config, parse
from fnn.errors import FnnError
from fnn.train import distributed, init, make_steps, make_update, order, prepare
from fnn.train.mesh import place

STEPS = 30


def losses(config: Config, dies_after: int = -1):
    """Train for some steps; yield the loss of each."""
    run = prepare(config)
    placement = place(config, run.model, run.x_shape)
    state = placement.init(lambda: init(run.model, run.optimizer, run.x_shape, 0))
    data = placement.resident(run.data.x_train), placement.resident(run.data.y_train)
    update = placement.update(make_update(run.model, run.loss, run.optimizer))
    steps = make_steps(update, (placement.state(state), placement.sharding()))
    batches = np.asarray(order(0, 1, len(data[0])))[: 32 * STEPS].reshape(STEPS, 1, 32)
    for i, batch in enumerate(batches):
        state, loss = steps(state, *data, batch)
        yield float(loss[0])
        if i == dies_after and jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    assert placement.whole(state.params)["1_dense"]["w"].shape == (64, 16)


def agree(config: Config) -> None:
    """Print what this process holds of a batch, and what all say together."""
    run = prepare(config)
    placement = place(config, run.model, run.x_shape)
    assert distributed.any_process(jax.process_index() == 1)
    assert not distributed.any_process(False)
    print("first says", distributed.from_first(f"process {jax.process_index()}"))
    rows, x = placement.rows(32), np.asarray(run.data.x_train[:32])
    print("rows", rows[0], rows[-1], len(rows))
    total = jax.jit(lambda x: x.sum(), out_shardings=placement.sharding())
    got = float(total(placement.batches(x[None, rows], 32)))
    np.testing.assert_allclose(got, x.sum(), rtol=1e-5)


def main(text: str, dies_after: int) -> None:
    """Join the others and train."""
    distributed.HEARTBEAT = 5
    config = parse(text, "processes.yaml")
    with distributed.joined(config):
        for loss in losses(config, dies_after):
            print("loss", repr(loss), flush=True)
        agree(config)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except FnnError as error:
        print("fnn:", error, file=sys.stderr)
        sys.exit(2)
