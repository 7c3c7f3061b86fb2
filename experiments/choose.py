"""Choose hyperparameters: try values on a part of the training split, never on the test split.

    python experiments/choose.py configs/digits_mlp.yaml \\
        model.1.dense.features=64,128,256 train.batch_size=16,32 --seeds 3

Every combination of the values trains on three quarters of the training split and is judged on
the last quarter, by the median accuracy over the seeds. The best come first.
"""

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path

from study import Arm, held_out, run_arm


def combinations(grid: list[str]) -> list[tuple[str, ...]]:
    """Return every combination of `key=a,b,c` grids as overrides: `("key=a", ...)`."""
    keys = [entry.partition("=")[0] for entry in grid]
    values = [entry.partition("=")[2].split(",") for entry in grid]
    return [
        tuple(f"{k}={v}" for k, v in zip(keys, chosen, strict=True))
        for chosen in itertools.product(*values)
    ]


def main() -> None:
    """Try all combinations and print them, the best first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("grid", nargs="+", help="key=value,value,...")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as runs:
        for overrides in combinations(options.grid):
            arm = Arm("trial", overrides)
            rows = run_arm(options.config, arm, options.seeds, Path(runs), data=held_out)
            accuracies = [run[-1]["test_accuracy"] for run in rows]
            results.append((statistics.median(accuracies), min(accuracies), overrides))
    print("median   worst   on the held-out quarter of the training split")
    for median, worst, overrides in sorted(results, reverse=True):
        print(f"{median:.2%}  {worst:.2%}  {' '.join(overrides)}")


if __name__ == "__main__":
    main()
