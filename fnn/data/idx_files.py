"""IDX files, the format of MNIST and similar sets.

    offset   size  content
    0        2     zero
    2        1     the elements' type: 08 uint8, 09 int8, 0B int16, 0C int32, 0D float32, 0E float64
    3        1     the rank r
    4        4 r   the size of each axis, unsigned 32-bit
    4 + 4 r        the elements, row-major; everything is big endian

Source: Y. LeCun, C. Cortes & C. Burges, "The MNIST database of handwritten digits",
http://yann.lecun.com/exdb/mnist/.
"""

import math
import os
import struct
from typing import BinaryIO

import numpy as np

from ..errors import DataError
from .dataset import Dataset, check_counts, numbered_classes
from .files import (
    find_file,
    find_folder,
    first_spelling,
    nearest,
    open_unpacked,
    read_up_to,
    with_gz,
)
from .npy_files import as_examples, as_stored_labels

ELEMENT_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx(
    *,
    folder: str,
    train_images: str = "train-images-idx3-ubyte",
    train_labels: str = "train-labels-idx1-ubyte",
    test_images: str = "t10k-images-idx3-ubyte",
    test_labels: str = "t10k-labels-idx1-ubyte",
) -> Dataset:
    """Load MNIST, Fashion-MNIST or any other set of images from four IDX files in a folder.

    Each file may be plain or gzip, with or without `.gz` in its name, and may have the name
    `train-images.idx3-ubyte` too. The dataset is named after the folder.

    Shapes: x (n, height, width, 1) float32, uint8 pixels divided by 255 and other types as they
    are; y (n,) int32; classes "0" to the largest label.
    Raises DataError as all loaders of files.
    Source: Y. LeCun, C. Cortes & C. Burges, http://yann.lecun.com/exdb/mnist/;
    H. Xiao, K. Rasul & R. Vollgraf 2017, arXiv:1708.07747.
    """
    folder = find_folder(folder, "a folder of IDX files")
    x_train, y_train = _read_split(folder, train_images, train_labels)
    x_test, y_test = _read_split(folder, test_images, test_labels)
    classes = numbered_classes(y_train, y_test)
    name = os.path.basename(folder) or "idx"
    return Dataset(name, x_train, y_train, x_test, y_test, classes)


def read_idx(path: str, *, rank: int) -> np.ndarray:
    """Read one IDX file, plain or gzip by its first bytes, as an array of `rank`.

    Its header is checked against the file's size before anything is allocated, and a gzip stream
    is inflated piece by piece, no further than the header needs.

    Raises DataError, naming the file, the expected and the actual content.
    """
    path = find_file(path, "an IDX file")
    with open_unpacked(path) as (stream, most):
        return _read_array(stream, path, rank, most=most)


def _read_split(folder: str, images: str, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the images and the labels of one split -> (n, height, width, 1), (n,)."""
    images, labels = _find(folder, images), _find(folder, labels)
    x = as_examples(read_idx(images, rank=3)[..., None], images)
    y = as_stored_labels(read_idx(labels, rank=1), labels)
    check_counts(images, len(x), labels, len(y))
    return x, y


def _find(folder: str, name: str) -> str:
    """Return the path of the first spelling of `name` that is in the folder."""
    spellings = list(dict.fromkeys((name, name.replace("-idx", ".idx"))))
    path = first_spelling(folder, *spellings)
    if path is None:
        raise DataError(
            f"{os.path.join(folder, name)}: no such file; expected one of "
            f"{', '.join(with_gz(spellings))} in this folder{nearest(folder, name)}"
        )
    return path


def _read_array(stream: BinaryIO, path: str, rank: int, *, most: int) -> np.ndarray:
    """Read header and elements of a stream that cannot hold more than `most` bytes."""
    dtype, shape = _read_header(stream, path, rank)
    expected = math.prod(shape) * dtype.itemsize
    if expected == 0:
        raise DataError(f"{path}: its header says shape {shape}; expected at least one element")
    fits = expected <= most
    elements = read_up_to(stream, expected + 1) if fits else bytearray()
    if len(elements) < expected:
        actual = f"only {len(elements)} follow" if fits else "the file is too small for it"
        raise DataError(
            f"{path}: truncated: its header says shape {shape} of {dtype.name}, expected "
            f"{expected} bytes of elements, {actual}; fetch the file again"
        )
    if len(elements) > expected:
        raise DataError(
            f"{path}: trailing bytes: its header says shape {shape} of {dtype.name}, expected the "
            f"file to end after {expected} bytes of elements, but more follow; fetch the file again"
        )
    return np.frombuffer(elements, dtype).reshape(shape)


def _read_header(stream: BinaryIO, path: str, rank: int) -> tuple[np.dtype, tuple[int, ...]]:
    """Read magic number and sizes -> the elements' dtype and the array's shape."""
    magic = stream.read(4)
    if len(magic) < 4:
        raise DataError(f"{path}: truncated: {len(magic)} bytes; expected an IDX header of 4 + 4 r")
    if magic[:2] != b"\0\0" or magic[2] not in ELEMENT_TYPES:
        codes = ", ".join(f"{code:02x}" for code in ELEMENT_TYPES)
        raise DataError(
            f"{path}: wrong magic number {magic.hex(' ')}; expected an IDX file: 00 00, then one "
            f"of {codes} for the element type, then the rank"
        )
    if magic[3] != rank:
        kinds = {1: "labels, (n,)", 3: "images, (n, height, width)"}
        raise DataError(
            f"{path}: an array of rank {magic[3]}; expected rank {rank}"
            + (f" for {kinds[rank]}" if rank in kinds else "")
            + "; are the files of images and labels the other way round?"
        )
    sizes = stream.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise DataError(
            f"{path}: truncated: {4 + len(sizes)} bytes; expected a header of {4 + 4 * rank} bytes"
        )
    return np.dtype(ELEMENT_TYPES[magic[2]]), struct.unpack(f">{rank}I", sizes)
