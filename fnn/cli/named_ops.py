"""The ops by name, for the verbs that take the name of an op."""

from typing import Any

from ..errors import FnnError, did_you_mean


def all_ops() -> dict[str, Any]:
    """Return the table of ops; this imports JAX."""
    import fnn

    return fnn.OPS


def find_op(name: str) -> Any:
    """Return the op of that name. Raises FnnError if there is none."""
    ops = all_ops()
    if name not in ops:
        raise FnnError(
            f"there is no op {name!r}{did_you_mean(name, ops)}; `fnn ops` lists them all"
        )
    return ops[name]
