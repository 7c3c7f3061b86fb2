"""Trees of arrays: the path of a leaf as text."""

from typing import Any

import jax


def leaf_path(keys: Any) -> str:
    """Return `1_dense/w` for the keys that JAX gives with a leaf."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")
