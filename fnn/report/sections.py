"""The content of each section of a run's page, or the clause that says why it is left out."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .. import text
from ..metrics import METRICS
from . import charts, comparison, pictures
from .predictions import Confusion, class_name, confusion, true_class_output, wilson
from .run import Array, Epoch, NonFinite, Predictions, RunFolder, metric_text, spread

_MOST_EXAMPLES = 24
_MOST_POINTS = 2000
_MOST_EPOCH_ROWS = 100

_STATUS_NOTES = {
    "converged": "Training stopped by itself: the loss no longer changed.",
    "early_stopped": "Training stopped by itself: the metric it watched got no better.",
    "interrupted": "Training was interrupted: this page shows what was done until then; "
    "fnn resume continues.",
    "diverged": "Training diverged: the loss is no longer a finite number. "
    "A smaller learning rate is the first thing to try.",
    "unfinished": "The run has no readable summary, so it has not ended or was cut short: "
    "this page shows what was done until then.",
}
_GRADIENTS = {
    "manual": "hand-written rules",
    "autodiff": "automatic differentiation",
    "backprop": "explicit backpropagation",
}


class Fact(NamedTuple):
    """A number of the headline, with a remark in small print."""

    name: str
    value: str
    remark: str = ""


class Verdict(NamedTuple):
    """The headline of a run."""

    headline: str
    measure: str
    interval: str
    status: str
    note: str
    facts: tuple[Fact, ...]


class Curves(NamedTuple):
    """Loss and accuracy by epoch; a chart is None where it has no finite value."""

    loss: charts.Chart | None
    accuracy: charts.Chart | None
    gap: str
    rows: list[Epoch]
    total: int


class Example(NamedTuple):
    """One badly classified image."""

    source: str
    true: str
    predicted: str
    doubt: str
    loss: str
    number: int


class Gallery(NamedTuple):
    """The test images of largest loss, the worst first."""

    examples: tuple[Example, ...]
    ink: bool  # drawn as ink on the page, not in colours of its own
    measure: str  # the name of the number in `doubt`: p, output, or empty
    wrong: int


class Plane(NamedTuple):
    """Test examples that are points of the plane."""

    scatter: charts.Scatter
    classes: tuple[tuple[int, str], ...]  # number and name of those in the plot
    total: int
    wrong: int


class Gradients(NamedTuple):
    """The hand-written gradient against automatic differentiation."""

    agreement: comparison.Agreement | None
    time: comparison.Price | None
    memory: comparison.Price | None
    loss: str  # the losses' relative difference; empty where it was not measured


def verdict(run: RunFolder) -> Verdict:
    """Return the headline from the run's own summary, or from its last epoch without one."""
    summary, last = run.summary, run.epochs[-1] if run.epochs else Epoch(epoch=0, scores={})
    accuracy = _first(summary.test_accuracy, last.scores["test_accuracy"])
    loss = _first(summary.test_loss, last.scores["test_loss"])
    status = summary.status or "unfinished"
    interval = ""
    if accuracy is not None and 0 <= accuracy <= 1 and summary.test_examples:
        right = round(accuracy * summary.test_examples)
        low, high = wilson(right, summary.test_examples)
        interval = (
            f"{right:,} of {summary.test_examples:,} right; "
            f"95 % interval {100 * low:.1f} to {text.percent(high)}"
        )
    classifies = text.finite(accuracy)
    name, value = ("test_accuracy", accuracy) if classifies else ("test_loss", loss)
    return Verdict(
        headline=metric_text(name, value),
        measure=METRICS[name].label,
        interval=interval,
        status=status,
        note=f"{_STATUS_NOTES.get(status, '')} {_nonfinite(summary.first_nonfinite)}".strip(),
        facts=_facts(run, last, loss if classifies else None),
    )


def _first(*values: float | None) -> float | None:
    """Return the first value that is not None."""
    return next((value for value in values if value is not None), None)


def _nonfinite(first: NonFinite | None) -> str:
    if first is None:
        return ""
    return (
        f"The first value that was not finite: {first.place or 'the loss'}, in step {first.step} "
        f"of epoch {first.epoch}; fnn replay shows that step."
    )


def _facts(run: RunFolder, last: Epoch, test_loss: float | None) -> tuple[Fact, ...]:
    """Return the facts beside the headline; a fact without a value is left out."""
    summary, environment = run.summary, run.environment
    epochs = _first(summary.epochs, len(run.epochs))
    steps = summary.steps if summary.steps is not None else last.step
    seconds = _first(summary.seconds, last.seconds)
    first, batch = summary.seconds_to_first_step, summary.batch_size
    gradient = summary.gradient or ""
    return present(
        Fact("Test loss", text.number(test_loss), summary.loss or ""),
        Fact("Epochs", text.count(epochs), _steps(steps, summary.skipped_steps)),
        Fact(
            "Time",
            text.duration(seconds),
            f"first step after {text.duration(first)}" if text.finite(first) else "",
        ),
        Fact(
            "Parameters",
            text.count(summary.parameters),
            f"in {text.plural(len(summary.layers), 'layer')}" if summary.layers else "",
        ),
        Fact(
            "Trained on",
            text.count(summary.train_examples),
            f"examples, {batch:,} per step" if batch is not None else "examples",
        ),
        Fact("Device", str(environment.get("device", text.MISSING)), _cores(environment)),
        Fact("Gradient", _GRADIENTS.get(gradient, gradient)),
    )


def present(*facts: Fact) -> tuple[Fact, ...]:
    """Return the facts that have a value."""
    return tuple(fact for fact in facts if fact.value not in ("", text.MISSING))


