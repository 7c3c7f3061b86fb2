"""Checkpoints: all that training stands on, in plain files, written while training goes on.

    checkpoints/00000128/0.safetensors      after 128 steps: what process 0 holds of the state

A file holds arrays by their path (`params/1_dense/w`), and in its header, as JSON, where training
stands and a sum of every array. A folder has its name once all of it is on the disk;
until then, and while it is taken away, its name begins with a dot. A file that is no longer kept
is written over by the next. Nothing is pickled.
"""

import contextlib
import json
import math
import os
import shutil
import stat
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import sync_global_devices
from safetensors import SafetensorError, safe_open

from ..errors import FnnError
from ..tree import leaf_path
from .folder import to_disk
from .image import HEADER, HEADER_SUM, Image, array_sum, text_sum


class Checkpoint(NamedTuple):
    """A checkpoint on the disk, and what its header says."""

    folder: Path
    step: int
    score: float | None  # what the best ones are chosen by: small is good
    meta: dict[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one run: the last ones, and the best ones by their score.

    They are written one at a time, by a thread that lets the steps go first.
    """

    folder: Path
    keep_last: int = 2
    keep_best: int = 0
    _writing: Future[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=_give_way)
        self._image = Image()
        if jax.process_index() == 0:
            self._clear()
        self._scores = {c.step: c.score for c in map(read, _complete(self.folder))}

    def save(
        self,
        state: Any,
        step: int,
        meta: dict[str, Any],
        score: float | None = None,
        flush: tuple[Path, ...] = (),
    ) -> None:
        """Write the state after `step` steps, with `meta`, which is plain JSON.

        Returns once the state is copied, and may then be donated; several processes write before
        it returns. The files of `flush` are on the disk before the checkpoint is.

        Raises FnnError where an earlier one could not be written: those before it are whole.
        """
        self.wait()
        score = score if score is not None and math.isfinite(score) else None
        header = {"step": step, "score": score, "processes": jax.process_count(), "meta": meta}
        self._image.fill(_arrays(state), header)
        self._scores[step] = score
        surplus = _surplus(self._scores, self.keep_last, self.keep_best)
        for other in surplus:
            del self._scores[other]
        self._writing = self._thread.submit(self._write, step, surplus, flush)
        if jax.process_count() > 1:
            self.wait()
            sync_global_devices(f"checkpoint {step} is written")
            if jax.process_index() == 0:
                self._commit(step, surplus)
            sync_global_devices(f"checkpoint {step} has its name")

    def is_among_best(self, score: float) -> bool:
        """Say whether a checkpoint of this score would be one of the best that are kept."""
        if not math.isfinite(score):
            return False
        scores = sorted(s for s in self._scores.values() if s is not None)
        return self.keep_best > 0 and (
            len(scores) < self.keep_best or score < scores[self.keep_best - 1]
        )

    def wait(self) -> None:
        """Return once all is on the disk, or raise what kept it from getting there."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                writing.result()
            except (OSError, SafetensorError) as error:
                raise FnnError(
                    f"cannot write a checkpoint in {self.folder}: {error}; those it has are "
                    "whole: make room, then fnn resume"
                ) from error

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=True)
        with contextlib.suppress(OSError):
            self._spare.unlink(missing_ok=True)

    @property
    def _spare(self) -> Path:
        return self.folder / ".spare"

    def _clear(self) -> None:
        """Take away what a process left half written when it was killed."""
        try:
            self.folder.mkdir(exist_ok=True)
            self._spare.unlink(missing_ok=True)
            for end in ("partial", "gone"):
                for left in self.folder.glob(f".[0-9]*.{end}"):
                    shutil.rmtree(left)
        except OSError as error:
            raise FnnError(
                f"cannot write checkpoints in {self.folder}: {error.strerror}"
            ) from error

    def _write(self, step: int, surplus: list[int], flush: tuple[Path, ...]) -> None:
        partial = _partial(self.folder, step)
        partial.mkdir(exist_ok=True)
        file = _file(partial, jax.process_index())
        if jax.process_index() == 0 and self._spare.exists():
            os.replace(self._spare, file)
        self._image.write(file)
        for path in (*flush, partial):
            to_disk(path)
        if jax.process_count() == 1:
            self._commit(step, surplus)

    def _commit(self, step: int, surplus: list[int]) -> None:
        """Give a complete checkpoint its name, and take those away that are not to be kept.

        A checkpoint first loses its name, and no part of it is touched before the disk knows.
        """
        os.replace(_partial(self.folder, step), _named(self.folder, step))
        gone = [_unnamed(_named(self.folder, other)) for other in surplus]
        to_disk(self.folder)
        for old in gone:
            if _is_ours_alone(file := _file(old, 0)):
                os.replace(file, self._spare)
            shutil.rmtree(old)


