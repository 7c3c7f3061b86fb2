"""One row: an op on one of its bench examples, against automatic differentiation."""

import statistics
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import jax

from ..custom_op import Op
from ..errors import FnnError
from ..example import Example
from . import timing
from .forms import forms
from .timing import Ratio

BAR = 1.05
"""An op is slower if it takes more than this times a form of autodiff."""
SECONDS = 3.0
"""Of timing per row; compilation comes on top."""


@dataclass(frozen=True)
class Row:
    """One measurement. Times are medians of a forward and backward pass; bytes are XLA's.

    `fastest` names the fastest form that JAX differentiates: the definition ("autodiff") or the
    reference. Ratios are a form's time over the rules', so above 1 the rules win; `over_reference`
    is None where the reference is no JAX code or has another gradient. For a definition made of
    simple parts, the reference is the function of JAX itself.

    `residual_bytes` are all bytes kept for the backward pass, `beside_output` those that are not
    the output. The next layer keeps the output anyway, so an op adds only the latter to a model's
    memory, and only they are judged.
    """

    op: str
    call: str
    dtype: str
    seconds: dict[str, float]
    fastest: str
    over_autodiff: Ratio
    over_reference: Ratio | None
    over_fastest: Ratio
    temp_bytes: dict[str, int]
    residual_bytes: dict[str, int]
    beside_output: dict[str, int]
    rounds: int

    @property
    def faults(self) -> list[str]:
        """The reasons for `--check` to fail: "slower", "keeps more"."""
        beside = self.beside_output
        return faults(self.over_fastest.median, beside["manual"], beside["autodiff"])

    @property
    def verdict(self) -> str:
        """The faults, or "faster" or "as fast"."""
        speed = "faster" if self.over_fastest.median > BAR else "as fast"
        return ", ".join(self.faults) or speed

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "verdict": self.verdict, "ok": not self.faults}


def faults(over_fastest: float, beside: int, autodiff_beside: int) -> list[str]:
    """Judge an op by its speed over the fastest form, and by the bytes beside its output."""
    slower, larger = over_fastest < 1 / BAR, beside > autodiff_beside
    return ["slower"] * slower + ["keeps more"] * larger


def examples(op: Op) -> list[Example]:
    """Return an op's examples for timing; raise FnnError if there are none."""
    if tagged := [example for example in op.examples if "bench" in example.tags]:
        return tagged
    raise FnnError(
        f'{op.name} has no example tagged "bench"; add one of a realistic size to its '
        f'@op(examples=...): example(..., tags={{"bench"}})'
    )


def measure(op: Op, dtype: str = "float32", seconds: float = SECONDS) -> list[Row]:
    """Measure an op on each of its examples tagged "bench".

    Raises FnnError for an op that has none, that cannot run in this dtype, or whose forms do not
    compute the same.
    """
    return [measure_one(op, example, dtype, seconds) for example in examples(op)]


def measure_one(op: Op, example: Example, dtype: str, seconds: float = SECONDS) -> Row:
    """Measure an op on one example."""
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        call, compiled = forms(op, example, dtype)
        programs = {form.name: form.program for form in compiled}
        trials = {name: timing.trial(program, *call.inputs) for name, program in programs.items()}
        rivals = timing.hopeful({n: t for n, t in trials.items() if n != "manual"})
        timed = {n: programs[n] for n in dict.fromkeys(["manual", "autodiff", *rivals])}

        def compare(times: timing.Times) -> tuple[str, Ratio, Ratio]:
            fastest = min(rivals, key=lambda name: statistics.median(times[name]))
            ratios = {n: timing.ratio(times[n], times["manual"]) for n in ("autodiff", fastest)}
            return fastest, ratios["autodiff"], ratios[fastest]

        times = timing.rounds(
            *(timed, call.inputs, timing.calls(min(trials.values())), seconds),
            settled=lambda times: all(ratio.settled for ratio in compare(times)[1:]),
        )
        ratios = {name: timing.ratio(times[name], times["manual"]) for name in times}
        for name in programs.keys() - times.keys():
            pair = {n: programs[n] for n in ("manual", name)}
            few = timing.rounds(pair, call.inputs, 1, fewest=timing.FEW)
            times[name] = few[name]
            ratios[name] = timing.ratio(few[name], few["manual"])
    fastest = compare(times)[0]
    return Row(
        op=op.name,
        call=call.label,
        dtype=dtype,
        seconds={name: statistics.median(times[name]) for name in times},
        fastest=fastest,
        over_autodiff=ratios["autodiff"],
        over_reference=ratios.get("reference"),
        over_fastest=ratios[fastest],
        temp_bytes={form.name: form.temporary for form in compiled},
        residual_bytes={form.name: form.residuals for form in compiled},
        beside_output={form.name: form.beside_output for form in compiled},
        rounds=len(times["manual"]),
    )
