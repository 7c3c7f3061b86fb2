"""Time one training step of a small convolutional network: fnn, Flax, Equinox, PyTorch eager.

    python benchmarks/step_small_cnn.py [--json] [--cores N ...] [--input NAME ...] [--rounds N]

The job: conv 32, relu, max_pool 2, conv 64, relu, max_pool 2, flatten, dense 128, relu, dense 10;
windows 3×3 with padding SAME, batches of 64 that are in memory (synthetic: a step's time does not
depend on the values), softmax cross-entropy, plain SGD. The variants:

    fnn step, fnn scan      `fnn.train.make_update` compiled by itself; `fnn.train.make_steps`
    autodiff step, scan     the same with JAX's derivatives of the definitions
    jax step                plain jax: lax.conv_general_dilated, reduce_window, jax.grad
    flax nnx, flax linen    a model as Flax's documentation writes it, optax.sgd, step compiled
    equinox                 a model as Equinox's documentation writes it, the same
    torch, torch last       PyTorch eager, torch.optim.SGD; memory as NCHW and as channels_last

Each variant runs in a process of its own, kept to the same cores, so that no library's threads
meet another's; one works at a time. In each round every variant takes some steps once, in a new
random order, so that a noisy moment of the machine meets them all. A time is the median over
rounds; a ratio is the median, with quartiles, of the rounds' own ratios. Above 1, fnn is faster.
A variant whose library is not installed is left out, and said so.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from contextlib import contextmanager
from functools import partial
from typing import Any

from rounds import cores, interleave, ratio, show_ratios
from small_cnn_variants import BATCH, VARIANTS

INPUTS = {"28x28x1": (28, 28, 1), "32x32x3": (32, 32, 3)}
PAUSE = 0.02
"""Seconds between two variants' turns, in which waiting threads fall asleep."""
BARS = {"torch": 1.0, "flax": 3.0, "equinox": 3.0}
OURS = ("fnn step", "fnn scan")


def work(pipe: Any, name: str, shape: tuple[int, ...], count: int) -> None:
    """Be one variant: compile, say so, and time a round whenever told to."""
    # before a library is imported and counts the cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    try:
        timer = VARIANTS[name](shape)
    except ModuleNotFoundError as error:
        pipe.send(f"{error.name} is not installed")
        return
    for _ in range(2):
        timer()
    pipe.send(None)
    while pipe.recv():
        pipe.send(timer())


@contextmanager
def workers(names: list[str], shape: tuple[int, ...], count: int) -> Any:
    """Start a process for each variant; give `{name: take a round}` and `{name: why it cannot}`."""
    context = multiprocessing.get_context("spawn")
    pipes, skipped, processes = {}, {}, []
    try:
        for name in names:
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, name, shape, count), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            reason = ours.recv()
            if reason is None:
                pipes[name] = ours
            else:
                skipped[name] = reason

        def turn(pipe):
            time.sleep(PAUSE)
            pipe.send(True)
            return pipe.recv()

        yield {name: partial(turn, pipe) for name, pipe in pipes.items()}, skipped
        for pipe in pipes.values():
            pipe.send(False)
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def judge(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Compare fnn with the faster form of each peer, and with JAX's derivatives."""
    median = {name: statistics.median(times) for name, times in seconds.items()}
    rows = []
    for ours in (name for name in OURS if name in seconds):
        for peer in ("torch", "flax", "equinox", "jax", "autodiff"):
            rivals = [name for name in seconds if name.startswith(peer)]
            if rivals:
                best = min(rivals, key=lambda name: median[name])
                row = ratio(seconds, best, ours)
                if peer in BARS:
                    row |= {"bar": BARS[peer], "met": row["median"] >= BARS[peer]}
                rows.append(row)
    return rows


def measure(name: str, count: int, rounds: int, variants: list[str]) -> dict[str, Any]:
    """Time the variants on inputs of one size, on so many cores."""
    with workers(variants, INPUTS[name], count) as (timers, skipped):
        seconds = interleave(timers, rounds)
    return {
        "input": name,
        "cores": count,
        "ms_per_step": {name: 1e3 * statistics.median(t) for name, t in seconds.items()},
        "skipped": skipped,
        "ratios": judge(seconds),
    }


def show(job: dict[str, Any]) -> None:
    """Print one job's times and ratios."""
    print(f"\nsmall_cnn, {job['input']}, batch {BATCH}, cores {job['cores']}\n")
    for name, ms in job["ms_per_step"].items():
        print(f"  {name:16}{ms:9.2f} ms a step")
    for name, reason in job["skipped"].items():
        print(f"  {name:16}left out: {reason}")
    print()
    show_ratios(job["ratios"], 28, 2)


def environment() -> dict[str, Any]:
    """Say what the times are of."""
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, Any] = {"system": platform.system(), "python": platform.python_version()}
    for package in ("jax", "jaxlib", "flax", "equinox", "optax", "torch", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def main() -> None:
    """Measure every size on every number of cores, and print tables or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--cores", type=int, nargs="+", default=sorted({1, cores()}))
    parser.add_argument("--input", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()

    results: dict[str, Any] = {"environment": environment(), "jobs": []}
    if not arguments.json:
        print(", ".join(f"{k} {v}" for k, v in results["environment"].items()))
    for name in arguments.input:
        for count in arguments.cores:
            results["jobs"].append(measure(name, count, arguments.rounds, arguments.variants))
            if not arguments.json:
                show(results["jobs"][-1])
    if arguments.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
