"""Run a traced program in NumPy, one operation after another, as it is written.

A program that is verified runs a few dozen times on a few dozen numbers, so that compiling would
take nearly all of the time. Here nothing is compiled, fused, reordered or simplified.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from ..jaxprs import CUSTOM, INLINED, carried, nested
from . import axes, elements, indices, products  # noqa: F401 (they fill the table)
from .primitives import PRIMITIVES, Function, is_extended, primitive

LEFT_TO_JAX = frozenset(
    [
        *("random_bits", "random_wrap", "random_unwrap", "random_split", "random_fold_in"),
        *("random_seed", "random_clone", "threefry2x32", "cholesky", "triangular_solve", "lu"),
        *("lu_pivots_to_permutation", "qr", "geqrf", "householder_product", "eigh", "svd"),
    ]
)
"""Primitives that JAX runs, one at a time: those of its own keys, and LAPACK's factorisations."""


MOST_RESULTS = 1024
"""Number of results of primitives left to JAX that are stored."""
_RESULTS: dict[Any, Any] = {}
MOST_STEPS = 3000
"""Operations in all iterations of a scan; beyond these, compiling is faster."""


class Unknown(Exception):
    """A program that cannot run here."""


def interpreter(closed: Any) -> Callable[[Sequence[Any]], list[Any]] | None:
    """Return a function from a program's inputs to its outputs; None if it must be compiled."""
    if closed.effects:
        return None
    try:
        run = _program(closed.jaxpr, closed.consts)
    except Unknown:
        return None

    def outer(arrays: Sequence[Any]) -> list[Any]:
        with np.errstate(all="ignore"):
            return [handed_out(a) for a in run([taken_in(a) for a in arrays])]

    return outer


def _program(jaxpr: Any, consts: Sequence[Any]) -> Callable[[Sequence[Any]], list[Any]]:
    """Turn a program into a list of steps over numbered slots."""
    slots: dict[Any, int] = {}
    literals: list[Any] = []

    def slot(var: Any) -> int:
        if isinstance(var, core.Literal):
            literals.append(_constant(var.val, getattr(var.aval, "dtype", None)))
            return -len(literals)  # constants stand at the end, counted backwards
        return slots.setdefault(var, len(slots))

    starts = [slot(v) for v in jaxpr.constvars]
    entries = [slot(v) for v in jaxpr.invars]
    steps = [
        (
            operation(e),
            [slot(v) for v in e.invars],
            [slot(v) for v in e.outvars],
            e.primitive.multiple_results,
        )
        for e in jaxpr.eqns
    ]
    exits = [slot(v) for v in jaxpr.outvars]
    values: list[Any] = [None] * len(slots) + literals[::-1]
    for i, const in zip(starts, consts, strict=True):
        values[i] = _constant(const, None)

    def run(arrays: Sequence[Any]) -> list[Any]:
        now = values.copy()
        for i, array in zip(entries, arrays, strict=True):
            now[i] = array
        for function, ins, outs, several in steps:
            results = function(*[now[i] for i in ins])
            if several:
                for i, array in zip(outs, results, strict=True):
                    now[i] = array
            else:
                now[outs[0]] = results
        return [now[i] for i in exits]

    return run


def _constant(value: Any, dtype: Any) -> Any:
    return taken_in(value) if _is_key(value) else np.asarray(value, dtype)


def operation(equation: Any) -> Function:
    """Return the function of an equation."""
    name = equation.primitive.name
    if any(is_extended(v.aval.dtype) and not v.aval.size for v in equation.outvars):
        raise Unknown("no keys")  # an empty array of objects has no kind of key
    function: Function | None = None
    if name in PRIMITIVES:
        function = PRIMITIVES[name](equation)
    elif name in CUSTOM or name in INLINED:
        inner = list(nested(equation))
        if len(inner) >= 1 and len(inner[0].jaxpr.invars) == len(equation.invars):
            run = _program(inner[0].jaxpr, inner[0].consts)
            function = lambda *arrays: run(arrays)  # noqa: E731
    elif name in LEFT_TO_JAX:
        function = _by_jax(equation)
    if function is None:
        raise Unknown(name)
    return function


