"""Is a backward rule right? Every op of the table against its oracle.

The oracle of an op is its definition, differentiated by JAX. In float64 the two must agree
element by element to `RESOLUTION` of the array's largest element: both are the same mathematics,
and only rounding may part them. In float32 and bfloat16 the rule must round no worse than
automatic differentiation does: both errors are taken against the float64 oracle at the same
inputs, and the rule may have `SLACK` times autodiff's error and a few units in the last place.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..example import Example
from ..op import Op

RESOLUTION = 2.0**-40
"""Largest relative disagreement in float64, about 4096 roundings; a wrong term is far above it."""
SLACK = 4
ULPS = 4
DTYPES = ("float64", "float32", "bfloat16")


@dataclass(frozen=True)
class Finding:
    """One disagreement: where, what came, what was expected, and what would have been let pass."""

    op: str
    example: int
    dtype: str
    what: str
    index: tuple[int, ...]
    got: float
    expected: float
    tolerance: float

    def __str__(self) -> str:
        where = f"{self.what}{list(self.index)}" if self.index else self.what
        return (
            f"{self.op}, example {self.example}, {self.dtype}: {where} is {self.got:.9g}, "
            f"expected {self.expected:.9g} within {self.tolerance:.2g}"
        )


@dataclass
class Report:
    """What was found about one op."""

    op: str
    examples: int
    errors: dict[str, float] = field(default_factory=dict)
    """Largest error by dtype, over the largest element of its array."""
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain dicts and numbers."""
        return {**asdict(self), "ok": self.ok}


Arrays = list[Any]
Outcome = dict[str, Any]
Program = Callable[[Sequence[Arrays], Sequence[Any]], list[Outcome]]


def check(op: Op, dtypes: Sequence[str] = DTYPES) -> Report:
    """Compare an op's rules with its oracle on all its examples but the large ones.

    Raises ValueError for an op without examples: nothing would be checked.
    """
    start = time.perf_counter()
    examples = [e for e in op.examples if "bench" not in e.tags]
    if not examples:
        raise ValueError(f"{op.name} has no examples to verify it on; give @op(examples=...)")
    report = Report(op.name, len(examples))
    with jax.enable_x64(True):
        _, statics, _ = draw(op, examples, "float64")
        programs = rules_program(op, statics), oracle_program(op, statics)
        for dtype in dtypes:
            report.findings.extend(_check_dtype(op, examples, dtype, programs, report))
    report.seconds = time.perf_counter() - start
    return report


def _check_dtype(
    op: Op,
    examples: Sequence[Example],
    dtype: str,
    programs: tuple[Program, Program],
    report: Report,
) -> Iterator[Finding]:
    arrays, statics, cotangents = draw(op, examples, dtype)
    rules, definition = programs
    rule = jax.device_get(rules(arrays, cotangents))
    natural = oracle = jax.device_get(definition(arrays, cotangents))
    if dtype != "float64":
        oracle = jax.device_get(definition(*_widen((arrays, cotangents))))
    worst = 0.0
    for i, (got, auto, want) in enumerate(zip(rule, natural, oracle, strict=True)):
        for what in want:
            came, expected = _type(got[what]), _type(auto[what])
            if came != expected:
                what = f"{what} is {came} where {expected} is expected; its value"
                yield Finding(op.name, i, dtype, what, (), math.nan, math.nan, 0.0)
                continue
            finding, error = compare(got[what], auto[what], want[what], dtype)
            worst = max(worst, error)
            if finding:
                yield Finding(op.name, i, dtype, what, *finding)
    report.errors[dtype] = worst
    if dtype == "float64":
        yield from _check_reference(op, examples, arrays, statics, oracle)
        yield from _check_linear(op, lambda dy: jax.device_get(rules(arrays, dy)), cotangents, rule)


def draw(
    op: Op, examples: Sequence[Example], dtype: str
) -> tuple[list[Arrays], list[dict[str, Any]], list[Any]]:
    """Draw each example's arrays, its statics, and cotangents for its outputs."""
    drawn, cotangents = [], []
    for seed, example in enumerate(examples):
        arrays, statics = op.bind(**example.draw(seed, jnp.dtype(dtype)))
        y = jax.eval_shape(lambda *a, s=statics: op.definition(*a, **s), *arrays)
        rng = np.random.default_rng(10_000 + seed)
        cotangents.append(jax.tree.map(lambda t, r=rng: r.normal(size=t.shape).astype(t.dtype), y))
        drawn.append((arrays, statics))
    return [a for a, _ in drawn], [s for _, s in drawn], cotangents


