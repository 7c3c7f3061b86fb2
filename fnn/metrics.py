"""The metrics of a training, one row per metric: name, function, direction and format.

A new metric is one row of METRICS and its name in `MetricName`; configs/schema.json is then
written again. Rows of metrics.jsonl, summaries, sweeps, `fnn diff`, tables of reports and progress
follow the table; headlines keep naming the loss and the accuracy.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

MetricName = Literal["train_loss", "test_loss", "test_accuracy"]
"""The names of METRICS, as the type that a config is checked against."""


@dataclass(frozen=True)
class Metric:
    """One number per epoch.

    `measure(evaluation, labels)` returns it for an evaluated test split; None where training
    itself adds it up. `form` is its format in a terminal, such as `.4f` or `.2%`.
    """

    name: MetricName
    measure: Callable[[Any, Any], float] | None = None
    larger_is_better: bool = False
    form: str = ".4f"

    @property
    def label(self) -> str:
        """The name in words: `test accuracy`."""
        return self.name.replace("_", " ")

    @property
    def percent(self) -> bool:
        """Whether it is a fraction, shown as a percentage."""
        return self.form.endswith("%")

    def text(self, value: float) -> str:
        """Return the label and the value, as a terminal shows them: `test accuracy 98.33%`."""
        return f"{self.label} {value:{self.form}}"

    def cost(self, value: float | None) -> float:
        """Return a number that is smaller for a better model, and infinite without a finite value.

        Every choice between epochs, runs or checkpoints minimises it.
        """
        if value is None or not math.isfinite(value):
            return math.inf
        return -value if self.larger_is_better else value


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("train_loss"),
        Metric("test_loss", lambda evaluation, labels: evaluation.loss()),
        Metric(
            "test_accuracy",
            lambda evaluation, labels: evaluation.accuracy(labels),
            larger_is_better=True,
            form=".2%",
        ),
    )
}


def measured(evaluation: Any, labels: Any) -> dict[str, float]:
    """Return the metrics of an evaluated test split by name."""
    return {m.name: m.measure(evaluation, labels) for m in METRICS.values() if m.measure}