def _steps(steps: int | None, skipped: int | None) -> str:
    if not steps:
        return ""
    return text.plural(steps, "step") + (f", {skipped:,} of them skipped" if skipped else "")


def _cores(environment: Mapping[str, object]) -> str:
    cores = environment.get("cpu_count")
    return text.plural(cores, "core") if isinstance(cores, int) else ""


def curves(run: RunFolder) -> Curves | str:
    """Return the learning curves. Losses that are null, NaN or infinite leave gaps."""
    if not run.epochs:
        return why(run, "metrics.jsonl")
    epochs = np.array([epoch.epoch for epoch in run.epochs], float)
    losses, accuracies = (
        [(s, np.array([e.scores[f"{s}_{name}"] for e in run.epochs], float)) for s in splits]
        for name, splits in (("loss", ("train", "test")), ("accuracy", ("test",)))
    )
    bad = epochs[~np.isfinite([values for _, values in losses]).all(0)]
    return Curves(
        loss=charts.line_chart(epochs, losses),
        accuracy=charts.line_chart(epochs, accuracies, percent=True, mark=True),
        gap=f"A loss was not a finite number in {text.plural(len(bad), 'epoch')}, "
        f"first in epoch {bad[0]:.0f}."
        if len(bad)
        else "",
        rows=spread(run.epochs, _MOST_EPOCH_ROWS),
        total=len(run.epochs),
    )


def confusion_matrix(run: RunFolder) -> Confusion | str:
    """Return the test predictions counted by true and predicted class."""
    if run.predictions is None or not len(run.predictions.y_true):
        return why(run, "predictions.npz")
    return confusion(run.predictions, run.summary.classes)


def examples(run: RunFolder) -> Gallery | Plane | str:
    """Return the test examples of largest loss, as pictures or as points of the plane."""
    p = run.predictions
    if p is None or not len(p.y_true):
        return why(run, "predictions.npz")
    if not len(p.worst_index):
        return "the run kept no examples"
    losses = np.nan_to_num(p.loss[p.worst_index].astype(float), nan=np.inf)  # NaN is the worst
    order = np.argsort(-losses, kind="stable")
    x_shape = p.worst_x.shape[1:]
    if pictures.image_shape(x_shape):
        return _gallery(run, p, order[:_MOST_EXAMPLES])
    if x_shape == (2,):
        return _plane(run, p, order[:_MOST_POINTS])
    return f"an example is an array of shape {text.shape(x_shape, ' × ')}, which has no picture"


def _gallery(run: RunFolder, p: Predictions, order: Array) -> Gallery:
    index = p.worst_index[order]
    images = pictures.example_pictures(p.worst_x[order])
    classes, output = run.summary.classes, true_class_output(p, run.summary.loss or "")
    examples = tuple(
        Example(
            source=image,
            true=class_name(classes, p.y_true[i]),
            predicted=class_name(classes, p.y_pred[i]),
            doubt=f"{output[0]} = {output[1][i]:.2g}" if output else "",
            loss=text.number(float(p.loss[i])),
            number=int(i),
        )
        for i, image in zip(index, images, strict=True)
    )
    ink = p.worst_x.shape[3:] != (3,)
    wrong = int((p.y_true[index] != p.y_pred[index]).sum())
    return Gallery(examples, ink, output[0] if output else "", wrong)


def _plane(run: RunFolder, p: Predictions, order: Array) -> Plane | str:
    points = p.worst_x[order].astype(float)
    order, points = order[np.isfinite(points).all(1)], points[np.isfinite(points).all(1)]
    if not len(points):
        return "no kept example has finite coordinates"
    index, classes = p.worst_index[order], run.summary.classes
    true, predicted = p.y_true[index].tolist(), p.y_pred[index].tolist()
    labels = [
        f"example {i}: true {class_name(classes, t)}, predicted {class_name(classes, q)}, "
        f"loss {text.number(float(p.loss[i]))}"
        for i, t, q in zip(index, true, predicted, strict=True)
    ]
    return Plane(
        scatter=charts.scatter(points, true, predicted, labels),
        classes=tuple((i, class_name(classes, i)) for i in sorted({*true, *predicted})),
        total=len(p.y_true),
        wrong=sum(t != q for t, q in zip(true, predicted, strict=True)),
    )


def filters(run: RunFolder) -> pictures.Filters | str:
    """Return the first layer's weights as pictures, where the inputs are images."""
    if not run.parameters:
        return why(run, "parameters.npz")
    return pictures.first_layer_filters(run.parameters, run.summary.x_shape)


def gradients(run: RunFolder) -> Gradients | str:
    """Return the comparison with automatic differentiation."""
    measured = run.comparison
    if measured is None:
        return why(run, "comparison.json")
    loss = measured.loss_relative_difference
    dtypes = [str(w.dtype) for w in run.parameters.values() if w.dtype.kind == "f"]
    return Gradients(
        agreement=comparison.agreement(measured, dtypes[0] if dtypes else "float32"),
        time=comparison.step_time(measured),
        memory=comparison.temporary_memory(measured),
        loss="" if loss is None else text.number(loss),
    )


def environment(run: RunFolder) -> list[tuple[str, str]] | str:
    """Return rows of a readable name and a value."""
    rows = [(name.replace("_", " "), _plain(value)) for name, value in run.environment.items()]
    return rows or why(run, "environment.json")


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)


def why(run: RunFolder, file: str) -> str:
    """Return a clause that says why a file has nothing to show."""
    return run.problems.get(file, f"{file} is empty")
