"""NumPy archives of arrays."""

import os
import zipfile

import numpy as np

from ..errors import DataError
from .dataset import Dataset, check_counts, numbered_classes
from .files import MAX_INFLATION, find_file, open_numpy
from .npy_files import as_examples, as_stored_labels, read_header
from .split import check_split_arguments, split_dataset

SPLIT_KEYS = ("x_train", "y_train", "x_test", "y_test")
WHOLE_KEYS = ("x", "y")
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what np.savez and np.savez_compressed write


def npz(*, path: str, test_fraction: float = 0.2, split_seed: int = 0) -> Dataset:
    """Load arrays that `np.savez` wrote, under x_train, y_train, x_test, y_test or under x, y.

    Under x, y the split is stratified; under the four names it is the file's own, and test_fraction
    and split_seed have no effect. Other arrays are ignored. uint8 values are pixels: divided by
    255, and (n, height, width) becomes (n, height, width, 1). Nothing is unpickled. The dataset is
    named after the file.

    Shapes: x (n, *shape) of real numbers -> float32; y (n,) of integers from 0 -> int32; classes
    "0" to the largest label.
    Raises DataError as all loaders of files, naming the key too; also for a missing key and an
    array of objects.
    Source: NumPy Enhancement Proposal 1, the .npy format.
    """
    check_split_arguments("npz", test_fraction, "split_seed", split_seed)
    path = find_file(path, "a NumPy .npz archive")
    arrays = _read_arrays(path)
    name = os.path.splitext(os.path.basename(path))[0]
    if "x" in arrays:
        x, y = _examples(path, arrays, "x", "y")
        return split_dataset(
            name, x, y, numbered_classes(y), test_fraction=test_fraction, seed=split_seed
        )
    x_train, y_train = _examples(path, arrays, "x_train", "y_train")
    x_test, y_test = _examples(path, arrays, "x_test", "y_test")
    return Dataset(name, x_train, y_train, x_test, y_test, numbered_classes(y_train, y_test))


def _read_arrays(path: str) -> dict[str, np.ndarray]:
    """Read the four arrays, or else the two."""
    with (
        open_numpy(path, ".npz archive", "np.savez") as (file, stat),
        zipfile.ZipFile(file) as archive,
    ):
        return {key: _read_array(archive, key, path, stat.st_size) for key in _keys(archive, path)}


def _keys(archive: zipfile.ZipFile, path: str) -> tuple[str, ...]:
    present = [name.removesuffix(".npy") for name in archive.namelist()]
    for keys in (SPLIT_KEYS, WHOLE_KEYS):
        if set(keys) <= set(present):
            return keys
    raise DataError(
        f"{path}: holds {', '.join(present[:20]) or 'nothing'}; "
        f"expected {', '.join(SPLIT_KEYS)}, or {', '.join(WHOLE_KEYS)}"
    )


def _read_array(archive: zipfile.ZipFile, key: str, path: str, size: int) -> np.ndarray:
    """Read one array of an archive of `size` bytes, if its header and size agree."""
    member = archive.getinfo(f"{key}.npy")
    if member.compress_type not in METHODS:
        raise DataError(
            f"{path}: {key} is packed by method {member.compress_type}; "
            "expected a file of np.savez or np.savez_compressed"
        )
    if member.file_size > size * MAX_INFLATION:
        raise DataError(
            f"{path}: {key} is damaged: {member.file_size} bytes do not fit into an archive of "
            f"{size} bytes; write or fetch the file again"
        )
    with archive.open(member) as stream:
        read_header(stream, f"{path}: {key}", member.file_size)
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _examples(
    path: str, arrays: dict[str, np.ndarray], x_key: str, y_key: str
) -> tuple[np.ndarray, np.ndarray]:
    """Check and convert one pair -> x (n, *shape) float32, y (n,) int32."""
    x = as_examples(arrays[x_key], f"{path}: {x_key}")
    y = as_stored_labels(arrays[y_key], f"{path}: {y_key}")
    check_counts(f"{path}: {x_key}", len(x), y_key, len(y))
    return x, y
