"""The file of a checkpoint, made in memory that is used again and written past the page cache.

    image = Image()
    image.fill({"params/w": w}, {"step": 128})  # copies the arrays
    image.write(path)  # in a thread, if you like

A file is a safetensors file: eight bytes with the length of the header, the header as JSON, the
arrays. The library for them writes through the page cache, which costs twice as much processor
time as all else about a checkpoint; a direct write needs memory and a length in whole blocks, so
the header is filled up with spaces until the arrays end with a block.
"""

import errno
import json
import mmap
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

HEADER, HEADER_SUM = "fnn", "fnn_crc32"
BLOCK = 4096
DIRECT = getattr(os, "O_DIRECT", 0)  # only Linux has it
KINDS = {"f": "F", "i": "I", "u": "U", "c": "C"}


class Image:
    """A safetensors file in memory, with a sum of every array, and of its header."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, BLOCK)
        self._size = 0  # of the file, in whole blocks
        self._start = 0  # where the arrays begin
        self._places: dict[str, tuple[int, int]] = {}
        self._forms: dict[str, dict[str, Any]] = {}
        self._header: dict[str, Any] = {}

    def fill(self, arrays: dict[str, np.ndarray], header: dict[str, Any]) -> None:
        """Copy the arrays; note what the header is to say, which is plain JSON."""
        self._header, self._places, self._forms = header, {}, {}
        end = 0
        for name, array in arrays.items():
            self._places[name] = end, end + array.nbytes
            self._forms[name] = {
                "dtype": _dtype(array.dtype),
                "shape": array.shape,
                "data_offsets": self._places[name],
            }
            end += array.nbytes
        needed = 8 + len(self._text(dict.fromkeys(arrays, 2**32 - 1)))  # no sum is longer
        self._size = -(-(needed + end) // BLOCK) * BLOCK
        self._start = self._size - end
        if len(self._memory) < self._size:
            self._memory = mmap.mmap(-1, self._size)
        with memoryview(self._memory) as memory:
            for name, array in arrays.items():
                place = slice(*(self._start + at for at in self._places[name]))
                octets = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                np.frombuffer(memory[place], np.uint8)[:] = octets

    def write(self, path: Path) -> None:
        """Write the file, over one of the same name; return once it is on the disk."""
        with memoryview(self._memory)[: self._size] as memory:
            arrays = memory[self._start :]
            sums = {name: array_sum(arrays[slice(*at)]) for name, at in self._places.items()}
            text = self._text(sums).ljust(self._start - 8)
            memory[: self._start] = len(text).to_bytes(8, "little") + text
            try:
                _write(path, memory, DIRECT)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                _write(path, memory, 0)  # a file system without direct writes

    def _text(self, sums: dict[str, int]) -> bytes:
        told = json.dumps({**self._header, "sums": sums}, allow_nan=False)
        said = {HEADER: told, HEADER_SUM: text_sum(told)}
        return json.dumps({"__metadata__": said, **self._forms}).encode()


def text_sum(header: str) -> str:
    """Return the CRC-32 of a header's text, always as long."""
    return f"{zlib.crc32(header.encode()):08x}"


def array_sum(octets: memoryview) -> int:
    """Return the CRC-32 of the sums of blocks, as words of 64 bits, and of what is left.

    A word that changed shows in its block's sum, as does a block that is lost, stale or moved; and
    it takes a fifth of the processor time of a CRC of all octets, which training would wait for.
    """
    given = np.frombuffer(octets, np.uint8)
    blocks, rest = np.split(given, [len(given) // BLOCK * BLOCK])
    sums = blocks.view("<u8").reshape(-1, BLOCK // 8).sum(axis=1, dtype="<u8")
    return zlib.crc32(rest, zlib.crc32(sums))


def _dtype(dtype: np.dtype) -> str:
    """Return a dtype's name in a safetensors file."""
    return "BOOL" if dtype.kind == "b" else f"{KINDS[dtype.kind]}{8 * dtype.itemsize}"


def _write(path: Path, memory: memoryview, flags: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o666)
    try:
        if os.fstat(descriptor).st_size > len(memory):
            os.ftruncate(descriptor, len(memory))
        done = 0
        while done < len(memory):
            done += os.write(descriptor, memory[done:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
