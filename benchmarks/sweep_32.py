"""A sweep of learning rates in one program against as many runs, one process after another.

    python benchmarks/sweep_32.py [--runs 32] [--processes 32]

Both are whole processes of the command line, from its start to the report, with configs/
digits_mlp.yaml as it is and the same learning rates. With fewer `--processes` than runs, some of
the runs are timed, spread evenly, and the time of all is put down as so many times their mean.

Prints the times, their ratio, and whether the final losses rank the learning rates alike; exits
with status 1 where the sweep takes more than a quarter of the time, or they do not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time

import numpy as np

CONFIG = "configs/digits_mlp.yaml"
RATE = "optimizer.adam.learning_rate.cosine_decay_schedule.init_value"
LOW, HIGH = "1e-5", "1"
BAR = 0.25


def fnn(*words):
    """Run the command; return its seconds and the JSON it prints."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "fnn", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if not done.stdout:
        sys.exit(done.stderr)
    return seconds, json.loads(done.stdout)


def main():
    """Time both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=32)
    parser.add_argument("--processes", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates = f"{RATE}={LOW}..{HIGH}:log:{options.runs}"
        swept, summary = fnn("sweep", CONFIG, rates, "--runs", folder)
        with open(f"{summary['run']}/results.jsonl") as file:
            results = [json.loads(line) for line in file]
        print(
            f"sweep: {len(results)} runs, {summary['programs']} program, {swept:.1f} s", flush=True
        )
        chosen = (
            np.linspace(0, options.runs - 1, min(options.processes, options.runs))
            .round()
            .astype(int)
        )
        alone, seconds = [], []
        for i in chosen:
            rate = results[i]["values"][RATE]
            took, one = fnn("run", CONFIG, f"{RATE}={rate}", "--runs", folder)
            alone.append(one["test_loss"])
            seconds.append(took)
            print(f"run: {rate:<10g} {took:5.1f} s  {one['test_loss']:.6f}", flush=True)
    together = [results[i]["test_loss"] for i in chosen]
    ratio = swept / (np.mean(seconds) * options.runs)
    alike = np.argsort(alone).tolist() == np.argsort(together).tolist()
    largest = np.max(np.abs(np.divide(together, alone) - 1))
    print(f"one after another: {np.mean(seconds) * options.runs:.1f} s ({len(chosen)} timed)")
    print(f"sweep / runs: {ratio:.3f} (the bar: {BAR})")
    print(f"same ranking: {alike}; losses differ by {largest:.1e} relative at most")
    sys.exit(0 if alike and ratio <= BAR else 1)


if __name__ == "__main__":
    main()
