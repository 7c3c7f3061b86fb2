"""Checkpoints: the state of a training in plain files, written while training continues.

    checkpoints/00000128/0.safetensors      after 128 steps: the part of the state of process 0

A file holds arrays by their path (`params/1_dense/w`). Its header holds, as JSON, the position of
the training and a checksum of every array. A folder is renamed into place only when it is complete
and on the disk, and renamed away before deletion; a name that begins with a dot is incomplete.
Nothing is pickled.
"""

import json
import math
import os
import shutil
import sys
import threading
import zlib
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
from safetensors.numpy import save_file

from ..errors import FnnError
from ..tree import leaf_path
from .folder import to_disk

HEADER, HEADER_SUM = "fnn", "fnn_crc32"
BLOCK = 4096
"""Bytes that `_array_sum` adds up before their sum enters the CRC."""


class Checkpoint(NamedTuple):
    """A checkpoint on the disk, and the contents of its header."""

    folder: Path
    step: int
    score: float | None  # ranks the best checkpoints: smaller is better
    metadata: dict[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one run: the last ones, and the best ones by their score.

    A thread of low priority writes them, one at a time.
    """

    folder: Path
    keep_last: int = 2
    keep_best: int = 0
    _writing: Future[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=_lower_priority)
        if jax.process_index() == 0:
            self._clear()
        self._scores = {c.step: c.score for c in map(read, _complete(self.folder))}

    def save(
        self,
        state: Any,
        step: int,
        metadata: dict[str, Any],
        score: float | None = None,
        flush: tuple[Path, ...] = (),
    ) -> None:
        """Write the state after `step` steps, with `metadata`, which is plain JSON.

        Returns once the state is copied, and may then be donated; several processes write before
        it returns. The files of `flush` are on the disk before the checkpoint is.

        Raises FnnError if the previous one could not be written; earlier ones are complete.
        """
        self.wait()
        score = score if score is not None and math.isfinite(score) else None
        header = {"step": step, "score": score, "processes": jax.process_count(), "meta": metadata}
        self._scores[step] = score
        surplus = _surplus(self._scores, self.keep_last, self.keep_best)
        for other in surplus:
            del self._scores[other]
        self._writing = self._thread.submit(self._write, _arrays(state), header, surplus, flush)
        if jax.process_count() > 1:
            self.wait()
            sync_global_devices(f"checkpoint {step} is written")
            if jax.process_index() == 0:
                self._commit(step, surplus)
            sync_global_devices(f"checkpoint {step} has its name")

    def is_among_best(self, score: float | None) -> bool:
        """Return whether a checkpoint of this score would be kept as one of the best."""
        if self.keep_best == 0 or score is None or not math.isfinite(score):
            return False
        scores = sorted(s for s in self._scores.values() if s is not None)
        return len(scores) < self.keep_best or score < scores[self.keep_best - 1]

    def wait(self) -> None:
        """Return once everything is on the disk; raise FnnError if it could not be written."""
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
        """End the thread, after its last checkpoint."""
        self._thread.shutdown(wait=True)

    def _clear(self) -> None:
        """Remove incomplete checkpoints of a killed process."""
        try:
            self.folder.mkdir(exist_ok=True)
            for end in ("partial", "gone"):
                for incomplete in self.folder.glob(f".[0-9]*.{end}"):
                    shutil.rmtree(incomplete)
        except OSError as error:
            raise FnnError(
                f"cannot write checkpoints in {self.folder}: {error.strerror}"
            ) from error

    def _write(
        self,
        arrays: dict[str, np.ndarray],
        header: dict[str, Any],
        surplus: list[int],
        flush: tuple[Path, ...],
    ) -> None:
        partial = _partial(self.folder, header["step"])
        partial.mkdir(exist_ok=True)
        file = _file(partial, jax.process_index())
        sums = {name: _array_sum(array) for name, array in arrays.items()}
        text = json.dumps({**header, "sums": sums}, allow_nan=False)
        save_file(arrays, file, {HEADER: text, HEADER_SUM: _text_sum(text)})
        for path in (file, *flush, partial):
            to_disk(path)
        if jax.process_count() == 1:
            self._commit(header["step"], surplus)

    def _commit(self, step: int, surplus: list[int]) -> None:
        """Rename a complete checkpoint into place; rename surplus ones away, then delete them.

        Nothing is deleted before the disk has the new names.
        """
        os.replace(_partial(self.folder, step), self.folder / f"{step:08}")
        unnamed = []
        for other in surplus:
            unnamed.append(self.folder / f".{other:08}.gone")
            os.replace(self.folder / f"{other:08}", unnamed[-1])
        to_disk(self.folder)
        for folder in unnamed:
            shutil.rmtree(folder)


def latest(folder: Path) -> Checkpoint | None:
    """Return the checkpoint of the most steps, if there is one.

    Raises FnnError if it is damaged.
    """
    return next(newest(folder), None)


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
    header = _read_file(folder, 0)[1]
    for index in range(header["processes"]):
        if not _file(folder, index).is_file():
            raise _damaged(folder, f"{_file(folder, index).name} is missing")
    return Checkpoint(folder, header["step"], header["score"], header["meta"])


def restore(checkpoint: Checkpoint, like: Any) -> Any:
    """Return the state that a checkpoint holds, laid out over the devices as `like` is.

    `like` is a state of the same structure, shapes and dtypes. Raises FnnError if the file is
    damaged or holds another state than `like`, naming the first array that differs.
    """
    folder = checkpoint.folder
    arrays = read_arrays(folder)
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [leaf_path(path) for path, _ in leaves]
    if other := set(names) ^ set(arrays):
        first = min(other)
        side = "holds" if first in arrays else "lacks"
        raise FnnError(
            f"{folder}: {side} {first}, unlike the config; it was written for another model or "
            "optimizer: train from the first step with fnn run"
        )
    pairs = zip(names, leaves, strict=True)
    return jax.tree.unflatten(
        structure, [_on_devices(folder, name, arrays[name], leaf) for name, (_, leaf) in pairs]
    )


def _on_devices(folder: Path, name: str, array: np.ndarray, like: jax.Array) -> jax.Array:
    is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
    form = jax.eval_shape(jax.random.key_data, like) if is_key else like
    if form.dtype.kind == "V":  # bfloat16 and similar types are stored as their bits
        array = array.view(form.dtype)
    if (array.shape, array.dtype) != (form.shape, form.dtype):
        raise FnnError(
            f"{folder}: {name} is {array.dtype}{list(array.shape)}, where the config needs "
            f"{form.dtype}{list(form.shape)}; it was written for another model: train from the "
            "first step with fnn run"
        )
    leaf = jax.make_array_from_callback(array.shape, like.sharding, lambda i: array[i])
    return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like)) if is_key else leaf


def _arrays(state: Any) -> dict[str, np.ndarray]:
    """Return copies of the arrays that this process writes: its shards, or all in process 0."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            if jax.process_index() == 0:
                arrays[leaf_path(path)] = _copy(leaf)
            continue
        for shard in leaf.addressable_shards:
            if shard.replica_id == 0:
                bounds = (s.indices(n)[:2] for s, n in zip(shard.index, leaf.shape, strict=True))
                place = ",".join(f"{start}:{stop}" for start, stop in bounds)
                shape = "x".join(map(str, leaf.shape))
                arrays[f"{leaf_path(path)}[{place}]{shape}"] = _copy(shard.data)
    return arrays


def _copy(leaf: jax.Array) -> np.ndarray:
    array = np.array(leaf, order="C")
    return array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Read all files of a checkpoint, check their sums, and join arrays that lie in shards."""
    arrays: dict[str, np.ndarray] = {}
    for index in range(_read_file(folder, 0)[1]["processes"]):
        file, header = _read_file(folder, index)
        for name, expected in header["sums"].items():
            try:
                array = file.get_tensor(name)
            except SafetensorError as error:
                raise _damaged(folder, str(error)) from error
            if _array_sum(array) != expected:
                raise _damaged(folder, f"{name} is not what was written")
            path, bracket, rest = name.partition("[")
            if not bracket:
                arrays[name] = array
                continue
            place, _, shape = rest.partition("]")
            bounds = (map(int, part.split(":")) for part in place.split(","))
            whole = np.empty([int(n) for n in shape.split("x")], array.dtype)
            arrays.setdefault(path, whole)[tuple(slice(*b) for b in bounds)] = array
    return arrays


def _read_file(folder: Path, index: int) -> tuple[Any, dict[str, Any]]:
    """Open one file of a checkpoint; return it and its header, which is checked."""
    try:
        file = safe_open(_file(folder, index), framework="np")
    except FileNotFoundError as error:
        raise _damaged(folder, f"{_file(folder, index).name} is missing") from error
    except (OSError, SafetensorError) as error:
        raise _damaged(folder, str(error)) from error
    try:
        text, text_sum = (file.metadata()[key] for key in (HEADER, HEADER_SUM))
        header = json.loads(text)
        header = {key: header[key] for key in ("step", "score", "processes", "meta", "sums")}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, "its header is not fnn's") from error
    if _text_sum(text) != text_sum:
        raise _damaged(folder, "its header is not what was written")
    return file, header


def _text_sum(header: str) -> str:
    """Return the CRC-32 of a header's text, as eight digits."""
    return f"{zlib.crc32(header.encode()):08x}"


def _array_sum(array: np.ndarray) -> int:
    """Return the CRC-32 of the sums of blocks, as words of 64 bits, and of the remaining bytes.

    A changed word shows in the sum of its block, as does a lost, stale or moved block. It takes a
    fifth of the processor time of a CRC of all bytes.
    """
    octets = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    blocks, rest = np.split(octets, [len(octets) // BLOCK * BLOCK])
    sums = blocks.view("<u8").reshape(-1, BLOCK // 8).sum(axis=1, dtype="<u8")
    return zlib.crc32(rest, zlib.crc32(sums))


def _damaged(folder: Path, reason: str) -> FnnError:
    if not folder.exists():
        return FnnError(f"a training that is running has removed {folder}; try again")
    older = [int(path.name) for path in _complete(folder.parent)]
    older = [step for step in older if step < int(folder.name)]
    back = f"resumes after step {older[-1]}" if older else "starts from the first step"
    return FnnError(
        f"the checkpoint {folder} is damaged: {reason}; take the folder away, and fnn resume {back}"
    )


def _complete(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, by their steps."""
    named = (path for path in folder.glob("[0-9]*") if path.name.isdigit())
    return sorted(named, key=lambda path: int(path.name))


def _surplus(scores: dict[int, float | None], last: int, best: int) -> list[int]:
    steps = sorted(scores)
    ranked = sorted((score, step) for step, score in scores.items() if score is not None)
    wanted = {*steps[-last:], *(step for _, step in ranked[:best])}
    return [step for step in steps if step not in wanted]


def _partial(folder: Path, step: int) -> Path:
    return folder / f".{step:08}.partial"


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index}.safetensors"


def _lower_priority() -> None:
    """Let the steps go first; the thread still runs on a busy machine."""
    if sys.platform == "linux":  # where a thread has its own priority
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
