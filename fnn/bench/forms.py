"""The forms of an op that are compared: its rules, and what JAX differentiates by itself.

    manual      the hand-written rules
    autodiff    the definition, differentiated by JAX
    reference   the op's reference, if it is JAX code with the definition's derivative

Each is one program, compiled as JAX compiles by default: arrays and random cotangents of the
outputs go in, the outputs and all cotangents come out. Nothing is summed to a loss, so nothing can
be left out or moved into the sum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..custom_op import Op, rules
from ..errors import FnnError
from ..example import Example
from ..memory import residual_bytes, temporary_bytes

AGREE = 2e-3
"""How far apart, in norm, two forms of one function may be: rounding, TF32 products on a GPU."""
LONGEST = 2000
"""Equations; a reference of more is a Python loop over elements, and no rival."""


@dataclass(frozen=True)
class Form:
    """One way to compute an op and its cotangents, compiled.

    In bytes: what it keeps for its backward pass, how much of that is not the output itself, and
    the program's temporary memory.
    """

    name: str
    program: Callable[..., Any]
    residuals: int
    beside_output: int
    temporary: int


class Call:
    """One call of an op: an example's arrays in some dtype, its statics, random cotangents."""

    def __init__(self, op: Op, example: Example, dtype: str, seed: int = 0):
        drawn = example.draw(seed, jnp.dtype(dtype))
        arrays, self.statics = op.bind(**drawn)
        outputs = jax.eval_shape(partial(_leaves, partial(op, **self.statics)), *arrays)
        rng = np.random.default_rng((seed, 1))  # not the example's draws: dy = x is a special case
        dys = [jnp.asarray(rng.normal(size=y.shape), y.dtype) for y in outputs if _inexact(y)]
        self.inputs = arrays, dys
        shown = [f"{name} {_shape(a)}" for name, a in zip(op.arguments, arrays, strict=True)]
        shown += [f"{name}={value!r}" for name, value in drawn.items() if name in self.statics]
        self.label = ", ".join(words for words in shown if not words.endswith("None"))


def forms(op: Op, example: Example, dtype: str) -> tuple[Call, list[Form]]:
    """Compile every form of an op for one example, and check that all compute the same.

    They are checked in float32 at least: in narrower dtypes there are ties, which each form may
    split in its own way.

    Raises FnnError, naming the op, where a form cannot be called or computes something else.
    """
    try:
        call = Call(op, example, dtype)
        wide = call if dtype in ("float32", "float64") else Call(op, example, "float32")
    except Exception as error:
        named = f"{op.name} cannot run its bench example in {dtype}"
        raise FnnError(f"{named}: {_first_line(error)}") from error
    functions: dict[str, Callable[..., Any] | None] = {"manual": op, "autodiff": op}
    if "no reference" not in example.tags:
        functions["reference"] = op.reference
    made: dict[str, Form] = {}
    expected: Any = None
    for name in ("autodiff", "manual", "reference"):
        function = functions.get(name)
        if function is None:
            continue
        try:
            form = _form(name, function, call)
            checked = form if wide is call else _form(name, function, wide)
        except Exception as error:
            if name == "reference":
                continue  # it need not be JAX code, nor take every dtype
            named = f"{op.name} ({name}) cannot run {call.label}"
            raise FnnError(f"{named}: {_first_line(error)}") from error
        if form is None or checked is None:
            continue
        came = jax.device_get(checked.program(*wide.inputs))
        expected = came if expected is None else expected
        if _same_function(op, name, came, expected, call):
            made[name] = form
    return call, [made.pop("manual"), *made.values()]


def _form(name: str, function: Callable[..., Any], call: Call) -> Form | None:
    """Compile one form; None for a reference that is an unrolled loop."""
    function = partial(function, **call.statics)
    with rules("manual" if name == "manual" else "autodiff"):
        traced = jax.jit(partial(_both_ways, function)).trace(*call.inputs)
        if name == "reference" and len(traced.jaxpr.eqns) > LONGEST:
            return None
        compiled = traced.lower().compile()
        residuals, beside = (
            residual_bytes(lambda *a: _vjp(function, a), *call.inputs[0], beside_output=flag)
            for flag in (False, True)
        )
    return Form(name, compiled, residuals, beside, temporary_bytes(compiled))


def _both_ways(function: Callable[..., Any], arrays: Sequence[Any], dys: Sequence[Any]) -> Any:
    """Return the output's leaves, and the cotangents that come back for `dys`."""
    y, pull = _vjp(function, arrays)
    given = iter(dys)
    full = [
        next(given).astype(out.dtype) if _inexact(out) else np.zeros(out.shape, jax.dtypes.float0)
        for out in y
    ]
    return y, pull(full)


def _vjp(function: Callable[..., Any], arrays: Sequence[Any]) -> tuple[list[Any], Any]:
    """Return the output's leaves, and the backward pass to the arrays that have a gradient."""
    which = [i for i, a in enumerate(arrays) if a is not None and _inexact(a)]

    def of_chosen(*chosen: Any) -> list[Any]:
        full = list(arrays)
        for i, a in zip(which, chosen, strict=True):
            full[i] = a
        return _leaves(function, *full)

    return jax.vjp(of_chosen, *(arrays[i] for i in which))


def _leaves(function: Callable[..., Any], *arrays: Any) -> list[Any]:
    return jax.tree.leaves(function(*arrays))


def _inexact(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)


def _same_function(op: Op, name: str, came: Any, expected: Any, call: Call) -> bool:
    """Whether a form computes what the definition does; only a reference's gradient may differ.

    Raises FnnError for a form that has no right to: it is wrong, or none of this op.
    """
    values, cotangents = (_close(*pair) for pair in zip(came, expected, strict=True))
    if values and (cotangents or name == "reference"):
        return cotangents
    what = "values" if not values else "gradients"
    advice = (
        f"`fnn verify {op.name}` says more"
        if name == "manual"
        else f"{name}= must be another form of the same function"
    )
    raise FnnError(
        f"{op.name} ({name}) has other {what} than the definition at {call.label}; {advice}"
    )


def _close(came: Sequence[Any], expected: Sequence[Any]) -> bool:
    if [np.shape(a) for a in came] != [np.shape(a) for a in expected]:
        return False
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(came, expected, strict=True)
    ]
    apart = sum(float(np.sum((a - b) ** 2)) for a, b in pairs)
    return apart <= AGREE**2 * sum(float(np.sum(b**2)) for _, b in pairs)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _shape(array: Any) -> str:
    return "None" if array is None else "×".join(map(str, array.shape)) or "scalar"
