"""The run folder at a path: the folder itself, or the newest run in it."""

import re
from pathlib import Path

from ..errors import FnnError
from .run import ESSENTIAL


def find_run(path: Path) -> Path:
    """Return `path` if it is a run folder, else the newest run in it (runs/xor for its last one).

    A run folder is named after its start, so copies keep their order.

    Raises FnnError where there is no run, and for a sweep, which holds many.
    """
    run = find_run_or_sweep(path)
    if is_sweep(run):
        raise FnnError(f"{run} is a sweep; name one of its runs, such as {run / 'runs' / '000'}")
    return run


def is_sweep(run: Path) -> bool:
    """Return whether a folder is a sweep's."""
    return (run / "sweep.yaml").is_file()


def find_run_or_sweep(path: Path) -> Path:
    """Return `path` if it is a run or a sweep, else the newest in it; see `find_run`."""
    if _is_run(path):
        return path
    if not path.exists():
        raise FnnError(f"{path}: no such folder; give the run folder that `fnn run` printed")
    if not path.is_dir():
        raise FnnError(f"{path}: expected a run folder, got a file; its folder is {path.parent}")
    if runs := _runs(path):
        return max(runs, key=_start_time)
    below = next((f"; its folder {e} has some" for e in sorted(path.iterdir()) if _runs(e)), "")
    raise FnnError(f"{path}: expected a run folder or a folder of runs, and found no run{below}")


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in ESSENTIAL)


def _runs(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if _is_run(child)] if path.is_dir() else []


def _start_time(run: Path) -> tuple[str, int, str]:
    """Return a sorting key: other names, then 20250101-120000, then 20250101-120000-2."""
    name = re.fullmatch(r"([0-9]{8}-[0-9]{6})(?:-([0-9]+))?", run.name)
    return (name[1], int(name[2] or 1), "") if name else ("", 0, run.name)
