"""What the training engine costs beside its compiled steps, on 784-512-512-10, batch 128.

    python -m benchmarks.engine_overhead

Three ways to take the same steps, in turn, a round of one epoch each:

    bare          the compiled calls of `fnn.train.make_steps` and nothing else
    engine        `fnn.runs.fit.Fit`: metrics, plain lines of progress, no checkpoint within
    checkpoints   the same with a checkpoint every 100 steps, in its thread

The evaluation at an epoch's end is a program of its own and stands in a row of its own.

What a checkpoint costs is less than rounds differ by. So calls of 100 steps are also taken in
pairs, one of each with a checkpoint, in an order that chance decides.
"""

import argparse
import contextlib
import dataclasses
import random
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from fnn.config import parse
from fnn.data import Dataset
from fnn.progress import Lines
from fnn.runs.checkpoint import Checkpoints
from fnn.runs.fit import Fit
from fnn.runs.prepare import Experiment, prepare
from fnn.train import make_steps, order
from fnn.train.feed import Position, cut_epoch

TEXT = """
name: engine_overhead
data: digits
model: [flatten, dense: {features: 512}, relu, dense: {features: 512}, relu, dense: {features: 10}]
loss: softmax_cross_entropy
optimizer: {adam: {learning_rate: 0.001}}
train: {epochs: 1000, batch_size: 128}
"""
EXAMPLES, TEST = 128 * 400, 1000
CHECKPOINTS = {"engine": "checkpoint: {seconds: 0}", "checkpoints": "checkpoint: {steps: 100}"}


def main() -> None:
    """Print seconds a round, medians, and their ratios to the bare steps of the same round."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pairs", type=int, default=300)
    options = parser.parse_args()
    rounds = options.rounds
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        fits = {name: stack.enter_context(fit(Path(scratch, name), name)) for name in CHECKPOINTS}
        bare = Bare(fits["engine"].experiment)
        seconds: dict[str, list[float]] = {
            "bare": [],
            **{name: [] for name in fits},
            "evaluate": [],
        }
        for i in range(rounds + 1):
            for name in sorted(seconds, reverse=bool(i % 2)):
                taken = round_of(name, bare, fits)
                if i:  # the first compiles
                    seconds[name].append(taken)
        print(f"784-512-512-10, batch 128, {EXAMPLES // 128} steps a round, {rounds} rounds")
        for name, times in seconds.items():
            ratios = [a / b for a, b in zip(times, seconds["bare"], strict=True)]
            median, low, high = statistics.median(ratios), min(ratios), max(ratios)
            print(
                f"{name:12} {1e3 * statistics.median(times):8.1f} ms a round   "
                f"{median:.3f} of bare ({low:.3f} to {high:.3f})"
            )
        with_one, without = pairs_of(fits["checkpoints"], options.pairs)
    ratios = [a / b for a, b in zip(with_one, without, strict=True)]
    error = 1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5  # of a median
    print(
        f"100 steps with a checkpoint and without, {options.pairs} pairs: "
        f"{1e3 * statistics.median(with_one):.1f} and {1e3 * statistics.median(without):.1f} ms, "
        f"median of the ratios {statistics.median(ratios):.4f} +- {error:.4f}"
    )


@contextlib.contextmanager
def fit(folder: Path, name: str):
    """Make a training on noise, whose folder and checkpoints are real."""
    folder.mkdir()
    prepared = prepare(parse(TEXT + CHECKPOINTS[name]))
    run = dataclasses.replace(prepared, data=noise(), batch_size=128)
    progress = Lines()
    progress.start(1000, run.steps_per_epoch, 0)
    with contextlib.closing(Checkpoints(folder / "checkpoints")) as saved:
        yield Fit(run, folder, saved, None, progress, lambda: 0)


def noise() -> Dataset:
    """Return noise in the shape of handwritten digits."""
    draw = np.random.default_rng(0)
    x, y = (draw.random((n, 784), np.float32) for n in (EXAMPLES, TEST))
    labels, others = (draw.integers(0, 10, n, np.int32) for n in (EXAMPLES, TEST))
    return Dataset("noise", x, labels, y, others, tuple("0123456789"))


class Bare:
    """The compiled calls of an epoch, and nothing else."""

    def __init__(self, run: Experiment) -> None:
        self.run, self.state, self.steps = run, run.init(), make_steps(run.update)
        self.data = jax.device_put((run.data.x_train, run.data.y_train))

    def epoch(self) -> None:
        """Take the steps of an epoch."""
        examples = np.asarray(order(0, 1, EXAMPLES))
        for batches in cut_epoch(examples, 128, 0, self.run.steps_per_call):
            self.state, losses = self.steps(self.state, *self.data, batches)
        jax.block_until_ready((self.state, losses))


def round_of(name: str, bare: Bare, fits: dict[str, Fit]) -> float:
    """Return the seconds that a round takes, until all is computed and written."""
    start = time.perf_counter()
    if name == "bare":
        bare.epoch()
    elif name == "evaluate":
        fits["engine"].evaluate()
    else:
        taking = fits[name]
        (history,) = taking.histories
        epoch = history.position.epoch
        taking._chunks = taking.chunks(history.position)
        while history.position.done < history.steps_per_epoch:
            taking._take_chunk([history])
        taking.checkpoints.wait()
        jax.block_until_ready(taking.state)
    taken = time.perf_counter() - start
    if name in fits:
        taking._leave_chunks()
        history.position = Position(epoch + 1)
    return taken


def pairs_of(fit: Fit, pairs: int) -> tuple[list[float], list[float]]:
    """Return the seconds of calls of 100 steps with a checkpoint, and of those without.

    They end when all is computed and the checkpoint is on the disk.
    """
    seconds: dict[bool, list[float]] = {True: [], False: []}
    (history,) = fit.histories
    chunk = next(fit.chunks(Position()))
    for i in range(pairs + 1):
        for saves in random.sample([True, False], 2):
            start = time.perf_counter()
            if saves:
                history.position = history.position.after(chunk.batches, np.zeros(len(chunk[0])))
                fit.save()
            np.asarray(fit.take(chunk, [history]))
            fit.checkpoints.wait()
            taken = time.perf_counter() - start
            if i:  # the first is warmed up
                seconds[saves].append(taken)
    return seconds[True], seconds[False]


if __name__ == "__main__":
    main()
