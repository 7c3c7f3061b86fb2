"""Two runs side by side: the differences of configs and environments, and the metrics.

Only the folders' files are read. A run that was cut short has fewer of them; those present are
compared, and `Diff.problems` names the others.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .. import text
from ..config.source import flatten, read_yaml
from ..metrics import METRICS
from .run import Epoch, Reader, read_epochs, read_object, read_summary, spread

EPOCHS_SHOWN = 10

Sides = dict[str, Any]
"""The values of two runs, under "a" and "b"; a run without the value has no entry."""


class Table(NamedTuple):
    """Rows of text for a reader."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Diff:
    """Two runs side by side."""

    runs: Sides  # their folders, as text
    problems: dict[str, list[str]]  # under "a" and "b": the files that cannot be read
    config: dict[str, Sides]  # by dotted key, where they differ
    environment: dict[str, Sides]  # by dotted key, where they differ
    summary: dict[str, Sides]  # the figures, alike or not
    metrics: dict[str, dict[str, Sides]]  # metric -> "last" and "best" -> {epoch, value}
    epochs: dict[int, dict[str, Sides]]  # epoch -> metric -> its value
    common_epochs: int
    first_difference: int | None  # the first common epoch in which a metric differs

    def as_json(self) -> dict[str, Any]:
        """Return it as an object for JSON; `epochs` is a list of one object per epoch."""
        epochs = [{"epoch": epoch, **row} for epoch, row in self.epochs.items()]
        return {**asdict(self), "epochs": epochs}


@dataclass(frozen=True)
class _Run:
    """The compared parts of one run; a number that is missing or not finite is left out."""

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
    reader = Reader(folder)
    no_rows: tuple[Epoch, ...] = ()
    run = _Run(
        config=reader.read("config.yaml", _read_config, {}),
        environment=reader.read("environment.json", lambda file: flatten(read_object(file)), {}),
        summary=reader.read("summary.json", _read_figures, {}),
        epochs={
            row.epoch: {name: v for name, v in row.scores.items() if text.finite(v)}
            for row in reader.read("metrics.jsonl", read_epochs, no_rows)
        },
        problems=reader.problems,
    )
    reader.check()
    return run


def _read_config(file: Path) -> dict[str, Any]:
    config, _ = read_yaml(file.read_text("utf-8"), file.name)
    if not isinstance(config, dict):
        raise ValueError(f"expected a mapping, got {type(config).__name__}")
    return flatten(config)


def _read_figures(file: Path) -> dict[str, Any]:
    """Return the entries of summary.json that are a word or a number."""
    return read_summary(file).model_dump(
        exclude={"classes", "x_shape", "layers"}, exclude_none=True
    )


def _paired(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> dict[Any, Sides]:
    """Put two mappings side by side, the keys in their order."""
    sides = {"a": a, "b": b}
    keys = dict.fromkeys([*a, *b])
    return {key: {name: side[key] for name, side in sides.items() if key in side} for key in keys}


def _differing(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Sides]:
    """Return the pairs that differ; none where one of the two files is missing."""
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
    if not rows:
        return {}
    return {"last": rows[-1], "best": min(rows, key=lambda row: METRICS[metric].cost(row["value"]))}


def tables(comparison: Diff) -> Iterator[Table]:
    """Lay out a comparison for a reader, with some of the epochs."""
    for title, pairs, write in (
        ("config: what differs", comparison.config, _exactly),
        ("environment: what differs", comparison.environment, _exactly),
        ("summary", comparison.summary, _rounded),
    ):
        if pairs:
            yield Table(title, ("", "A", "B"), [(k, *_both(pairs[k], write)) for k in pairs])
    if not comparison.epochs:
        return
    yield Table(
        "metrics: the last epoch's, and the best",
        ("", "last A", "last B", "best A", "best B"),
        [
            (m, *(t for which in ("last", "best") for t in _both(pairs.get(which, {}), _in_epoch)))
            for m, pairs in comparison.metrics.items()
        ],
    )
    rows = spread(list(comparison.epochs.items()), EPOCHS_SHOWN)
    yield Table(
        f"{len(rows)} of {len(comparison.epochs)} epochs",
        ("epoch", *(f"{metric} {name}" for metric in METRICS for name in "AB")),
        [
            (str(epoch), *(t for m in METRICS for t in _both(row.get(m, {}), _rounded)))
            for epoch, row in rows
        ],
    )


def verdict(comparison: Diff) -> str:
    """Return a sentence that says whether the metrics of the common epochs are the same."""
    if comparison.first_difference is not None:
        return f"the metrics differ from epoch {comparison.first_difference} on"
    if not comparison.common_epochs:
        return "the runs have no epoch in common"
    return f"in {text.plural(comparison.common_epochs, 'epoch')} of both, the metrics are the same"


def _both(pair: Sides, write: Callable[[Any], str]) -> Iterator[str]:
    return (write(pair[name]) if name in pair else text.MISSING for name in "ab")


def _exactly(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rounded(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else _exactly(value)


def _in_epoch(best: Sides) -> str:
    return f"{best['value']:.6g} (epoch {best['epoch']})"
