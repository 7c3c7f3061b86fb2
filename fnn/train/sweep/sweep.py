"""A whole sweep: points are proposed, gathered into programs, trained; each run has its folder.

config.yaml       what all runs begin with     sweep.yaml       the axes, and how they are tried
results.jsonl     how each run ended           environment.json versions, device, commit
runs/003/         a run folder for each        checkpoints/     of programs that have not ended
"""

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from ... import config as configs
from ...config.source import read_file, read_yaml
from ...errors import ConfigError, FnnError
from ...metrics import METRICS, MetricName
from .. import folder as files
from ..checkpoint import Checkpoints
from ..fit import Progress, Silent
from ..signals import stoppable
from .axes import Axes, Point, split_words
from .fit import SweepFit, checkpoint_folder, results, run_folder
from .groups import Base, Group, make_groups, make_rows
from .proposals import Proposals, all_points, optuna_points, random_points


@dataclass(frozen=True)
class Plan:
    """What a sweep is made of: all that its folder says, from which it is resumed."""

    base: Base
    words: tuple[str, ...]  # the axes, as they were written
    random: int = 0  # points to draw
    optuna: int = 0  # points to ask optuna for
    by: MetricName = "test_loss"  # what the best run is chosen by

    @property
    def axes(self) -> Axes:
        """The axes."""
        return split_words(self.words)[1]

    def proposals(self) -> Proposals:
        """Return the points, to be drawn from the config's own seed."""
        seed = self.base.config().seed
        if self.random:
            return random_points(self.axes, self.random, seed)
        if self.optuna:
            return optuna_points(self.axes, self.optuna, seed)
        return all_points(self.axes)

    def score(self, result: dict[str, Any]) -> float:
        """Return a number that is smaller for a better run, and infinite for a diverged one."""
        diverged = result["status"] == "diverged"
        return math.inf if diverged else METRICS[self.by].cost(result[self.by])


class Ready:
    """A sweep that is ready to start: its first runs are checked, and their data loaded."""

    groups: list[Group]

    def __init__(self, plan: Plan) -> None:
        """Raise ConfigError or DataError for whatever is wrong with one of the runs."""
        self.plan, self.axes, self.config = plan, plan.axes, plan.base.config()
        self.proposals = plan.proposals()
        self._take(next(self.proposals), 0)

    def advance(self, results: list[dict[str, Any]]) -> bool:
        """Take the next runs, once all results up to here are there; say if there are more."""
        scores = [self.plan.score(result) for result in results[-len(self.rows) :]]
        try:
            self._take(self.proposals.send(scores), len(results))
        except StopIteration:
            return False
        return True

    def _take(self, points: list[Point], first: int) -> None:
        self.rows = make_rows(self.plan.base, self.axes, points, first)
        self.groups = make_groups(self.rows)


def plan_sweep(
    config: Path | str,
    words: Sequence[str],
    random: int = 0,
    optuna: int = 0,
    by: str = "test_loss",
) -> Plan:
    """Return the plan that the command line says: a config, and `KEY=VALUES`.

    Raises ConfigError, and FnnError for an unknown metric.
    """
    if by not in METRICS:
        raise FnnError(f"--by {by}: expected one of {', '.join(METRICS)}")
    if random and optuna:
        raise FnnError("--random and --optuna are two ways to choose points; use one")
    overrides, axes = split_words(words)
    chosen = tuple(
        word for word in words if word.partition("=")[0].strip() in {a.key for a in axes}
    )
    base = Base(read_file(config), str(config), tuple(overrides))
    return Plan(base, chosen, random, optuna, cast(MetricName, by))


def sweep(
    ready: Ready, folder: Path, progress: Progress | None = None, started: float | None = None
) -> dict[str, Any]:
    """Train all runs, and leave in `folder` all that the report shows; return a summary.

    What the folder holds already is not done again: a sweep that was stopped goes on from its last
    checkpoint, and all numbers to come are those of one never stopped.

    Raises FnnError where another process is at it, or the folder cannot be written in.
    """
    started = time.perf_counter() if started is None else started
    found: list[dict[str, Any]] = []
    programs, earlier = 0, 0.0
    with files.locked(folder), stoppable() as asked:
        if not (folder / "environment.json").exists():  # the last that the plan writes
            _write_plan(ready, folder)
        while True:
            ended: list[dict[str, Any]] = []
            for group in ready.groups:
                if not asked():
                    earlier += _train(group, folder, progress or Silent(), asked, started)
                    programs += 1
                ended = results(folder, ready.rows)
                lines = [json.dumps(result) + "\n" for result in found + ended]
                files.write_text(folder / "results.jsonl", "".join(lines))
            found += ended
            if asked() or not ready.advance(found):
                break
        good = [result for result in found if math.isfinite(ready.plan.score(result))]
        summary = {
            "name": ready.config.name,
            "status": "interrupted" if asked() else "completed",
            "runs": len(found),
            "programs": programs,
            "diverged": sum(result["status"] == "diverged" for result in found),
            "by": ready.plan.by,
            "best": min(good, key=ready.plan.score, default=None),
            "seconds": earlier + time.perf_counter() - started,
        }
        files.write_json(folder / "summary.json", summary)
        return summary | {"signal": asked()}


def _train(
    group: Group, folder: Path, progress: Progress, asked: Callable[[], int], started: float
) -> float:
    """Train a group's runs, or go on with them, until they end or are told to stop.

    Returns the seconds that they had taken in earlier processes.
    """
    ended = [r for r in results(folder, group.rows) if r["status"] != "interrupted"]
    kept = checkpoint_folder(folder, group)
    if len(ended) == len(group.rows):
        shutil.rmtree(kept, ignore_errors=True)  # a kill may have come before it was taken away
        first = run_folder(folder, group.rows[0]) / "summary.json"
        return float(json.loads(first.read_bytes())["seconds"])
    kept.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Checkpoints(kept)) as saved:
        fit = SweepFit(group, folder, saved, progress, asked)
        fit.train()
        fit.write(started)
    if not asked():
        shutil.rmtree(kept)
    return fit.before


def _write_plan(ready: Ready, folder: Path) -> None:
    plan = ready.plan
    said = {"axes": list(plan.words), "random": plan.random, "optuna": plan.optuna, "by": plan.by}
    files.write_text(folder / "sweep.yaml", yaml.safe_dump(said, sort_keys=False))
    files.write_text(folder / "config.yaml", configs.dump(ready.config))
    files.write_json(folder / "environment.json", files.environment(ready.config.seed))


def read_plan(folder: Path) -> Plan:
    """Return the plan of a sweep from its folder, to go on with it.

    Raises ConfigError where a file is missing or damaged.
    """
    file = folder / "sweep.yaml"
    said, _ = read_yaml(read_file(file), str(file))
    try:
        chosen = (tuple(said["axes"]), said["random"], said["optuna"], said["by"])
    except (KeyError, TypeError):
        raise ConfigError(f"{file}: damaged: expected the keys axes, random, optuna, by") from None
    config = folder / "config.yaml"
    return Plan(Base(read_file(config), str(config)), *chosen)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return a result for each run that was started, in their order."""
    lines = (folder / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
