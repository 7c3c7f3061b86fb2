"""What the rule costs: bytes kept for the backward pass, and temporary memory."""

from collections.abc import Callable, Iterator
from typing import Any

import jax

from .arguments import Arguments, struct
from .probes import Probing
from .programs import by_autodiff, by_rule, pullback
from .report import Finding
from .shapes import Case

FACTOR = 4
"""More than this many times what autodiff keeps, its inputs and its outputs, is a finding."""
SMALL = 1024, 65536
"""Below these many bytes, of residuals and of temporary memory, nothing is said."""


def check(
    probing: Probing, case: Case, dtype: str, cost: dict[str, tuple[int, int]]
) -> Iterator[tuple[str, Finding]]:
    """Compare residuals and temporary memory with automatic differentiation's."""
    subject, arguments = probing.subject, case.arguments
    with jax.enable_x64(dtype == "float64"):
        kept = [_kept(f, arguments, dtype) for f in (subject.function, subject.definition)]
        types = [struct(leaf, dtype) for leaf in arguments.leaves]
        ends = sum(map(_bytes, types)) + sum(
            map(
                _bytes,
                jax.eval_shape(lambda *a: pullback(subject.definition, arguments, a)[0], *types),
            )
        )
    cost["residuals"] = kept[0], kept[1]
    run = probing.run(case, dtype)
    analyses = [run.program(make).result().memory_analysis() for make in (by_rule, by_autodiff)]
    if all(a is not None for a in analyses):
        cost["temporary memory"] = tuple(int(a.temp_size_in_bytes) for a in analyses)  # type: ignore[assignment]
    for (what, (rule, autodiff)), small in zip(cost.items(), SMALL, strict=False):
        if rule > max(small, FACTOR * (autodiff + ends)):
            defect = "residuals" if what == "residuals" else "memory"
            why = f"{rule:,} bytes of {what}; autodiff takes {autodiff:,}, the arguments {ends:,}"
            call = arguments.show(subject.name, dtype)
            yield defect, Finding(defect, why=why, call=call, dtype=dtype)


def _kept(function: Callable[..., Any], arguments: Arguments, dtype: str) -> int:
    """Return the bytes of all arrays that a backward pass holds on to, each counted once."""

    def residuals(*arrays: Any) -> list[Any]:
        leaves = jax.tree.leaves(pullback(function, arguments, arrays)[1])
        return list({id(a): a for a in leaves if isinstance(a, jax.Array)}.values())

    types = [struct(leaf, dtype) for leaf in arguments.leaves]
    return sum(map(_bytes, jax.eval_shape(residuals, *types)))


def _bytes(array: Any) -> int:
    return array.size * array.dtype.itemsize
