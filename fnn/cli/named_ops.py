"""The ops by name, for the verbs that take one."""

from typing import Any

from ..errors import FnnError, did_you_mean


def all_ops() -> dict[str, Any]:
    """The table of ops, which loads JAX."""
    import fnn

    return fnn.OPS


def find_op(name: str) -> Any:
    """The op of that name; an FnnError if there is none."""
    ops = all_ops()
    if name not in ops:
        raise FnnError(
            f"there is no op {name!r}{did_you_mean(name, ops)}; `fnn ops` lists them all"
        )
    return ops[name]
