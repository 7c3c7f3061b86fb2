"""What the rule costs: bytes kept for the backward pass, and temporary memory."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from .arguments import Arguments, struct
from .probes import Probing
from .programs import kept, pullback, start, typed, types
from .report import Finding
from .shapes import Case, resized

FACTORS = 4, 32
"""More than so many times what autodiff takes, its inputs and its outputs, is a finding: of
residuals, and of temporary memory, where a loop over a window's taps may hold a copy for each."""
SMALL = 1024, 65536
"""Below these many bytes, of residuals and of temporary memory, nothing is said."""


def check(
    probing: Probing, case: Case, dtype: str, cost: dict[str, tuple[int, int]]
) -> Iterator[tuple[str, Finding]]:
    """Compare residuals and temporary memory with automatic differentiation's.

    A definition that is another algorithm may well take less: then nothing is a finding.

    If other shapes may be tried, a finding rests on larger ones, where constants do not count.
    """
    large = larger(case.arguments) if probing.vary else case.arguments
    for arguments in (large, case.arguments):
        subject = probing.subject
        try:
            with jax.enable_x64(dtype == "float64"):
                rule, autodiff = (
                    _bytes_of(f, arguments, dtype) for f in (subject.function, subject.definition)
                )
                arrays, dys = types(subject.definition, arguments, dtype)
        except Exception:
            continue  # a shape that the function refuses
        break
    else:
        return
    ends = sum(map(_bytes, [*arrays, *dys]))
    cost.update(
        zip(("residuals", "temporary memory"), zip(rule, autodiff, strict=True), strict=True)
    )
    limits = zip(cost.items(), SMALL, FACTORS, strict=True)
    for (what, (came, natural)), small, factor in limits:
        if not subject.other and came > max(small, factor * (natural + ends)):
            defect = "residuals" if what == "residuals" else "memory"
            why = f"{came:,} bytes of {what}; autodiff takes {natural:,}, the arguments {ends:,}"
            call = arguments.show(subject.name, dtype)
            yield defect, Finding(defect, why=why, call=call, dtype=dtype)


def larger(given: Arguments) -> Arguments:
    """Return the call with every axis made longer, to some 10⁴ elements an argument."""
    most = max((np.prod(leaf.shape, initial=1) for leaf in given.leaves), default=1)
    rank = max((len(leaf.shape) for leaf in given.leaves), default=0)
    if most >= 4096 or not rank or not most:
        return given
    factor = max(2, round((10_000 / most) ** (1 / rank)))
    return resized(given, {n: n * factor for leaf in given.leaves for n in leaf.shape if n > 1})


@kept
def _bytes_of(function: Any, arguments: Arguments, dtype: str) -> tuple[int, int]:
    """Return the bytes of residuals and of temporary memory of a forward and backward pass."""

    def both(arrays: Any, dys: Any) -> Any:
        y, pull = pullback(function, arguments, arrays)
        return y, pull(typed(dys, y))

    program = start(both, *types(function, arguments, dtype)).result()
    analysis = program.memory_analysis()
    temporary = int(analysis.temp_size_in_bytes) if analysis is not None else 0
    return _kept(function, arguments, dtype), temporary


def _kept(function: Callable[..., Any], arguments: Arguments, dtype: str) -> int:
    """Return the bytes of all arrays that a backward pass holds on to, each counted once."""

    def residuals(*arrays: Any) -> list[Any]:
        leaves = jax.tree.leaves(pullback(function, arguments, arrays)[1])
        return list({id(a): a for a in leaves if isinstance(a, jax.Array)}.values())

    types = [struct(leaf, dtype) for leaf in arguments.leaves]
    return sum(map(_bytes, jax.eval_shape(residuals, *types)))


def _bytes(array: Any) -> int:
    return array.size * array.dtype.itemsize
