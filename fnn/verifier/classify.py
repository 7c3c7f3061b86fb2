"""Which defect is it? Read from how an array differs, and where."""

from collections.abc import Iterator, Sequence

import numpy as np

from .cotangents import only
from .judge import Misfit, size_of, widen
from .probes import Probing
from .trials import Mismatch, Trial
from .values import rounded

SMALL = 1e-6
"""Up to this relative error digits are lost, and the mathematics may be right."""
LOSS = "cancellation", "digits are lost, and more than autodiff loses"


def classify(probing: Probing, mismatches: Sequence[Mismatch]) -> tuple[str, str]:
    """Return the defect that the mismatches of one argument show, and the evidence in words.

    The first mismatch is the plainest point: ordinary numbers in the original shapes.
    """
    first = mismatches[0]
    trial, bad = first.trial, first.misfit
    if bad.nonfinite:
        return ("nan" if np.isnan(bad.got[bad.bad]).any() else "overflow"), ""
    if first.defect:
        return first.defect, _WHY[first.defect]
    if trial.probe.kind == "mask":
        return "size", f"only with {trial.probe.label}"
    if trial.probe.kind == "magnitude":
        if 0 < bad.relative < SMALL and bad.got[bad.bad].any():
            return LOSS
        return "tail", f"only with {trial.probe.label}"
    if trial.case.kind in ("size", "geometry", "broadcast") and trial.case.label:
        if trial.case.optional and (scattered := _scattered(trial, bad)):
            return scattered
        return trial.case.kind, f"only with {trial.case.label}"
    return _pattern(probing, mismatches)


_WHY = {
    "kink": "at a kink, compared with the one-sided derivatives",
    "special value": "at a special point, compared with the derivative nearby",
}


