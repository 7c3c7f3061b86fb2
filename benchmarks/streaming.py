"""The time of one training step on streamed data, against the same step on resident data.

    python benchmarks/streaming.py [--json] [--threads N] [--rounds N]

The job: 784-512-512-10, relu, softmax cross-entropy, batches of 128, plain SGD; 65,536 examples,
205 MB as float32, in files of a temporary folder which the system's cache holds. The variants:

    resident           all data on the device, up to 256 steps a call
    streamed           four shards of float32, `arrays` and its prefetch, up to 64 MiB a call
    streamed, uint8    the same as pixels, which are divided by 255 on the way
    streamed, alone    without training: only what reading takes

A time is that of a whole epoch, the reading of the first call included, over its 512 steps. All
variants run once a round, in random order; a ratio is the median, with quartiles, of the rounds'
own ratios.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rounds import Timer, cores, interleave, ratio, show_ratios

EXAMPLES, INPUTS, HIDDEN, CLASSES, BATCH = 65_536, 784, 512, 10, 128
STEPS = EXAMPLES // BATCH
RATE = 0.1
SHARDS = 4


def write(folder: Path, dtype: type) -> None:
    """Write the examples of both splits, in shards, as `dtype`."""
    rng = np.random.default_rng(0)
    for k in range(SHARDS):
        pixels = rng.integers(256, size=(EXAMPLES // SHARDS, INPUTS), dtype=np.uint8)
        x = pixels if dtype == np.uint8 else pixels.astype(np.float32) / np.float32(255)
        y = rng.integers(CLASSES, size=len(x))
        for key, array in (("x_train", x), ("y_train", y), ("x_test", x[:1]), ("y_test", y[:1])):
            np.save(folder / f"{key}-{k:05}-of-{SHARDS:05}.npy", array)


def timers(folders: dict[str, Path]) -> dict[str, Timer]:
    """Return what trains an epoch of each variant."""
    import jax
    import optax

    from fnn import ops
    from fnn.data import arrays
    from fnn.layers import Activation, Dense, Serial
    from fnn.loss import LOSSES
    from fnn.train import init, make_feed, make_steps, make_update, order
    from fnn.train.feed import STEPS, steps_per_call

    relu = Activation(ops.relu)
    model = Serial([Dense(HIDDEN), relu, Dense(HIDDEN), relu, Dense(CLASSES)])
    optimizer = optax.sgd(RATE)
    steps = make_steps(make_update(model, LOSSES["softmax_cross_entropy"](), optimizer))
    batches = np.asarray(order(0, 1, EXAMPLES)).reshape(-1, BATCH)

    def cuts(most):
        return (batches[i : i + most] for i in range(0, STEPS, most))

    def epoch(data, most):
        feed = make_feed(data.x_train, data.y_train)
        state = init(model, optimizer, (BATCH, INPUTS), seed=0)

        def timer():
            nonlocal state
            start = time.perf_counter()
            for _, x, labels, indices in feed.chunks(cuts(most)):
                state, loss = steps(state, x, labels, indices)
                float(loss)
            return (time.perf_counter() - start) / STEPS

        timer()  # which compiles
        return timer

    def alone(data, most):
        feed = make_feed(data.x_train, data.y_train)

        def timer():
            start = time.perf_counter()
            for call in feed.chunks(cuts(most)):
                jax.block_until_ready(call.x)
            return (time.perf_counter() - start) / STEPS

        return timer

    most = steps_per_call(BATCH * INPUTS * 4, STEPS)
    return {
        "resident": epoch(arrays(folder=str(folders["float32"]), stream=False), STEPS),
        "streamed": epoch(arrays(folder=str(folders["float32"])), most),
        "streamed, uint8": epoch(arrays(folder=str(folders["uint8"])), most),
        "streamed, alone": alone(arrays(folder=str(folders["float32"])), most),
    }


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--threads", type=int, help="cores to use; all by default")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    if arguments.threads:  # before jax is imported and counts the cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    with tempfile.TemporaryDirectory() as parent:
        folders = {}
        for dtype in (np.float32, np.uint8):
            folder = folders[dtype.__name__] = Path(parent, dtype.__name__)
            folder.mkdir()
            write(folder, dtype)
        seconds = interleave(timers(folders), arguments.rounds)
    from fnn.runs.folder import environment

    names = ("device", "python", "jax", "jaxlib", "optax", "numpy")
    results: dict[str, Any] = {
        "environment": {k: v for k, v in environment(0).items() if k in names} | {"cores": cores()},
        "us_per_step": {name: 1e6 * statistics.median(t) for name, t in seconds.items()},
        "ratios": [
            ratio(seconds, name, "resident") for name in seconds if name.startswith("streamed")
        ],
    }
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    print(", ".join(f"{k} {v}" for k, v in results["environment"].items()))
    print(f"\n784-512-512-10, batch {BATCH}\n")
    for name, us in results["us_per_step"].items():
        print(f"  {name:24}{us:9.1f} µs a step")
    print()
    show_ratios(results["ratios"], 40, 3)


if __name__ == "__main__":
    main()
