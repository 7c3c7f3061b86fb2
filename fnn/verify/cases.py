"""The calls on which a subject is tried: those given or its examples, and others like them."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np

from ..custom_op import Op
from .arguments import Arguments, parse, struct
from .probes import GIVEN, Probing
from .programs import places
from .shapes import LARGE, Case, small, variants
from .subject import Subject


def examples(op: Op, seed: int, chosen: Collection[int] | None = None) -> list[Case]:
    """Make a case of each of an op's examples, or of those `chosen`, but not of large ones.

    Raises ValueError for an op without examples: nothing would be checked.
    """
    made = []
    for i, example in enumerate(op.examples):
        if "bench" in example.tags or (chosen is not None and i not in chosen):
            continue
        arrays, statics = op.bind(**example.draw(seed * 1000 + i, np.float64))
        given = parse(op, [_on_host(a) for a in arrays], statics)
        fixed = bool(example.tags & {"kink", "extreme"})
        label = f"example {i}" + "".join(f", {tag}" for tag in sorted(example.tags))
        made.append(Case(label, "example", given, fixed, "no reference" not in example.tags))
    if not made:
        raise ValueError(
            f"{op.name} has no examples to verify it on; give @op(examples=...), or arguments: "
            f'fnn.verify({op.name}, "f32[8,16]")'
        )
    return made


def _on_host(array: jax.Array | None) -> Any:
    """Return an array of numpy's, which knows no PRNG keys; what was left out stays None."""
    if array is None or jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array
    return np.asarray(array)


def cases_of(subject: Subject, given: Arguments, vary: bool) -> list[Case]:
    """Return the call given and, if it may vary, calls of other shapes."""
    made = [Case("", "given", given, not vary)]
    if not vary:
        return made
    accepts = _accepts(subject)
    base = given
    if made[0].size >= LARGE:
        base = small(given, accepts)
        made.append(Case("smaller", "given", base))
    return made + variants(base, accepts)


def _accepts(subject: Subject) -> Callable[[Arguments], Any]:
    def accepts(arguments: Arguments) -> Any:
        try:
            return [(t.shape, str(t.dtype)) for t in _outputs(subject.definition, arguments)]
        except Exception:
            return None

    return accepts


def _outputs(function: Any, arguments: Arguments) -> list[Any]:
    def flat(*arrays: Any) -> list[Any]:
        args, kwargs = arguments.build(arrays)
        return jax.tree.leaves(function(*args, **kwargs))

    return jax.eval_shape(flat, *(struct(leaf) for leaf in arguments.leaves))


def with_domains(subject: Subject, given: Arguments, seed: int) -> Arguments:
    """Find where the numbers of arguments without a domain must lie, for finite derivatives."""
    open_ = [i for i in places(given) if given.leaves[i].domain is None]
    open_ = [i for i in open_ if given.leaves[i].kind == "float"]
    if not open_ or any(given.leaves[i].value is not None for i in open_):
        return given
    best, most = given, -1.0
    for domain in ("real", "positive", (0.0, 1.0), "simplex", "spd"):
        for chosen in (open_, *([i] for i in open_ if len(open_) > 1)):
            tried = _with_domain(given, chosen, domain)
            if tried is None:
                continue
            finite = _finite(subject, tried, seed)
            if finite > most + 0.01:
                best, most = tried, finite
            if most == 1.0:
                return best
    return best


def _with_domain(given: Arguments, chosen: Sequence[int], domain: Any) -> Arguments | None:
    leaves = list(given.leaves)
    for i in chosen:
        shape = leaves[i].shape
        square = len(shape) > 1 and shape[-1] == shape[-2]
        if (domain == "simplex" and not shape) or (domain == "spd" and not square):
            return None
        leaves[i] = dataclasses.replace(leaves[i], domain=domain)
    return given.replace(leaves)


def _finite(subject: Subject, given: Arguments, seed: int) -> float:
    """Return the part of the definition's values and derivatives that are finite."""
    case = Case("", "given", given)
    probing = Probing(subject, [case], seed, True)
    outcome = probing.run(case).oracle(*probing.draw(case, GIVEN))
    arrays = [a for key in ("y", "ct") for a in outcome[key] if np.size(a)]
    return min((float(np.isfinite(a).mean()) for a in arrays), default=1.0)