def _pattern(probing: Probing, mismatches: Sequence[Mismatch]) -> tuple[str, str]:
    """Recognise the expected cotangent times a factor, moved, or wrong in a few places."""
    first = mismatches[0]
    bad, trial = first.misfit, first.trial
    got, want, tolerance = bad.got, bad.want, 8 * bad.tolerance + 1e-9 * size_of(bad.want)
    several = sum(np.issubdtype(np.asarray(y).dtype, np.inexact) for y in trial.want["y"]) > 1
    ignored = _ignored_output(probing, first)
    if ignored and not (several and size_of(got) == 0):
        return "ignored output", ignored
    if size_of(got) == 0:
        return "term", "the cotangent is zero"
    factor = _factor(got, want, tolerance)
    if factor is not None:
        return _in_words(trial, first.which, factor)
    for what, other in _moves(trial, first.which, want):
        if other.shape == got.shape and np.all(np.abs(got - other) <= tolerance):
            return "order", what
    if got.size > 1 and np.allclose(np.sort(got, None), np.sort(want, None), rtol=1e-9):
        return "order", "the same numbers, in another order"
    edge = _edge(trial, bad)
    if edge and not _in_place(mismatches):
        return "tail", edge
    if _stretched(trial, first.which):
        return "broadcast", "the argument is broadcast, and this is not the sum over its copies"
    few = max(1, got.size // 20)
    if bad.bad.sum() <= few < got.size:
        return "element", f"{bad.bad.sum()} of {got.size} elements"
    return "term", f"{bad.bad.sum()} of {got.size} elements, by up to {bad.relative:.2g} relative"


def _factor(got: np.ndarray, want: np.ndarray, tolerance: np.ndarray) -> complex | None:
    finite = np.isfinite(want) & np.isfinite(got)
    if finite.sum() < 2 or not np.vdot(want[finite], want[finite]).real:
        if finite.sum() == 1 and want[finite][0]:
            ratio = got[finite][0] / want[finite][0]
            simple = [s * n**p for s in (1, -1) for n in range(1, 65) for p in (1, -1)]
            return next((c for c in simple if abs(ratio - c) < 1e-9 * abs(c)), None)
        return None
    factor = np.vdot(want[finite], got[finite]) / np.vdot(want[finite], want[finite])
    close = np.abs(got - factor * want) <= tolerance * max(1.0, abs(factor))
    return factor if np.all(close[finite]) else None


def _in_words(trial: Trial, which: int, factor: complex) -> tuple[str, str]:
    """Return the defect of a cotangent times a factor, and the factor's possible origin."""
    if abs(factor + 1) < 1e-6:
        return "sign", "the right cotangent, negated"
    words = f"the right cotangent times {factor.real if np.isreal(factor) else factor:.9g}"
    sizes = {n for leaf in trial.case.arguments.leaves for n in leaf.shape if n > 1}
    sizes |= {a.size for a in trial.values if isinstance(a, np.ndarray) and a.size > 1}
    for n in sorted(sizes):
        for ratio, sign in ((n, "×"), (1 / n, "÷")):
            if abs(factor - ratio) < 1e-6 * ratio:
                words += f" ({sign} {n}, the size of an axis or array: a mean for a sum?)"
                if _stretched(trial, which):
                    return "broadcast", words
                return "factor", words
    return "factor", words


def _stretched(trial: Trial, which: int) -> bool:
    """Whether an argument is broadcast, or has an axis of length 1 and fewer elements than y."""
    arguments = trial.case.arguments
    shape = arguments.leaves[arguments.places[which]].shape
    return trial.case.kind == "broadcast" or any(
        1 in shape[:-1] and np.size(y) > np.prod(shape) for y in trial.want["y"][:1]
    )


def _moves(trial: Trial, which: int, want: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the expected cotangent in usual wrong orders, and those of the other arguments."""
    for axis in range(want.ndim):
        yield f"reversed along axis {axis}", np.flip(want, axis)
        for by in (1, -1):
            yield f"rolled by {by} along axis {axis}", np.roll(want, by, axis)
    if want.ndim >= 2:
        yield "transposed", np.swapaxes(want, -1, -2)
    for other, path in enumerate(trial.case.arguments.paths):
        if other != which:
            yield f"the cotangent of {path}", np.asarray(trial.want["ct"][other])


def _edge(trial: Trial, bad: Misfit) -> str:
    """Say so if exactly the largest or the smallest of an argument's numbers are wrong."""
    arguments = trial.case.arguments
    for place in arguments.places:
        x = np.abs(trial.values[place]) if np.shape(trial.values[place]) == bad.bad.shape else None
        if x is None or bad.bad.all() or bad.bad.sum() < 2 or x.size < 8:
            continue
        path = arguments.leaves[place].path
        if x[bad.bad].min() > x[~bad.bad].max():
            return f"only where |{path}| is at least {x[bad.bad].min():.3g}"
        if x[bad.bad].max() < x[~bad.bad].min() and bad.bad.sum() > 2:
            return f"only where |{path}| is at most {x[bad.bad].max():.3g}"
    return ""


def _scattered(trial: Trial, bad: Misfit) -> tuple[str, str] | None:
    """Return the defect if a larger array is wrong only at rare numbers, wherever they are."""
    if edge := _edge(trial, bad):
        return "tail", edge
    lines = any(np.any(np.mean(bad.bad, axis=axis) > 0.75) for axis in range(bad.bad.ndim))
    if lines or bad.bad.mean() > 0.05:
        return None
    return "element", f"{bad.bad.sum()} of {bad.bad.size} elements"


def _in_place(mismatches: Sequence[Mismatch]) -> bool:
    """Whether the same elements are wrong for other numbers, so that their place matters."""
    first = mismatches[0]
    alike = [
        m.misfit.bad
        for m in mismatches[1:]
        if m.trial.case is first.trial.case and m.trial.probe.kind == "ordinary"
    ]
    return bool(alike) and all(np.array_equal(bad, first.misfit.bad) for bad in alike)


def loses_digits(probing: Probing, m: Mismatch) -> bool:
    """Whether an error in float64 is rounding, which is far larger in float32."""
    trial, which = m.trial, m.which
    if m.misfit.nonfinite or m.what != "ct" or trial.dtype != "float64":
        return False
    run = probing.run(trial.case, "float32")
    values = rounded(trial.case.arguments, trial.values, "float32")
    want = widen(probing.run(trial.case).oracle(values, trial.dys)["ct"][which])
    rule, auto = (
        np.abs(widen(program(values, trial.dys)["ct"][which]) - want)
        for program in (run.rule, run.oracle)
    )
    finite = np.isfinite(auto)
    narrow, natural = (float(np.max(e[finite], initial=0.0)) for e in (rule, auto))
    exact = float(np.max(np.abs(m.misfit.got - m.misfit.want)[m.misfit.bad]))
    return narrow > 16 * natural and narrow > 1024 * exact


def _ignored_output(probing: Probing, first: Mismatch) -> str:
    """Say so if one of several outputs contributes nothing."""
    trial, run = first.trial, probing.run(first.trial.case)
    for j in range(len(trial.dys) if len(trial.dys) > 1 else 0):
        dys = only(trial.dys, j)
        got = run.rule(trial.values, dys)["ct"][first.which]
        want = run.oracle(trial.values, dys)["ct"][first.which]
        if size_of(got) == 0 < size_of(want):
            return f"a cotangent of output {j} alone gives zero"
    return ""