def latest(folder: Path) -> Checkpoint | None:
    """Return the checkpoint of the most steps, if there is one.

    Raises FnnError where it is damaged.
    """
    complete = _complete(folder)
    return read(complete[-1]) if complete else None


def newest(folder: Path) -> Iterator[Checkpoint]:
    """Yield the checkpoints, the last one first."""
    return map(read, reversed(_complete(folder)))


def before(folder: Path, step: int) -> Checkpoint | None:
    """Return the last checkpoint of at most `step` steps, if there is one."""
    complete = [path for path in _complete(folder) if int(path.name) <= step]
    return read(complete[-1]) if complete else None


def after(folder: Path, step: int) -> Checkpoint | None:
    """Return the first checkpoint of more than `step` steps, if there is one."""
    return next((read(path) for path in _complete(folder) if int(path.name) > step), None)


def read(folder: Path) -> Checkpoint:
    """Read the header of a checkpoint, and check that all its files are there."""
    with _opened(folder, 0) as file:
        header = _header(folder, file)
    missing = [i for i in range(header["processes"]) if not _file(folder, i).is_file()]
    if missing:
        raise _damaged(folder, f"{_file(folder, missing[0]).name} is missing")
    return Checkpoint(folder, header["step"], header["score"], header["meta"])


def restore(checkpoint: Checkpoint, like: Any) -> Any:
    """Return the state that a checkpoint holds, laid out over the devices as `like` is.

    `like` is a state of the same structure, shapes and dtypes. Raises FnnError where the file is
    damaged, and where it holds another state than `like`, naming the first array that differs.
    """
    found = _read_arrays(checkpoint.folder)
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [leaf_path(path) for path, _ in leaves]
    if other := set(names) ^ set(found):
        first = min(other)
        side = "holds" if first in found else "lacks"
        raise FnnError(
            f"{checkpoint.folder}: {side} {first}, unlike the config; it was written for "
            "another model or optimizer: train anew with fnn run"
        )
    placed = [
        _placed(checkpoint.folder, name, found[name], leaf)
        for name, (_, leaf) in zip(names, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, placed)


def _placed(folder: Path, name: str, array: np.ndarray, like: jax.Array) -> jax.Array:
    is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
    form = jax.eval_shape(jax.random.key_data, like) if is_key else like
    if form.dtype.kind == "V":  # bfloat16 and its like are kept as their bits
        array = array.view(form.dtype)
    if (array.shape, array.dtype) != (form.shape, form.dtype):
        raise FnnError(
            f"{folder}: {name} is {array.dtype}{list(array.shape)}, where the config needs "
            f"{form.dtype}{list(form.shape)}; it was written for another model: train anew with "
            "fnn run"
        )
    placed = jax.make_array_from_callback(array.shape, like.sharding, lambda i: array[i])
    return jax.random.wrap_key_data(placed, impl=jax.random.key_impl(like)) if is_key else placed


def _arrays(state: Any) -> dict[str, np.ndarray]:
    """Return what this process writes of a state: its shards, or all by process 0."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            if jax.process_index() == 0:
                arrays[leaf_path(path)] = _plain(leaf)
            continue
        for shard in leaf.addressable_shards:
            if shard.replica_id == 0:
                bounds = (s.indices(n)[:2] for s, n in zip(shard.index, leaf.shape, strict=True))
                place = ",".join(f"{start}:{stop}" for start, stop in bounds)
                shape = "x".join(map(str, leaf.shape))
                arrays[f"{leaf_path(path)}[{place}]{shape}"] = _plain(shard.data)
    return arrays


def _plain(leaf: jax.Array) -> np.ndarray:
    array = np.asarray(leaf)
    return array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array


def _read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Read all files of a checkpoint; put arrays that lie in shards together."""
    arrays: dict[str, np.ndarray] = {}
    for index in range(_header_of(folder)["processes"]):
        with _opened(folder, index) as file:
            sums = _header(folder, file)["sums"]
            for name in sums:
                try:
                    array = file.get_tensor(name)
                except SafetensorError as error:
                    raise _damaged(folder, str(error)) from error
                if (
                    array_sum(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
                    != sums[name]
                ):
                    raise _damaged(folder, f"{name} is not what was written")
                _put(arrays, name, array)
    return arrays


def _put(arrays: dict[str, np.ndarray], name: str, array: np.ndarray) -> None:
    path, bracket, rest = name.partition("[")
    if not bracket:
        arrays[name] = array
        return
    place, _, shape = rest.partition("]")
    bounds = [tuple(map(int, part.split(":"))) for part in place.split(",")]
    whole = arrays.setdefault(path, np.empty([int(n) for n in shape.split("x")], array.dtype))
    whole[tuple(slice(*b) for b in bounds)] = array


def _header_of(folder: Path) -> dict[str, Any]:
    with _opened(folder, 0) as file:
        return _header(folder, file)


def _header(folder: Path, file: Any) -> dict[str, Any]:
    try:
        text, said = (file.metadata()[key] for key in (HEADER, HEADER_SUM))
        header = json.loads(text)
        found = {key: header[key] for key in ("step", "score", "processes", "meta", "sums")}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, "its header is not fnn's") from error
    if text_sum(text) != said:
        raise _damaged(folder, "its header is not what was written")
    return found


def _opened(folder: Path, index: int) -> Any:
    try:
        return safe_open(_file(folder, index), framework="np")
    except FileNotFoundError as error:
        raise _damaged(folder, f"{_file(folder, index).name} is missing") from error
    except (OSError, SafetensorError) as error:
        raise _damaged(folder, str(error)) from error


def _damaged(folder: Path, what: str) -> FnnError:
    if not folder.exists():
        return FnnError(f"the training under way has taken {folder} away meanwhile; try again")
    older = [int(path.name) for path in _complete(folder.parent)]
    older = [step for step in older if step < int(folder.name)]
    back = f"resumes after step {older[-1]}" if older else "starts from the first step"
    return FnnError(
        f"the checkpoint {folder} is damaged: {what}; take the folder away, and fnn resume {back}"
    )


def _complete(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by their steps."""
    found = (path for path in folder.glob("[0-9]*") if path.name.isdigit())
    return sorted(found, key=lambda path: int(path.name))


def _surplus(scores: dict[int, float | None], last: int, best: int) -> list[int]:
    steps = sorted(scores)
    ranked = sorted((score, step) for step, score in scores.items() if score is not None)
    kept = {*steps[-last:], *(step for _, step in ranked[:best])}
    return [step for step in steps if step not in kept]


def _named(folder: Path, step: int) -> Path:
    return folder / f"{step:08}"


def _partial(folder: Path, step: int) -> Path:
    return folder / f".{step:08}.partial"


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index}.safetensors"


def _unnamed(folder: Path) -> Path:
    """Take a checkpoint's name away, so that no half of it is taken for whole."""
    gone = folder.with_name(f".{folder.name}.gone")
    os.replace(folder, gone)
    return gone


def _is_ours_alone(file: Path) -> bool:
    """Whether writing over a file changes nothing else: it is no link, and has no other name."""
    found = file.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _give_way() -> None:
    """Let the steps go first, but do not starve where a machine is always busy."""
    if sys.platform == "linux":  # where threads have a priority of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
