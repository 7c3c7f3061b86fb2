"""The verifier: `fnn.verify(f, ...)` checks a backward rule and explains every verdict."""

from collections.abc import Callable
from typing import Any

from .core import run
from .report import Finding as Finding
from .report import Report as Report


def verify(
    f: Callable[..., Any],
    *args: Any,
    definition: Callable[..., Any] | None = None,
    vary: bool = True,
    **statics: Any,
) -> Report:
    """Verify the backward rule of a function.

        report = fnn.verify(f, "f32[8,16]", "f32[16]", eps=1e-5)
        report.raise_if_failed()

    Args:
        f: an fnn op, a `jax.custom_vjp` or `jax.custom_jvp` function, any function that calls one,
            or any function with `definition=`.
        args: the arguments of f: pytrees of arrays, descriptions of arrays (a
            `jax.ShapeDtypeStruct`, or "f32[8,16]", "i32[8] in 0..9", "f32[8] in positive"),
            integers, booleans, PRNG keys, None and static values. The values of a described array
            are drawn. An op without arguments is tried on its own examples.
        definition: the same function in plain JAX, differentiable; by default f without its rule.
        vary: whether to try other values, magnitudes and shapes as well. False checks exactly the
            arguments in `args`.
        statics: keyword arguments of f, passed on unchanged.

    Returns a `Report`; `print` it. The mathematics is judged in float64, rounding in the
    arguments' own dtype.

    Raises TypeError or ValueError for a call that cannot be verified; the message says what to
    pass instead.
    """
    return run(f, args, statics, definition, vary)
