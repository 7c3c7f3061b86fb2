"""The report on one backward rule: its findings, its facts, and both as text and as JSON."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..text import plural
from . import words
from .defects import DEFECTS, Defect
from .words import Number, digits, plain, short

_MOST_PROBES = 4  # of the further findings of one kind, by name
_FEWEST_DIGITS, _MOST_DIGITS = 6, 17  # the latter tell any two float64 numbers apart
_DTYPES = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Picture:
    """The expected array, the actual one and the tolerance: the error map of a page."""

    got: np.ndarray
    expected: np.ndarray
    tolerance: np.ndarray


@dataclass(frozen=True)
class Finding:
    """One defect, where it shows, and on how small an input.

    `argument` is the path of the argument whose cotangent is wrong ("x", "params['w']"; "" for a
    finding about no single one) and `output` the output whose cotangent shows it. `index` is the
    worst element: it is `got` and should be `expected ± tolerance`. `call` is the smallest input
    known to show it. `why` states the evidence in a line.
    """

    defect: str
    argument: str = ""
    output: str = ""
    index: tuple[int, ...] = ()
    got: Number | None = None
    expected: Number | None = None
    tolerance: float | None = None
    dtype: str = ""
    probe: str = ""
    call: str = ""
    why: str = ""
    picture: Picture | None = field(default=None, repr=False, compare=False)

    @property
    def kind(self) -> Defect:
        """The defect with its group, meaning and advice."""
        return DEFECTS[self.defect]

    @property
    def group(self) -> str:
        """value, cotangent, types, numerics, transforms or cost."""
        return self.kind.group

    @property
    def advice(self) -> str:
        """One line on what to do about it."""
        return self.kind.advice

    @property
    def explanation(self) -> str:
        """The meaning of the defect, and the evidence."""
        return f"{self.kind.meaning}{f'; {self.why}' if self.why else ''}"

    @property
    def where(self) -> str:
        """`d gamma`, the cotangent of an argument, and the output from which it comes."""
        via = f" via {self.output}" if self.output else ""
        return f"d {self.argument}{via}" if self.argument else self.output

    @property
    def place(self) -> str:
        """`d gamma [3]`."""
        return f"{self.where} {words.index(self.index)}".strip()

    @property
    def numbers(self) -> tuple[str, str]:
        """The actual and the expected number, with enough digits to tell them apart."""
        count = _FEWEST_DIGITS
        while count < _MOST_DIGITS and digits(self.got, count) == digits(self.expected, count):
            count += 1
        return digits(self.got, count), digits(self.expected, count)

    @property
    def comparison(self) -> str:
        """`got 1.25, expected 0.625 ± 1e-11 (tolerance/signal 2e-11)`, as far as it is known."""
        got, expected = self.numbers
        text = f"got {got}" if got else ""
        if expected:
            text += f"{', ' if text else ''}expected {expected}"
            if self.tolerance is not None:
                text += f" ± {short(self.tolerance)}" if self.tolerance else " exactly"
        share = self.tolerance_over_signal
        return text if share is None else f"{text} (tolerance/signal {short(share)})"

    @property
    def tolerance_over_signal(self) -> float | None:
        """The tolerance over the size of the expected numbers; None if that is unknown.

        The size is the root mean square of the array if the finding has its picture, and that of
        the one element otherwise. Below 1, a gradient of zeros would have failed.
        """
        if self.tolerance is None or self.expected is None:
            return None
        expected = np.asarray(self.picture.expected if self.picture else self.expected)
        size = np.abs(expected.astype(complex))
        size = size[np.isfinite(size)]
        largest = float(size.max(initial=0.0))
        if largest == 0:
            return None
        # Scaled before it is squared: the elements may lie near the dtype's limits.
        return float(self.tolerance / (largest * np.sqrt(np.mean((size / largest) ** 2))))

    @property
    def conditions(self) -> str:
        """The dtype and the kind of numbers that show it."""
        return ", ".join(filter(None, (self.dtype, self.probe)))

    def lines(self, others: Sequence["Finding"]) -> Iterator[str]:
        """Yield the lines of a terminal, with the further findings of the same kind."""
        head = " ".join(filter(None, (f"  {f'{self.group} / {self.defect}':<26}", self.place)))
        if len(head) + len(self.comparison) + 2 <= words.WIDTH:
            yield f"{head}  {self.comparison}".rstrip()
        else:
            yield head.rstrip()
            yield from words.paragraph(self.comparison)
        yield from words.paragraph(self.explanation)
        rows = {"probe": self.conditions, "also": also(others), "call": self.call}
        for label, text in (rows | {"advice": self.advice}).items():
            if text:
                yield from words.paragraph(f"{label:<8}{text}", hanging=8)

    def as_json(self) -> dict[str, Any]:
        """Return the finding as plain values, without its picture."""
        texts = ("dtype", "probe", "call", "why", "advice")
        return {
            "defect": self.defect,
            "group": self.group,
            "meaning": self.kind.meaning,
            "argument": self.argument,
            "output": self.output,
            "index": [int(i) for i in self.index],
            **plain({n: getattr(self, n) for n in ("got", "expected", "tolerance")}),
            **plain({"tolerance_over_signal": self.tolerance_over_signal}),
            **{name: getattr(self, name) for name in texts},
        }


def also(others: Sequence[Finding]) -> str:
    """Return the conditions of further findings of one kind, the first few by name."""
    conditions = list(dict.fromkeys(filter(None, (f.conditions for f in others))))
    left = len(conditions) - _MOST_PROBES
    return "; ".join(conditions[:_MOST_PROBES]) + (f"; and {left} more" if left > 0 else "")


@dataclass
class Report:
    """All findings about one function, and facts that are no failures.

    `resolution` holds for each argument the smallest error of a single element that this run
    would have caught, relative to the size of the cotangent's elements (their root mean square);
    None if the gradient is zero at every probe, so that the run cannot tell.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)
    resolution: dict[str, float | None] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    """By dtype, the largest error over the size of its array."""
    capabilities: dict[str, bool | None] = field(default_factory=dict)
    """jvp, hessian, vmap, …: whether it works; None: it was not tried."""
    cost: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes of residuals and of temporary memory: the rule's, and automatic differentiation's."""
    notes: list[str] = field(default_factory=list)
    worst: dict[str, Picture] = field(default_factory=dict, repr=False)
    """For each correct cotangent, its largest error relative to the tolerance."""
    probes: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there are no findings."""
        return not self.findings

    @property
    def kinds(self) -> list[tuple[Finding, list[Finding]]]:
        """The first finding of each defect in each place, with the others of its kind."""
        first: dict[tuple[str, str, str], list[Finding]] = {}
        for f in self.findings:
            first.setdefault((f.defect, f.argument, f.output), []).append(f)
        return [(same[0], same[1:]) for same in first.values()]

    @property
    def verdict(self) -> str:
        """`ok`, or the number of kinds of findings."""
        return "ok" if self.ok else plural(len(self.kinds), "finding")

    @property
    def worst_resolution(self) -> float | None:
        """The coarsest resolution of any argument; None if there is none."""
        return max((r for r in self.resolution.values() if r is not None), default=None)

    def raise_if_failed(self) -> None:
        """Raise an AssertionError with all findings, if there are any."""
        __tracebackhide__ = True  # pytest shows the line of the test, and not this one
        if self.findings:
            raise AssertionError(self.failure())

    def failure(self) -> str:
        """Return the message of an AssertionError.

        Its first line, which pytest shows in its summary, names every defect.
        """
        wrong = ", ".join(
            f"{f.defect} in {f.where}" if f.where else f.defect for f, _ in self.kinds
        )
        lines = [f"{self.name}: {self.verdict} ({wrong})"]
        for finding, others in self.kinds:
            lines += ["", *finding.lines(others)]
        if self.resolution:
            lines += ["", *self._resolutions()]
        return "\n".join(lines)

    def _resolutions(self) -> list[str]:
        texts = {k: "always 0" if r is None else short(r) for k, r in self.resolution.items()}
        return words.row("resolution", (f"{argument} {text}" for argument, text in texts.items()))

    def __str__(self) -> str:
        left = f"{self.name}: {self.verdict}"
        right = f"{plural(self.probes, 'probe')}, {words.seconds(self.seconds)}"
        lines = [f"{left}{' ' * max(2, words.WIDTH - len(left) - len(right))}{right}"]
        for finding, others in self.kinds:
            lines += [*finding.lines(others), ""]
        lines += self._resolutions()
        lines += words.row("error", (f"{dtype} {short(e)}" for dtype, e in self.errors.items()))
        for label, state in (("can", True), ("cannot", False), ("not tried", None)):
            lines += words.row(
                label, [name for name, can in self.capabilities.items() if can is state]
            )
        lines += words.row("keeps", (words.memory(kind, *both) for kind, both in self.cost.items()))
        for note in self.notes:
            lines += words.row("note", [note])
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain dicts, lists, strings and numbers, without its pictures."""
        return {
            "name": self.name,
            "ok": self.ok,
            "findings": [f.as_json() for f in self.findings],
            "resolution": plain(self.resolution),
            "errors": plain(self.errors),
            "capabilities": {
                name: None if can is None else bool(can) for name, can in self.capabilities.items()
            },
            "cost": {
                kind: {"rule": int(rule), "autodiff": int(autodiff)}
                for kind, (rule, autodiff) in self.cost.items()
            },
            "notes": list(self.notes),
            "probes": int(self.probes),
            "seconds": float(self.seconds),
        }


def dtypes_of(reports: Iterable[Report]) -> list[str]:
    """Return every dtype with an error in some report, the widest first."""
    order = {dtype: i for i, dtype in enumerate(_DTYPES)}
    return sorted(words.columns(r.errors for r in reports), key=lambda d: order.get(d, len(order)))


def by_group(reports: Iterable[Report]) -> dict[str, int]:
    """Count the kinds of findings of each group."""
    groups = [f.group for r in reports for f, _ in r.kinds]
    order = dict.fromkeys(defect.group for defect in DEFECTS.values())
    return {group: groups.count(group) for group in order if group in groups}
