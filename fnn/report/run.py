"""The files of a run folder, read and checked one by one.

A run may be cut short. A file that is missing or damaged leaves its part empty, and
`RunFolder.problems` holds the reason for the page to show.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from .. import text
from ..errors import ConfigError, FnnError
from ..metrics import METRICS

Array = NDArray[np.generic]
Part = TypeVar("Part")

ESSENTIAL = ("config.yaml", "metrics.jsonl", "summary.json")
"""Every run has at least one of these."""

# Raised by readers of a file that is cut short, overwritten or of another kind.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    ConfigError,
)


class Record(BaseModel):
    """A JSON object whose every field may be missing; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Scores(Record):
    """A JSON object with one entry per metric, collected in `scores`."""

    scores: Mapping[str, float | None]

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, entries: Any) -> Any:
        if not isinstance(entries, dict):
            return entries
        return {**entries, "scores": {name: entries.get(name) for name in METRICS}}


class Epoch(Scores):
    """One line of metrics.jsonl. `seconds` counts from the start of training."""

    epoch: int
    step: int | None = None
    seconds: float | None = None


class Layer(Record):
    """One row of the layer table."""

    path: str
    layer: str
    output_shape: tuple[int, ...] = ()
    receptive_field: tuple[int, ...] = ()
    parameters: int = 0
    multiply_adds: int = 0


class NonFinite(Record):
    """Where the loss was first not finite; steps count from 0."""

    step: int
    epoch: int
    place: str | None = None


class Summary(Record):
    """summary.json: how the run ended, and the model it trained."""

    name: str | None = None
    status: str | None = None
    epochs: int | None = None
    steps: int | None = None
    skipped_steps: int | None = None
    train_loss: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    seconds_to_first_step: float | None = None
    seconds: float | None = None
    parameters: int | None = None
    gradient: str | None = None
    loss: str | None = None
    batch_size: int | None = None
    train_examples: int | None = None
    test_examples: int | None = None
    classes: tuple[str, ...] = ()
    x_shape: tuple[int, ...] = ()
    layers: tuple[Layer, ...] = ()
    first_nonfinite: NonFinite | None = None


class Difference(Record):
    """The largest relative difference between the two gradients of one parameter."""

    path: str
    shape: tuple[int, ...] = ()
    max_relative_difference: float | None = None


class Sides(Record):
    """One quantity measured under the hand-written rules and under automatic differentiation."""

    manual: float | None = None
    autodiff: float | None = None


class Comparison(Record):
    """comparison.json. A ratio is autodiff over manual: above 1, the hand-written rules win."""

    parameters: tuple[Difference, ...] = ()
    loss_relative_difference: float | None = None
    step_time_us: Sides | None = None
    step_time_ratio: float | None = None
    temp_bytes: Sides | None = None
    temp_ratio: float | None = None


@dataclass(frozen=True, eq=False)
class Predictions:
    """predictions.npz, for n test examples, k outputs and the m examples of largest loss."""

    y_true: Array  # (n,) int
    y_pred: Array  # (n,) int
    scores: Array  # (n, k)
    loss: Array  # (n,)
    worst_index: Array  # (m,) int, into the n examples
    worst_x: Array  # (m, *x_shape)


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A run folder in memory; a part that could not be read is empty and named in `problems`."""

    folder: Path
    config: str
    environment: Mapping[str, object]
    epochs: tuple[Epoch, ...]
    summary: Summary
    predictions: Predictions | None
    parameters: Mapping[str, Array]
    comparison: Comparison | None
    problems: Mapping[str, str]  # by file name: a clause for the page

    @property
    def name(self) -> str:
        """The experiment's name, or the folder's where the summary has none."""
        return self.summary.name or self.folder.resolve().name

    @property
    def started(self) -> str:
        """When the run started, usually in ISO 8601; empty if unknown."""
        return str(self.environment.get("started") or "")


@dataclass(frozen=True)
class Reader:
    """Reads a run folder file by file, and notes in `problems` each file that it cannot read."""

    folder: Path
    problems: dict[str, str] = field(default_factory=dict)

    def read(self, name: str, parse: Callable[[Path], Part], empty: Part) -> Part:
        """Return the parsed file, or `empty` where it is missing or damaged."""
        try:
            return parse(self.folder / name)
        except FileNotFoundError:
            self.problems[name] = f"{name} is not in the run folder"
        except _UNREADABLE as error:
            self.problems[name] = f"{name} cannot be read ({_reason(error)})"
        return empty

    def check(self) -> None:
        """Raise FnnError where none of the essential files could be read."""
        if all(name in self.problems for name in ESSENTIAL):
            raise FnnError(
                f"{self.folder}: not a run folder: "
                + "; ".join(self.problems[name] for name in ESSENTIAL)
                + ". Give the folder that `fnn run` printed"
            )


def read_run(folder: Path) -> RunFolder:
    """Read a run folder, whole or cut short.

    Raises FnnError when `folder` is no folder, or holds none of config.yaml, metrics.jsonl and
    summary.json in readable form.
    """
    if not folder.is_dir():
        raise FnnError(f"{folder}: expected a run folder, as written by `fnn run`; there is none")
    reader = Reader(folder)
    no_predictions: Predictions | None = None
    no_comparison: Comparison | None = None
    run = RunFolder(
        folder=folder,
        config=reader.read("config.yaml", lambda file: file.read_text("utf-8"), ""),
        environment=reader.read("environment.json", read_object, {}),
        epochs=reader.read("metrics.jsonl", read_epochs, ()),
        summary=reader.read("summary.json", read_summary, Summary()),
        predictions=reader.read("predictions.npz", _read_predictions, no_predictions),
        parameters=reader.read("parameters.npz", read_arrays, {}),
        comparison=reader.read("comparison.json", _read_comparison, no_comparison),
        problems=reader.problems,
    )
    reader.check()
    return run


def spread(items: Sequence[Part], most: int) -> list[Part]:
    """Return at most `most` items, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(items) - 1, min(most, len(items)))
    return [items[round(i)] for i in places.tolist()]


