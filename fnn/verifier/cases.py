"""The calls on which a subject is tried: the user's or an op's examples, and variants of them."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np

from ..custom_op import Op
from .arguments import Arguments, parse
from .passes import call
from .probes import GIVEN, Probing
from .shapes import LARGE, Case, small, variants
from .subject import Subject


def examples(op: Op, seed: int, chosen: Collection[int] | None = None) -> list[Case]:
    """Return one case per example of an op, or per number in `chosen`, without the large ones.

    Raises ValueError for an op without examples: nothing would be checked.
    """
    cases = []
    for i, example in enumerate(op.examples):
        if "bench" in example.tags or (chosen is not None and i not in chosen):
            continue
        arrays, statics = op.bind(**example.draw(seed * 1000 + i, np.float64))
        arguments = parse(op, [_on_host(a) for a in arrays], statics)
        fixed = bool(example.tags & {"kink", "extreme"})
        label = f"example {i}" + "".join(f", {tag}" for tag in sorted(example.tags))
        cases.append(Case(label, "example", arguments, fixed, "no reference" not in example.tags))
    if not cases:
        raise ValueError(
            f"{op.name} has no examples to verify it on; give @op(examples=...), or arguments: "
            f'fnn.verify({op.name}, "f32[8,16]")'
        )
    return cases


def _on_host(array: jax.Array | None) -> Any:
    """Return a NumPy array; a PRNG key and None are returned unchanged."""
    if array is None or jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array
    return np.asarray(array)


def cases_of(subject: Subject, arguments: Arguments, vary: bool) -> list[Case]:
    """Return the call and, if it may vary, calls with other shapes."""
    cases = [Case("", "given", arguments, not vary)]
    if not vary:
        return cases
    accepts = _accepts(subject)
    if cases[0].size >= LARGE:
        arguments = small(arguments, accepts)
        cases.append(Case("smaller", "given", arguments))
    return cases + variants(arguments, accepts)


def _accepts(subject: Subject) -> Callable[[Arguments], Any]:
    def accepts(arguments: Arguments) -> Any:
        try:
            types = jax.eval_shape(
                lambda *a: call(subject.definition, arguments, a), *arguments.structs()
            )
        except Exception:
            return None
        return [(t.shape, str(t.dtype)) for t in types]

    return accepts


def with_domains(subject: Subject, arguments: Arguments, seed: int) -> Arguments:
    """Return the call with domains for floats that have none, in which derivatives are finite."""
    leaves = [(i, arguments.leaves[i]) for i in arguments.places]
    free = [i for i, leaf in leaves if leaf.domain is None and leaf.kind == "float"]
    if not free or any(arguments.leaves[i].value is not None for i in free):
        return arguments
    best, most = arguments, -1.0
    for domain in ("real", "positive", (0.0, 1.0), "simplex", "spd"):
        for some in (free, *([i] for i in free if len(free) > 1)):
            trial = _with_domain(arguments, some, domain)
            if trial is None:
                continue
            finite = _finite(subject, trial, seed)
            if finite > most + 0.01:
                best, most = trial, finite
            if most == 1.0:
                return best
    return best


def _with_domain(arguments: Arguments, which: Sequence[int], domain: Any) -> Arguments | None:
    leaves = list(arguments.leaves)
    for i in which:
        shape = leaves[i].shape
        square = len(shape) > 1 and shape[-1] == shape[-2]
        if (domain == "simplex" and not shape) or (domain == "spd" and not square):
            return None
        leaves[i] = dataclasses.replace(leaves[i], domain=domain)
    return arguments.replace(leaves)


def _finite(subject: Subject, arguments: Arguments, seed: int) -> float:
    """Return the fraction of the definition's values and derivatives that are finite."""
    case = Case("", "given", arguments)
    probing = Probing(subject, [case], seed, True)
    outcome = probing.run(case).oracle(*probing.draw(case, GIVEN))
    arrays = [a for key in ("y", "ct") for a in outcome[key] if np.size(a)]
    return min((float(np.isfinite(a).mean()) for a in arrays), default=1.0)
