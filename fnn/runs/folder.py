"""The run folder: plain files that outlive the code.

    config.yaml        the resolved config          environment.json   versions, device, commit
    metrics.jsonl      one object per epoch         summary.json       the end of training
    parameters.npz     the parameters               predictions.npz    on the test examples
    comparison.json    with jax.grad, if wanted     report.html        all of it as a page
    state.npz          the layers' state, if any    checkpoints/       to resume from

A file is written whole or not at all, and is on the disk before the next one. `metrics.jsonl`
grows by whole lines, and is on the disk before a checkpoint that refers to them.
"""

import contextlib
import datetime
import io
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..errors import FnnError
from ..train.distributed import is_first
from ..tree import leaf_path


def create(parent: Path, name: str) -> Path:
    """Make and return `parent/name/<time>`, a new folder."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for attempt in range(100):
        folder = parent / name / (stamp if attempt == 0 else f"{stamp}-{attempt + 1}")
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            if os.path.lexists(folder):
                continue
            raise FnnError(
                f"cannot make the run folder {folder}: {error.strerror}; choose another with --runs"
            ) from error
        return folder
    raise FnnError(f"cannot make a run folder under {parent / name}: 100 of {stamp} exist")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process, until it leaves the block or ends in any way.

    Of several processes that train together, the first has the lock.

    Raises FnnError if another process has it, or if the folder cannot be written in.
    """
    import fcntl

    if not is_first():
        yield
        return
    try:
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise FnnError(f"cannot train in {folder}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FnnError(
                f"another process is training in {folder}; wait until it has ended, or stop it"
            ) from error
        yield


def write_text(path: Path, text: str) -> None:
    """Write a file whole: under another name first, then renamed."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON; NaN and infinities, which JSON does not have, as null."""
    write_text(path, json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def write_npz(path: Path, **arrays: Any) -> None:
    """Write arrays as a plain .npz, without pickles."""
    buffer = io.BytesIO()
    plain: Any = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(buffer, **plain)
    write_bytes(path, buffer.getvalue())


def append_metrics(path: Path, row: dict[str, Any]) -> None:
    """Append the metrics of one epoch as one line. Of several processes, the first writes."""
    if not is_first():
        return
    try:
        with path.open("a") as file:
            file.write(json.dumps(finite(row), allow_nan=False) + "\n")
    except OSError as error:
        raise FnnError(f"cannot write {path}: {error.strerror}") from error


def read_metrics(path: Path, octets: int) -> list[dict[str, Any]]:
    """Return the rows in the first `octets` bytes, the length in a checkpoint; cut off the rest.

    Raises FnnError if the file is shorter.
    """
    try:
        with path.open("rb+") as file:
            content = file.read(octets)
            if len(content) < octets:
                raise ValueError(f"{len(content)} bytes long, where the checkpoint needs {octets}")
            rows = [json.loads(line) for line in content.splitlines()]
            if is_first():
                file.truncate(octets)
    except (OSError, ValueError) as error:
        raise FnnError(
            f"cannot resume: {path} is damaged: {error}; take the folder checkpoints away to "
            "train from the first step"
        ) from error
    return [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole; an FnnError leaves the previous file.

    Of several processes, the first writes.
    """
    if not is_first():
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:  # "x" follows no link
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        to_disk(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise FnnError(f"cannot write {path}: {error.strerror}") from error


def to_disk(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def finite(value: Any) -> Any:
    """Return a copy with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


def named_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Return the arrays of parameters or layers' state by path: `{"1_dense/w": ...}`."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {leaf_path(path): leaf for path, leaf in leaves}


def environment(seed: int) -> dict[str, Any]:
    """Return what reproducing a run needs: versions, device, seed, commit, command."""
    device = jax.devices()[0]
    packages = ("fnn", "jax", "jaxlib", "optax", "numpy")
    return {
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device.device_kind if device.platform != "cpu" else _cpu(),
        "device_count": jax.device_count(),
        "cpu_count": os.cpu_count(),
        "seed": seed,
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if (status := _git("status", "--porcelain")) is None else bool(status),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def version(package: str) -> str | None:
    """Return the version of a package, or None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    """Return the name of the processor, which JAX only calls `cpu`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "cpu"
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "cpu")


def _git(*arguments: str) -> str | None:
    """Return the output of git in the working directory, or None outside a checkout."""
    try:
        process = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
