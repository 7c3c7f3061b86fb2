"""Does cross-entropy learn handwritten digits faster and better than squared error?

    python experiments/squared_error_vs_cross_entropy.py [--seeds 5] [--out FOLDER] [--choose]

Two arms of configs/digits_mlp.yaml that differ in the loss alone: both end in a softmax, both
train with Adam under the same cosine schedule, and a seed gives both the same first weights and
the same order of examples. Behind a softmax, squared error's gradient vanishes where the network
is confidently wrong (the softmax's slope is in it); cross-entropy's is output minus target.

Each arm has the initial learning rate that is best for it. `--choose` shows how it was chosen:
a quarter of the training split is held out, every rate of RATES is tried over the seeds, and
the one with the highest held-out accuracy, averaged over epochs and seeds, is taken: a measure
that rewards learning fast as well as ending well. The test split has no part in it.

Faster: fewer epochs until the test accuracy first reaches TARGET. Better: a higher test accuracy
after the last epoch. Each must hold in the median and in four of five seeds.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from study import Arm, Part, column, draw_curves, draw_pairs, held_out, judge, run_arm, write

CLAIM = "On handwritten digits, cross-entropy learns faster and better than squared error."
NAME = Path(__file__).stem
CONFIG = Path(__file__).parents[1] / "configs" / "digits_mlp.yaml"
HIDDEN = "flatten, {dense: {features: 256, w_init: he_normal}}, relu"
MODEL = f"[{HIDDEN}, {{dense: {{features: 10}}}}, softmax]"
RATE = "optimizer.adam.learning_rate.cosine_decay_schedule.init_value"
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
TARGET = 0.97


LOSSES = {"cross-entropy": "categorical_cross_entropy", "squared error": "squared_error"}


def with_rate(name: str, rate: float) -> Arm:
    """Return the arm of this name, at this initial learning rate."""
    return Arm(name, (f"model={MODEL}", f"loss={LOSSES[name]}", f"{RATE}={rate}"))


ARMS = (with_rate("cross-entropy", 0.01), with_rate("squared error", 0.01))


def choose(seeds: int, out: Path, overrides: list[str]) -> None:
    """Print the held-out accuracy of every rate, for either loss."""
    runs = out / "choosing"
    for name in LOSSES:
        for rate in RATES:
            arm = with_rate(name, rate)
            rows = run_arm(CONFIG, arm, seeds, runs, overrides=overrides, data=held_out)
            held = column(rows, "test_accuracy")
            print(
                f"{name}, rate {rate}: held-out accuracy {held.mean():.4f} over all epochs, "
                f"{np.median(held[:, -1]):.4f} after the last"
            )


def epochs_to_target(accuracy: np.ndarray) -> list[float]:
    """Count epochs until a run's accuracy reaches TARGET; one more than there were if never."""
    reached = np.column_stack([accuracy >= TARGET, np.ones(len(accuracy), bool)])
    return [int(first) + 1 for first in reached.argmax(1)]


def judge_claim(accuracy: dict[str, np.ndarray]) -> list[Part]:
    """Judge both halves of the claim on test accuracies (seeds, epochs)."""
    epochs = {name: epochs_to_target(values) for name, values in accuracy.items()}
    final = {name: values[:, -1].tolist() for name, values in accuracy.items()}
    return [
        judge(f"faster: fewer epochs to {TARGET:.0%} test accuracy", epochs, larger=False),
        judge("better: higher test accuracy after the last epoch", final, larger=True),
    ]


def draw(accuracy: dict[str, np.ndarray], parts: list[Part]) -> Figure:
    """Draw the curves of the test error, and beside them the numbers that are judged."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    curves, epochs, final = figure.subplots(1, 3, width_ratios=(5, 3, 3))
    draw_curves(curves, {name: 100 * (1 - values) for name, values in accuracy.items()})
    curves.axhline(100 * (1 - TARGET), color="0.5", lw=0.8, ls="--")
    curves.set(yscale="log", xlabel="epoch", ylabel="test error, %")
    curves.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}")
    curves.yaxis.set_minor_locator(NullLocator())
    curves.legend(title="median and range over seeds", frameon=False)
    draw_pairs(epochs, parts[0].values)
    epochs.set(ylabel=f"epochs to {TARGET:.0%} test accuracy")
    draw_pairs(final, {n: [100 * v for v in values] for n, values in parts[1].values.items()})
    final.set(ylabel="final test accuracy, %")
    for axes, word, part in zip((epochs, final), ("faster", "better"), parts, strict=True):
        axes.set_title(f"{word}: {'holds' if part.holds else 'fails'}")
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Run the study, or choose its learning rates."""
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs") / "studies" / NAME)
    parser.add_argument("--choose", action="store_true", help="try learning rates instead")
    parser.add_argument("overrides", nargs="*", help="changes to the config: train.epochs=2")
    options = parser.parse_args(arguments)
    if options.choose:
        choose(options.seeds, options.out, options.overrides)
        return
    accuracy = {}
    for arm in ARMS:
        runs = run_arm(
            CONFIG, arm, options.seeds, options.out / "runs", overrides=options.overrides
        )
        accuracy[arm.name] = column(runs, "test_accuracy")
    parts = judge_claim(accuracy)
    write(options.out, CLAIM, ARMS, parts, draw(accuracy, parts))
    print((options.out / "result.md").read_text())


if __name__ == "__main__":
    main()