@dataclass(frozen=True)
class _Key:
    """A PRNG key. Arrays of keys are arrays of these objects, which NumPy can move."""

    kind: str
    words: tuple[int, ...]

    def __hash__(self) -> int:
        return hash(self.words)


def _is_key(array: Any) -> bool:
    return isinstance(array, jax.Array) and is_extended(array.dtype)


def taken_in(array: Any) -> Any:
    """Return an array as NumPy's, with keys as objects."""
    if not _is_key(array):
        return np.asarray(array)
    kind, words = str(jax.random.key_impl(array)), np.asarray(jax.random.key_data(array))
    keys = np.empty(array.shape, object)
    for at in np.ndindex(keys.shape):
        keys[at] = _Key(kind, tuple(words[at].tolist()))
    return keys


def handed_out(array: Any) -> Any:
    """Return an array as NumPy's, with keys as JAX has them."""
    array = np.asarray(array)
    if array.dtype != object or not array.size:
        return array
    keys = array.reshape(-1).tolist()
    words = np.array([key.words for key in keys], np.uint32).reshape(*array.shape, -1)
    return jax.random.wrap_key_data(jnp.asarray(words), impl=keys[0].kind)


def _by_jax(equation: Any) -> Function:
    """Return a function that runs one primitive by JAX, once for the same inputs.

    Programs draw from the same key again and again.
    """
    bind, several = equation.primitive.bind, equation.primitive.multiple_results
    params = equation.primitive.get_bind_params(equation.params)
    what = equation.primitive.name, str(params)

    def run(*arrays: Any) -> Any:
        inputs = list(map(np.asarray, arrays))
        key = (
            what,
            *(
                (a.shape, a.dtype, tuple(a.reshape(-1)) if a.dtype == object else a.tobytes())
                for a in inputs
            ),
        )
        if key not in _RESULTS:
            with jax.enable_x64(True):
                results = bind(*(jnp.asarray(handed_out(a)) for a in inputs), **params)
            outs = [taken_in(a) for a in (results if several else [results])]
            if len(_RESULTS) >= MOST_RESULTS:
                _RESULTS.clear()
            _RESULTS[key] = outs if several else outs[0]
        return _RESULTS[key]

    return run


@primitive("cond")
def _cond(equation: Any) -> Function:
    branches = [_program(b.jaxpr, b.consts) for b in nested(equation)]
    if len(branches) != len(equation.params["branches"]):
        raise Unknown("cond")

    def run(which: Any, *arrays: Any) -> Any:
        return branches[min(max(int(which), 0), len(branches) - 1)](arrays)

    return run


@primitive("platform_index")
def _platform_index(equation: Any) -> Function:
    """Return the branch for a CPU."""
    kinds = equation.params["platforms"]
    branch = next(i for i, names in enumerate(kinds) if names is None or "cpu" in names)
    return lambda: np.int32(branch)


@primitive("scan")
def _scan(equation: Any) -> Function:
    (inner,) = nested(equation)
    body, length = inner.jaxpr, equation.params["length"]
    if length * len(body.eqns) > MOST_STEPS:
        raise Unknown("a long scan")
    carry = carried(equation, body)
    step = _program(body, inner.consts)
    count = carry.stop - carry.start
    types_of_slices = [
        (v.aval.shape, object if is_extended(v.aval.dtype) else v.aval.dtype)
        for v in equation.outvars[count:]
    ]
    order = range(length)[::-1] if equation.params["reverse"] else range(length)

    def run(*arrays: Any) -> Any:
        consts, slices = arrays[: carry.start], arrays[carry.stop :]
        state = list(arrays[carry])
        outs = [np.zeros(shape, dtype) for shape, dtype in types_of_slices]
        for i in order:
            results = step([*consts, *state, *(a[i] for a in slices)])
            state = results[:count]
            for out, part in zip(outs, results[count:], strict=True):
                out[i, ...] = part
        return [*state, *outs]

    return run
