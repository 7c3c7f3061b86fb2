"""Kill training at random moments, resume it, and compare it with an uninterrupted run.

    python -m tests.kills --kills 200

Each variant is trained once without interruption. Then it is trained again, killed (SIGKILL) and
resumed repeatedly, often while it writes a checkpoint. After each kill the run folder must be
readable. At the end metrics, parameters, the layers' state and predictions must be bitwise equal to
those of the uninterrupted run.
"""

import argparse
import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from fnn.config import load, parse
from fnn.report import write_report
from fnn.runs import checkpoint
from fnn.runs.fit import resume, train
from fnn.runs.prepare import prepare
from fnn.sweep import Ready, plan_sweep, read_plan, sweep

from .runs import arrays, metrics

TEXT = """
name: killed
data: {moons: {points: 400}}
model: [dense: {features: 24}, batch_norm, relu, dropout: {rate: 0.3}, dense: {features: 2}]
loss: softmax_cross_entropy
optimizer: {adam: {learning_rate: 0.01}}
train: {epochs: 30, batch_size: 16}
"""
VARIANTS = {
    "many steps per call": "checkpoint: {steps: 7, keep_last: 3}",
    "one step per call": "checkpoint: {steps: 1, keep_best: 2}",
    "backprop, only the last checkpoint": "gradient: backprop\ncheckpoint: {seconds: 0}",
    "a sweep": "checkpoint: {steps: 7}",
}
AXES = ("model.3.dropout.rate=0.1,0.3", "seed=0..1", "optimizer.adam.learning_rate=0.01,1e38")


MOST = {"life": 5.0, "training": 1.0, "writing": 0.002}
"""Longest time from the beginning of a moment to the kill, in seconds."""


def main() -> int:
    """Kill the variants in turn; return 0 if every resumed run equals its reference."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    print(f"{options.kills} kills, seed {options.seed}", flush=True)
    kills = writing = 0
    names = itertools.cycle(VARIANTS)
    references: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as scratch:
        while kills < options.kills:
            name = next(names)
            if name not in references:
                references[name] = Path(tempfile.mkdtemp(dir=scratch))
                run_to_the_end(references[name], name)
            where = Path(tempfile.mkdtemp(dir=scratch))
            once = 0
            while kills < options.kills and once < 8:
                finished, in_writing = run_and_kill(where, name, chance)
                if finished:
                    break
                once, kills, writing = once + 1, kills + 1, writing + in_writing
                check_readable(where)
            run_to_the_end(where, name)
            for reference, run in zip(runs(references[name]), runs(where), strict=True):
                check_equal(reference, run)
            print(f"{name}: killed {once} times; {kills} in all; bitwise equal", flush=True)
    print(f"{kills} kills, {writing} of them during a checkpoint: every run resumed")
    return 0


def run_or_resume(where: Path, name: str) -> None:
    text = TEXT + VARIANTS[name]
    if name == "a sweep":
        config = where.parent / "sweep.yaml"
        config.write_text(text)
        exists = (where / "sweep.yaml").is_file()
        sweep(Ready(read_plan(where) if exists else plan_sweep(config, AXES)), where)
    elif (where / "config.yaml").is_file():
        resume(prepare(load(where / "config.yaml")), where)
    else:
        train(prepare(parse(text)), where)


def start(where: Path, name: str) -> int:
    """Train in a fork of this process, which has all its imports; return its id."""
    child = os.fork()
    if child:
        return child
    jax.config.update("jax_compilation_cache_dir", str(where.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    status = 1
    with contextlib.suppress(BaseException):
        try:
            run_or_resume(where, name)
            status = 0
        except BaseException as error:
            print(f"the child failed: {type(error).__name__}: {error}", flush=True)
    os._exit(status)


def run_to_the_end(where: Path, name: str) -> None:
    _, status = os.waitpid(start(where, name), 0)
    if status:
        raise SystemExit(f"{where}: training failed with status {status}")


def run_and_kill(where: Path, name: str, chance: random.Random) -> tuple[bool, bool]:
    """Kill a child at a random moment of its life, of its training or of its writing.

    Return whether it ended before that, and whether it was writing a checkpoint.
    """
    before = checkpoints(where)
    moment = chance.choice(("life", "training", "writing"))
    has_begun = {
        "life": lambda: True,
        "training": lambda: checkpoints(where) != before,
        "writing": lambda: is_writing(where),
    }[moment]
    child = start(where, name)
    for _ in wait(has_begun):
        if os.waitpid(child, os.WNOHANG)[0]:
            return True, False
    until = time.perf_counter() + chance.uniform(0, MOST[moment])
    for _ in wait(lambda: time.perf_counter() >= until):
        if os.waitpid(child, os.WNOHANG)[0]:
            return True, False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False, is_writing(where)


def wait(condition: Callable[[], bool]) -> Iterator[None]:
    """Yield until a condition holds."""
    while not condition():
        yield
        time.sleep(0.0002)


def checkpoints(where: Path) -> list[str]:
    """Return the names of all checkpoints; those of a sweep lie one folder deeper."""
    with contextlib.suppress(FileNotFoundError):  # one was removed meanwhile
        return sorted(path.name for path in (where / "checkpoints").rglob("*") if path.is_dir())
    return []


def runs(where: Path) -> list[Path]:
    return sorted((where / "runs").iterdir()) if (where / "runs").is_dir() else [where]


def is_writing(where: Path) -> bool:
    return any(name[0] == "." for name in checkpoints(where))


def check_readable(where: Path) -> None:
    """Check that every named checkpoint is complete, and that the report can be written."""
    files = list((where / "checkpoints").rglob("0.safetensors"))
    for folder in (path.parent for path in files if path.parent.name.isdigit()):
        checkpoint.read(folder)
        checkpoint.read_arrays(folder)
    for run in runs(where):
        if (run / "metrics.jsonl").is_file():
            metrics(run)
        if (run / "config.yaml").is_file():
            load(run / "config.yaml")
            write_report(run)


def check_equal(reference: Path, where: Path) -> None:
    for name in ("parameters.npz", "state.npz", "predictions.npz"):
        expected, actual = arrays(reference / name), arrays(where / name)
        assert set(expected) == set(actual)
        for key in expected:
            message = f"{where}: {name} {key}"
            np.testing.assert_array_equal(expected[key], actual[key], err_msg=message)
    assert metrics(where) == metrics(reference), f"{where}: metrics differ"


if __name__ == "__main__":
    sys.exit(main())
