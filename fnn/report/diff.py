"""Two runs side by side: what their configs and environments differ in, and their numbers.

Nothing but the folders' files is read. A run that was cut short has fewer of them; what it has is
compared, and `Diff.problems` says what it lacks.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..config.source import flatten, read_yaml
from . import words
from .run import Epoch, Parts, read_epochs, read_object, read_summary

METRICS: dict[str, Callable[..., Any]] = {
    "train_loss": min,
    "test_loss": min,
    "test_accuracy": max,
}
"""The numbers of an epoch, and which of them is the best."""
EPOCHS_SHOWN = 10

Sides = dict[str, Any]
"""What a run says, under "a" and under "b"; the run that does not say it has no entry."""


class Table(NamedTuple):
    """Rows of text for a reader."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Diff:
    """Two runs side by side."""

    runs: Sides  # their folders, as text
    problems: dict[str, list[str]]  # under "a" and "b": what could not be read
    config: dict[str, Sides]  # by dotted key, where they differ
    environment: dict[str, Sides]  # by dotted key, where they differ
    summary: dict[str, Sides]  # the figures, alike or not
    metrics: dict[str, dict[str, Sides]]  # metric -> "last" and "best" -> {epoch, value}
    epochs: dict[int, dict[str, Sides]]  # epoch -> metric -> its value
    common_epochs: int
    first_difference: int | None  # the first of these in which a metric is not the same

    def as_json(self) -> dict[str, Any]:
        """Return it as an object for JSON; an epoch is an object of a list."""
        epochs = [{"epoch": epoch, **row} for epoch, row in self.epochs.items()]
        return {**asdict(self), "epochs": epochs}


@dataclass(frozen=True)
class _Run:
    """One run, as far as it is compared; a number that is not there or not finite is left out."""

    config: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any]
    epochs: dict[int, dict[str, float]]
    problems: dict[str, str]


def diff(a: Path, b: Path) -> Diff:
    """Compare two run folders.

    Raises FnnError for a folder that has none of config.yaml, metrics.jsonl and summary.json.
    """
    one, other = _read(a), _read(b)
    epochs = {
        epoch: _paired(one.epochs.get(epoch, {}), other.epochs.get(epoch, {}))
        for epoch in sorted({*one.epochs, *other.epochs})
    }
    common = [epoch for epoch in epochs if epoch in one.epochs and epoch in other.epochs]
    apart = (epoch for epoch in common if any(map(_differ, epochs[epoch].values())))
    return Diff(
        runs={"a": str(a), "b": str(b)},
        problems={"a": list(one.problems.values()), "b": list(other.problems.values())},
        config=_differing(one.config, other.config),
        environment=_differing(one.environment, other.environment),
        summary=_paired(one.summary, other.summary),
        metrics={m: _paired(_extremes(one, m), _extremes(other, m)) for m in METRICS},
        epochs=epochs,
        common_epochs=len(common),
        first_difference=next(apart, None),
    )


def _read(folder: Path) -> _Run:
    parts = Parts(folder)
    nothing: dict[str, Any] = {}
    no_rows: tuple[Epoch, ...] = ()
    rows = parts.read("metrics.jsonl", read_epochs, no_rows)
    run = _Run(
        config=parts.read("config.yaml", _read_config, nothing),
        environment=parts.read(
            "environment.json", lambda file: flatten(read_object(file)), nothing
        ),
        summary=parts.read("summary.json", _read_figures, nothing),
        epochs={row.epoch: _metrics(row) for row in rows},
        problems=parts.problems,
    )
    parts.check()
    return run


def _read_config(file: Path) -> dict[str, Any]:
    config, _ = read_yaml(file.read_text("utf-8"), file.name)
    if not isinstance(config, dict):
        raise ValueError(f"expected a mapping, got {type(config).__name__}")
    return flatten(config)


def _read_figures(file: Path) -> dict[str, Any]:
    """Return what summary.json says in one word or number."""
    return read_summary(file).model_dump(
        exclude={"classes", "x_shape", "layers"}, exclude_none=True
    )


def _metrics(row: Epoch) -> dict[str, float]:
    values = {metric: getattr(row, metric) for metric in METRICS}
    return {metric: value for metric, value in values.items() if words.finite(value)}


def _paired(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> dict[Any, Sides]:
    """Put two mappings side by side, the keys in their order."""
    sides = {"a": a, "b": b}
    keys = dict.fromkeys([*a, *b])
    return {key: {name: side[key] for name, side in sides.items() if key in side} for key in keys}


def _differing(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Sides]:
    """Return the pairs that differ; none where one of the files was not there to be compared."""
    pairs = _paired(a, b) if a and b else {}
    return {key: pair for key, pair in pairs.items() if _differ(pair)}


def _differ(pair: Sides) -> bool:
    # As text: 1, 1.0 and true are not the same value of a config.
    return len(pair) < 2 or json.dumps(pair["a"]) != json.dumps(pair["b"])


def _extremes(run: _Run, metric: str) -> dict[str, dict[str, Any]]:
    """Return the last and the best value of a metric, the earliest of equal ones."""
    rows = [
        {"epoch": epoch, "value": run.epochs[epoch][metric]}
        for epoch in sorted(run.epochs)
        if metric in run.epochs[epoch]
    ]
    best = METRICS[metric]
    return {"last": rows[-1], "best": best(rows, key=lambda row: row["value"])} if rows else {}


def tables(found: Diff) -> Iterator[Table]:
    """Lay a diff out for a reader, some of the epochs among it."""
    for title, pairs, text in (
        ("config: what differs", found.config, _exactly),
        ("environment: what differs", found.environment, _exactly),
        ("summary", found.summary, _rounded),
    ):
        if pairs:
            yield Table(title, ("", "A", "B"), [(k, *_both(pairs[k], text)) for k in pairs])
    if not found.epochs:
        return
    yield Table(
        "metrics: the last epoch's, and the best",
        ("", "last A", "last B", "best A", "best B"),
        [
            (m, *(t for which in ("last", "best") for t in _both(pairs.get(which, {}), _in_epoch)))
            for m, pairs in found.metrics.items()
        ],
    )
    shown = _shown(list(found.epochs))
    yield Table(
        f"{len(shown)} of {len(found.epochs)} epochs",
        ("epoch", *(f"{metric} {name}" for metric in METRICS for name in "AB")),
        [
            (str(e), *(t for m in METRICS for t in _both(found.epochs[e].get(m, {}), _rounded)))
            for e in shown
        ],
    )


def verdict(found: Diff) -> str:
    """Say in a sentence whether the metrics of the epochs that both runs have are the same."""
    if found.first_difference is not None:
        return f"the metrics differ from epoch {found.first_difference} on"
    if not found.common_epochs:
        return "the runs have no epoch in common"
    return f"in {words.plural(found.common_epochs, 'epoch')} of both, the metrics are the same"


def _shown(epochs: list[int]) -> list[int]:
    """Return epochs at equal distances, the first and the last among them."""
    count = min(EPOCHS_SHOWN, len(epochs))
    return [epochs[round(i * (len(epochs) - 1) / max(count - 1, 1))] for i in range(count)]


def _both(pair: Sides, text: Callable[[Any], str]) -> Iterator[str]:
    return (text(pair[name]) if name in pair else words.MISSING for name in "ab")


def _exactly(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rounded(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else _exactly(value)


def _in_epoch(best: Sides) -> str:
    return f"{best['value']:.6g} (epoch {best['epoch']})"