def metric_text(name: str, value: float | None, digits: int = 0) -> str:
    """Return a metric's value for a page, in its format, with `digits` more than the least."""
    if METRICS[name].percent:
        return text.percent(value, 1 + digits)
    return text.number(value, 3 + digits)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    return str(error).split("\n")[0] or type(error).__name__


def read_object(file: Path) -> Mapping[str, object]:
    """Return the object that a JSON file holds."""
    value = json.loads(file.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    return value


def read_summary(file: Path) -> Summary:
    """Return the contents of summary.json."""
    return Summary.model_validate_json(file.read_bytes())


def _read_comparison(file: Path) -> Comparison:
    return Comparison.model_validate_json(file.read_bytes())


def read_epochs(file: Path) -> tuple[Epoch, ...]:
    """Return one epoch per line; a half-written last line, left by a dying process, is dropped."""
    lines = [line for line in file.read_bytes().splitlines() if line.strip()]
    epochs = [Epoch.model_validate_json(line) for line in lines[:-1]]
    try:
        epochs += [Epoch.model_validate_json(line) for line in lines[-1:]]
    except ValidationError:
        if not epochs:
            raise
    return tuple(epochs)


def read_arrays(file: Path) -> dict[str, Array]:
    """Return the arrays of an .npz file by name, without unpickling."""
    with file.open("rb") as stream:  # given a path, numpy leaves a damaged file open
        archive = np.load(stream, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("expected an archive of arrays, got one array")
        return {name: archive[name] for name in archive.files}


def _read_predictions(file: Path) -> Predictions:
    arrays = read_arrays(file)
    if missing := [name for name in Predictions.__annotations__ if name not in arrays]:
        raise ValueError(f"no array {missing[0]!r}")
    predictions = Predictions(**{name: arrays[name] for name in Predictions.__annotations__})
    _check_predictions(predictions)
    return predictions


def _check_predictions(p: Predictions) -> None:
    """Raise ValueError, naming the array, for an unexpected shape or dtype."""
    n, m = len(p.y_true), len(p.worst_index)
    shapes = {
        "y_true": (p.y_true, (n,), "iu"),
        "y_pred": (p.y_pred, (n,), "iu"),
        "scores": (p.scores, (n, *p.scores.shape[-1:]), "fiu"),
        "loss": (p.loss, (n,), "fiu"),
        "worst_index": (p.worst_index, (m,), "iu"),
        "worst_x": (p.worst_x, (m, *p.worst_x.shape[1:]), "fiub"),
    }
    for name, (array, shape, kinds) in shapes.items():
        if array.shape != shape or array.dtype.kind not in kinds:
            raise ValueError(f"{name}: unexpected {array.dtype} array of shape {array.shape}")
    if m and (int(p.worst_index.min()) < 0 or int(p.worst_index.max()) >= n):
        raise ValueError(f"worst_index: expected indices below {n}")
    if n and min(int(p.y_true.min()), int(p.y_pred.min())) < 0:
        raise ValueError("y_true and y_pred: expected class numbers from 0 up")
