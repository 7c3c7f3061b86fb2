"""Real datasets in scikit-learn's package, which load without a network."""

import numpy as np

from .dataset import Dataset, numbered_classes
from .split import check_split_arguments, split_dataset


def digits(*, test_fraction: float = 0.2, split_seed: int = 0) -> Dataset:
    """Load 1797 real handwritten digits, 8×8 pixels.

    Shapes: x (n, 8, 8, 1) float32 in [0, 1] (the 17 grey levels divided by 16), y (n,) int32;
    classes "0" to "9". The split is stratified and depends on its two arguments only.

    Raises DataError for a test_fraction outside (0, 1) or a negative split_seed.
    Source: E. Alpaydin & C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998; the test part, as in `sklearn.datasets.load_digits`.
    """
    check_split_arguments("digits", test_fraction, "split_seed", split_seed)
    from sklearn.datasets import load_digits  # here, since it takes about a second

    bunch = load_digits()
    x = (bunch.images / 16).astype(np.float32)[..., None]  # (1797, 8, 8, 1)
    y = bunch.target.astype(np.int32)  # (1797,)
    return split_dataset(
        "digits", x, y, numbered_classes(y), test_fraction=test_fraction, seed=split_seed
    )
