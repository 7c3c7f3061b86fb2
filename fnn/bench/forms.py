"""The compared forms of an op: its rules, and functions that JAX differentiates.

    manual      the hand-written rules
    autodiff    the definition, differentiated by JAX
    reference   the op's reference, if it is JAX code with the definition's derivative

Each is one program, compiled with JAX's defaults, from arrays and random cotangents of the outputs
to the outputs and all cotangents. No loss sums them, so the compiler cannot drop a part.
"""

from collections.abc import Callable, Iterable, Sequence
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
from ..text import shape

AGREE = 2e-3
"""The largest relative distance, in norm, of two forms: rounding, TF32 products on a GPU."""
LONGEST = 2000
"""The most equations of a reference; more is a Python loop over elements, and no rival."""


@dataclass(frozen=True)
class Form:
    """One way to compute an op and its cotangents, compiled.

    In bytes: the residuals, those of them that are not the output, and the program's temporary
    memory.
    """

    name: str
    program: Callable[..., Any]
    residuals: int
    beside_output: int
    temporary: int


class BenchCall:
    """One call of an op: an example's arrays in a dtype, its statics, random cotangents."""

    def __init__(self, op: Op, example: Example, dtype: str, seed: int = 0):
        arguments = example.draw(seed, jnp.dtype(dtype))
        arrays, self.statics = op.bind(**arguments)
        outputs = jax.eval_shape(partial(_leaves, partial(op, **self.statics)), *arrays)
        rng = np.random.default_rng((seed, 1))  # not the example's draws: dy = x is a special case
        dys = [jnp.asarray(rng.normal(size=y.shape), y.dtype) for y in outputs if _inexact(y)]
        self.inputs = arrays, dys
        labels = [
            f"{name} {shape(a.shape)}"
            for name, a in zip(op.arguments, arrays, strict=True)
            if a is not None
        ]
        statics = {n: v for n, v in arguments.items() if n in self.statics and v is not None}
        self.label = ", ".join([*labels, *(f"{name}={v!r}" for name, v in statics.items())])


def forms(op: Op, example: Example, dtype: str) -> tuple[BenchCall, list[Form]]:
    """Compile every form of an op for one example, and check that all compute the same.

    The check uses float32 at least: narrower dtypes have ties, which forms may split differently.

    Raises FnnError, naming the op, where a form cannot be called or computes something else.
    """
    try:
        call = BenchCall(op, example, dtype)
        wide = call if dtype in ("float32", "float64") else BenchCall(op, example, "float32")
    except Exception as error:
        problem = f"{op.name} cannot run its bench example in {dtype}"
        raise FnnError(f"{problem}: {_first_line(error)}") from error
    functions: dict[str, Callable[..., Any] | None] = {"manual": op, "autodiff": op}
    if "no reference" not in example.tags:
        functions["reference"] = op.reference
    compiled: dict[str, Form] = {}
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
            problem = f"{op.name} ({name}) cannot run {call.label}"
            raise FnnError(f"{problem}: {_first_line(error)}") from error
        if form is None or checked is None:
            continue
        actual = jax.device_get(checked.program(*wide.inputs))
        expected = actual if expected is None else expected
        if _same_function(op, name, actual, expected, call):
            compiled[name] = form
    return call, [compiled.pop("manual"), *compiled.values()]


def _form(name: str, function: Callable[..., Any], call: BenchCall) -> Form | None:
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


def _both_ways(function: Callable[..., Any], arrays: Sequence[Any], dys: Iterable[Any]) -> Any:
    """Return the output's leaves, and the cotangents of the arrays for `dys`."""
    y, pull = _vjp(function, arrays)
    dys = iter(dys)
    full = [
        next(dys).astype(out.dtype) if _inexact(out) else np.zeros(out.shape, jax.dtypes.float0)
        for out in y
    ]
    return y, pull(full)


def _vjp(function: Callable[..., Any], arrays: Sequence[Any]) -> tuple[list[Any], Any]:
    """Return the output's leaves, and the backward pass to the arrays that have a gradient."""
    which = [i for i, a in enumerate(arrays) if a is not None and _inexact(a)]

    def of_inexact(*inexact: Any) -> list[Any]:
        full = list(arrays)
        for i, a in zip(which, inexact, strict=True):
            full[i] = a
        return _leaves(function, *full)

    return jax.vjp(of_inexact, *(arrays[i] for i in which))


def _leaves(function: Callable[..., Any], *arrays: Any) -> list[Any]:
    return jax.tree.leaves(function(*arrays))


def _inexact(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)


def _same_function(op: Op, name: str, actual: Any, expected: Any, call: BenchCall) -> bool:
    """Return whether a form computes the definition; a reference's gradient may differ.

    Raises FnnError for any other difference: the form is wrong, or of another function.
    """
    values, cotangents = (_close(*pair) for pair in zip(actual, expected, strict=True))
    if values and (cotangents or name == "reference"):
        return cotangents
    difference = "values" if not values else "gradients"
    advice = (
        f"`fnn verify {op.name}` says more"
        if name == "manual"
        else f"{name}= must be another form of the same function"
    )
    raise FnnError(
        f"{op.name} ({name}) has other {difference} than the definition at {call.label}; {advice}"
    )


def _close(actual: Sequence[Any], expected: Sequence[Any]) -> bool:
    if [np.shape(a) for a in actual] != [np.shape(a) for a in expected]:
        return False
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(actual, expected, strict=True)
    ]
    distance = sum(float(np.sum((a - b) ** 2)) for a, b in pairs)
    return distance <= AGREE**2 * sum(float(np.sum(b**2)) for _, b in pairs)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