def rules_program(op: Op, statics: Sequence[dict[str, Any]]) -> Program:
    """Compile the hand-written forward and backward pass of every example into one program."""

    def one(arrays, statics, dy):
        y, saved = op.fwd(*arrays, **statics)
        named = zip(op.arguments, op.bwd(saved, dy, **statics), strict=True)
        return {"y": y, **{f"d{name}": ct for name, ct in named if ct is not None}}

    return _compiled(one, statics)


def oracle_program(op: Op, statics: Sequence[dict[str, Any]]) -> Program:
    """Compile the definition and JAX's derivative of it, for every example, into one program."""

    def one(arrays, statics, dy):
        real = [i for i, a in enumerate(arrays) if _differentiable(a)]

        def definition(*chosen):
            full = list(arrays)
            for i, a in zip(real, chosen, strict=True):
                full[i] = a
            return op.definition(*full, **statics)

        y, vjp = jax.vjp(definition, *(arrays[i] for i in real))
        named = zip((op.arguments[i] for i in real), vjp(dy), strict=True)
        return {"y": y, **{f"d{name}": ct for name, ct in named}}

    return _compiled(one, statics)


def _compiled(one: Callable[..., Any], statics: Sequence[dict[str, Any]]) -> Program:
    return jax.jit(
        lambda arrays, dys: [one(a, s, dy) for a, s, dy in zip(arrays, statics, dys, strict=True)]
    )


def compare(
    got: np.ndarray, auto: np.ndarray, want: np.ndarray, dtype: str
) -> tuple[tuple[tuple[int, ...], float, float, float] | None, float]:
    """Compare one array with its oracle.

    Returns where and how it fails (index, got, expected, tolerance) or None, and its error over
    the oracle's largest element.
    """
    if got.size == 0:
        return None, 0.0
    got, auto, want = (np.asarray(a, np.float64) for a in (got, auto, want))
    scale = np.max(np.abs(want), initial=0.0)
    if dtype == "float64":
        tolerance = RESOLUTION * scale
    else:
        rounding = np.max(np.abs(auto - want), initial=0.0)
        tolerance = SLACK * rounding + ULPS * float(jnp.finfo(dtype).eps) * scale
    error = np.abs(got - want)
    error = np.where(np.isnan(error), np.inf, error)
    worst = np.unravel_index(np.argmax(error), error.shape)
    relative = float(error[worst] / scale) if scale else float(error[worst])
    if error[worst] <= tolerance:
        return None, relative
    place = tuple(int(i) for i in worst)
    return (place, float(got[worst]), float(want[worst]), float(tolerance)), relative


def _check_reference(
    op: Op,
    examples: Sequence[Example],
    arrays: Sequence[Arrays],
    statics: Sequence[dict[str, Any]],
    oracle: Sequence[Outcome],
) -> Iterator[Finding]:
    """The second opinion on the values, which broadcasts and promotes as plain JAX does."""
    reference = op.reference
    if reference is None:
        return
    chosen = [i for i, e in enumerate(examples) if "no reference" not in e.tags]
    program = _compiled(lambda a, s, _: reference(*a, **s), [statics[i] for i in chosen])
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        values = jax.device_get(program([arrays[i] for i in chosen], [None] * len(chosen)))
    for i, y in zip(chosen, values, strict=True):
        finding, _ = compare(y, y, oracle[i]["y"], "float64")
        if finding:
            yield Finding(op.name, i, "float64", "reference y", *finding)


def _check_linear(
    op: Op,
    backward: Callable[[Sequence[Any]], list[Outcome]],
    cotangents: Sequence[Any],
    rule: Sequence[Outcome],
) -> Iterator[Finding]:
    """A backward rule is linear: 0 to 0 exactly, and twice to twice, bit for bit."""
    for factor in (0.0, 2.0):
        outcomes = backward(jax.tree.map(lambda dy, k=factor: k * dy, cotangents))
        for i, (got, base) in enumerate(zip(outcomes, rule, strict=True)):
            for what in base:
                want = base[what] if what == "y" else factor * base[what]
                if not np.array_equal(got[what], want):
                    at = np.unravel_index(np.argmax(got[what] != want), want.shape)
                    place = tuple(int(j) for j in at)
                    numbers = (float(got[what][at]), float(want[at]), 0.0)
                    yield Finding(op.name, i, "float64", f"{what}({factor:g} dy)", place, *numbers)


def _type(array: np.ndarray) -> str:
    return f"{array.dtype}[{','.join(map(str, array.shape))}]"


def _differentiable(array: Any) -> bool:
    return array is not None and jnp.issubdtype(array.dtype, jnp.inexact)


def _widen(tree: Any) -> Any:
    """The same numbers in float64."""
    return jax.tree.map(
        lambda a: np.asarray(a, np.float64) if _differentiable(a) else a, jax.device_get(tree)
    )
