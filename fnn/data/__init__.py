"""Datasets: loaders by name in DATASETS, changes to a dataset by name in TRANSFORMS.

The keyword arguments of a row are its configuration, `data: {digits: {test_fraction: 0.2}}`; a
config is checked against their annotations and defaults.

Every loader raises DataError for an argument out of range. A loader of files also raises it, naming
the file, for one that is missing, unreadable, a folder, truncated, too long or otherwise damaged;
of another format, element type or rank; for counts of examples and labels that differ, for a label
out of range and for a value that is not finite.
"""

from collections.abc import Callable

from .array_files import arrays as arrays
from .bundled import digits as digits
from .cifar_files import cifar as cifar
from .csv_files import csv as csv
from .dataset import Dataset as Dataset
from .dataset import Streamed as Streamed
from .idx_files import idx as idx
from .idx_files import read_idx as read_idx
from .npz_files import npz as npz
from .shards import Shards as Shards
from .signals import keyword as keyword
from .split import stratified_split as stratified_split
from .synthetic import moons as moons
from .synthetic import noise as noise
from .synthetic import rings as rings
from .synthetic import spirals as spirals
from .synthetic import xor as xor
from .transforms import none_of_the_above as none_of_the_above
from .transforms import one_vs_rest as one_vs_rest

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "idx": idx,
    "cifar": cifar,
    "csv": csv,
    "npz": npz,
    "arrays": arrays,
    "xor": xor,
    "spirals": spirals,
    "rings": rings,
    "moons": moons,
    "keyword": keyword,
    "noise": noise,
}

TRANSFORMS: dict[str, Callable[..., Dataset]] = {
    "one_vs_rest": one_vs_rest,
    "none_of_the_above": none_of_the_above,
}
