"""A report in a terminal, as an assertion's message, and as JSON."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..text import MISSING, plural, size
from .defects import DEFECTS

if TYPE_CHECKING:
    from rich.table import Table

    from .report import Finding, Report

WIDTH = 100
_LABEL = 12  # columns of the label that opens a row of facts
_INDENT = 6  # columns before what is said about a finding
_MOST_CASES = 4  # of one finding, named one by one
_FEWEST_DIGITS, _MOST_DIGITS = 6, 17  # the latter tell any two float64 numbers apart
_DTYPES = ("float64", "float32", "bfloat16", "float16")
Number = complex | np.number


def as_text(report: "Report") -> str:
    """Return the report as lines for a terminal."""
    lines = [_title(report)]
    for finding, others in grouped(report.findings):
        lines += [*_finding(finding, others), ""]
    lines += [
        *_row("resolution", (_told(*item) for item in report.resolution.items())),
        *_row("error", (f"{dtype} {short(e)}" for dtype, e in report.errors.items())),
    ]
    for word, state in (("can", True), ("cannot", False), ("not tried", None)):
        lines += _row(word, [name for name, can in report.capabilities.items() if can is state])
    lines += _row("keeps", (_kept(*item) for item in report.cost.items()))
    for note in report.notes:
        lines += _row("note", [note])
    return "\n".join(lines)


def failure(report: "Report") -> str:
    """Return the message of an AssertionError: the first line alone says what is wrong.

    pytest shows that line in its summary, and all of them under the failing test.
    """
    known = grouped(report.findings)
    wrong = ", ".join(f"{f.defect} in {where(f)}" if where(f) else f.defect for f, _ in known)
    lines = [f"{_verdict(report)} ({wrong})"]
    for finding, others in known:
        lines += ["", *_finding(finding, others)]
    if report.resolution:
        lines += ["", *_row("resolution", (_told(*item) for item in report.resolution.items()))]
    return "\n".join(lines)


def table(reports: Sequence["Report"]) -> "Table":
    """Return a row a report, for rich to print: errors by dtype, memory over autodiff's."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    costs, dtypes = columns(r.cost for r in reports), dtypes_of(reports)
    drawn = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for head in ("op", "", "resolution", *dtypes, *costs, "s"):
        if head == "op":
            drawn.add_column(head, overflow="fold", min_width=12)
        else:
            drawn.add_column(head, justify="right" if head else "left", no_wrap=True)
    for r in reports:
        drawn.add_row(
            Text(r.name, "" if r.ok else "bold"),
            Text("ok", "green") if r.ok else Text("FAILED", "bold red"),
            short(worst_resolution(r)),
            *(short(r.errors.get(dtype)) for dtype in dtypes),
            *(ratio(*r.cost[kind]) if kind in r.cost else MISSING for kind in costs),
            f"{r.seconds:.1f}",
        )
    return drawn


def as_json(report: "Report") -> dict[str, Any]:
    """Return the report as what JSON can hold, without its pictures.

    A finite real number stays a number. NaN, infinities and complex numbers, which JSON lacks,
    become text that Python's `float` and `complex` read: "nan", "-inf", "(1-2j)".
    """
    return {
        "name": report.name,
        "ok": report.ok,
        "findings": [_finding_as_json(f) for f in report.findings],
        "resolution": _plain(report.resolution),
        "errors": _plain(report.errors),
        "capabilities": {
            name: None if can is None else bool(can) for name, can in report.capabilities.items()
        },
        "cost": {
            kind: {"rule": int(rule), "autodiff": int(autodiff)}
            for kind, (rule, autodiff) in report.cost.items()
        },
        "notes": list(report.notes),
        "probes": int(report.probes),
        "seconds": float(report.seconds),
    }


def _finding_as_json(f: "Finding") -> dict[str, Any]:
    return {
        "defect": f.defect,
        "group": f.group,
        "meaning": DEFECTS[f.defect].meaning,
        "argument": f.argument,
        "output": f.output,
        "index": [int(i) for i in f.index],
        **_plain({"got": f.got, "expected": f.expected, "tolerance": f.tolerance}),
        **_plain({"tolerance_over_signal": over_signal(f)}),
        "dtype": f.dtype,
        "probe": f.probe,
        "call": f.call,
        "why": f.why,
        "advice": f.advice,
    }


def _plain(numbers: Mapping[str, Number | None]) -> dict[str, Any]:
    def one(value: Number | None) -> Any:
        if value is None:
            return None
        if np.iscomplexobj(value):
            return str(complex(value))
        real = float(np.real(value))
        return real if math.isfinite(real) else str(real)

    return {name: one(value) for name, value in numbers.items()}


def grouped(findings: Sequence["Finding"]) -> list[tuple["Finding", list["Finding"]]]:
    """Return the first finding of each defect in each place, with the others of its kind."""
    first: dict[tuple[str, str, str], list[Finding]] = {}
    for f in findings:
        first.setdefault((f.defect, f.argument, f.output), []).append(f)
    return [(same[0], same[1:]) for same in first.values()]


def _finding(f: "Finding", others: Sequence["Finding"]) -> Iterator[str]:
    kind = f"  {f'{f.group} / {f.defect}':<26}"
    lines = [" ".join(filter(None, (kind, place(f))))]
    if len(lines[0]) + len(said(f)) + 2 <= WIDTH:
        lines[0] += f"  {said(f)}"
    else:
        lines += _said(said(f))
    yield from map(str.rstrip, lines)
    yield from _said(f"{DEFECTS[f.defect].meaning}{f'; {f.why}' if f.why else ''}")
    rows = [("probe", probe(f)), ("also", also(others)), ("call", f.call), ("advice", f.advice)]
    for label, text in rows:
        if text:
            yield from _said(f"{label:<8}{text}", more=8)


def _said(text: str, more: int = 0) -> list[str]:
    """Wrap each line of a text; what it continues on is set `more` columns in."""
    lines = []
    for i, line in enumerate(text.splitlines()):
        rest = " " * (_INDENT + more)
        first = " " * _INDENT if i == 0 else rest
        lines += textwrap.wrap(
            *(line, WIDTH),
            initial_indent=first,
            subsequent_indent=rest,
            break_on_hyphens=False,
            break_long_words=False,
        )
    return lines


def where(f: "Finding") -> str:
    """Return `d gamma`, the cotangent of an argument, and the output it comes from."""
    via = f" via {f.output}" if f.output else ""
    return f"d {f.argument}{via}" if f.argument else f.output


def place(f: "Finding") -> str:
    """Return `d gamma [3]`."""
    return f"{where(f)} {index(f.index)}".strip()


def index(at: Sequence[int]) -> str:
    """Return (3, 0) as `[3, 0]`, and nothing for a scalar's ()."""
    return f"[{', '.join(str(int(i)) for i in at)}]" if at else ""


def said(f: "Finding") -> str:
    """Return `got 1.25, expected 0.625 ± 1e-11 (tolerance/signal 2e-11)`, as far as it is known."""
    got, expected = numbers(f)
    text = f"got {got}" if got else ""
    if expected:
        text += f"{', ' if text else ''}expected {expected}{tolerance(f)}"
    share = over_signal(f)
    return text if share is None else f"{text} (tolerance/signal {short(share)})"


def tolerance(f: "Finding") -> str:
    """Return ` ± 1e-11`, or ` exactly`."""
    if f.tolerance is None:
        return ""
    return f" ± {short(f.tolerance)}" if f.tolerance else " exactly"


def numbers(f: "Finding") -> tuple[str, str]:
    """Return what came and what was expected, with as many digits as tell the two apart."""
    digits = _FEWEST_DIGITS
    while digits < _MOST_DIGITS and _digits(f.got, digits) == _digits(f.expected, digits):
        digits += 1
    return _digits(f.got, digits), _digits(f.expected, digits)


def _digits(value: Number | None, digits: int) -> str:
    if value is None:
        return ""
    plain = complex(value) if np.iscomplexobj(value) else float(np.real(value))
    return f"{plain:.{digits}g}"


def over_signal(f: "Finding") -> float | None:
    """Return the tolerance over the size of what was expected; None where that is not known.

    The size is the root mean square of the array where the finding has its picture, and that of
    the one element otherwise. Below 1, a gradient of zeros would have failed.
    """
    if f.tolerance is None or f.expected is None:
        return None
    expected = np.asarray(f.expected if f.picture is None else f.picture.expected)
    size = np.abs(expected.astype(complex))
    size = size[np.isfinite(size)]
    largest = float(size.max(initial=0.0))
    if largest == 0:
        return None
    # Scaled before it is squared: the elements may lie near the dtype's limits.
    return float(f.tolerance / (largest * np.sqrt(np.mean((size / largest) ** 2))))


def probe(f: "Finding") -> str:
    """Return the dtype and the kind of values that showed it."""
    return ", ".join(filter(None, (f.dtype, f.probe)))


def also(others: Sequence["Finding"]) -> str:
    """Return the probes of further findings of one kind, the first few by name."""
    cases = list(dict.fromkeys(filter(None, map(probe, others))))
    left = len(cases) - _MOST_CASES
    return "; ".join(cases[:_MOST_CASES]) + (f"; and {left} more" if left > 0 else "")


def _row(label: str, items: Iterable[str]) -> list[str]:
    """Set facts after a label, as many on a line as fit; no fact is broken if it fits a line."""
    start, lines = f"  {label:<{_LABEL}} ", [""]
    for item in items:
        joined = f"{lines[-1]}   {item}" if lines[-1] else item
        if len(start) + len(joined) <= WIDTH:
            lines[-1] = joined
        else:
            lines += textwrap.wrap(item, WIDTH - len(start), break_on_hyphens=False)
    shown = [line for line in lines if line]
    return [(start if i == 0 else " " * len(start)) + line for i, line in enumerate(shown)]


def _title(report: "Report") -> str:
    left, right = _verdict(report), f"{plural(report.probes, 'probe')}, {seconds(report.seconds)}"
    return f"{left}{' ' * max(2, WIDTH - len(left) - len(right))}{right}"


def _verdict(report: "Report") -> str:
    return f"{report.name}: {verdict(report)}"


def verdict(report: "Report") -> str:
    """Return `ok`, or how many kinds of findings there are."""
    return "ok" if report.ok else plural(len(grouped(report.findings)), "finding")


def _told(argument: str, resolution: float | None) -> str:
    return f"{argument} {'always 0' if resolution is None else short(resolution)}"


def _kept(kind: str, octets: tuple[int, int]) -> str:
    return f"{kind} {size(octets[0])} (autodiff {size(octets[1])})"


def worst_resolution(report: "Report") -> float | None:
    """Return the coarsest resolution of any argument; None where nothing could be told."""
    return max((r for r in report.resolution.values() if r is not None), default=None)


def dtypes_of(reports: Iterable["Report"]) -> list[str]:
    """Return every dtype that has an error in some report, the widest first."""
    return sorted(columns(r.errors for r in reports), key=_dtype_order)


def _dtype_order(dtype: str) -> int:
    return _DTYPES.index(dtype) if dtype in _DTYPES else len(_DTYPES)


def columns(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return every key of some mappings, in the order in which they are first met."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def by_group(reports: Iterable["Report"]) -> dict[str, int]:
    """Count the kinds of findings of each group."""
    found = [f.group for r in reports for f, _ in grouped(r.findings)]
    groups = dict.fromkeys(defect.group for defect in DEFECTS.values())
    return {group: found.count(group) for group in groups if group in found}


def short(value: float | None) -> str:
    """Return 6.04e-11 as `6e-11`, 1.19e-7 as `1.2e-7` and 0.25 as itself."""
    if value is None:
        return MISSING
    if value == 0 or not math.isfinite(value) or 0.1 <= abs(value) < 1000:
        return f"{value:.3g}" if abs(value) >= 100 else f"{value:.2g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def ratio(rule: int, autodiff: int) -> str:
    """Return the rule's bytes over autodiff's as `0.50×`."""
    if rule == autodiff:
        return "1.00×"
    return f"{rule / autodiff:.2f}×" if autodiff else size(rule)


def seconds(value: float) -> str:
    """Return 0.823 as `0.8 s` and 200 as `3 min 20 s`."""
    if value < 99.95:
        return f"{value:.1f} s" if value >= 0.095 else f"{value:.2f} s"
    minutes, left = divmod(round(value), 60)
    return f"{minutes} min {left} s"


def sentence(text: str) -> str:
    """Return a clause with a capital at its start and a full stop at its end."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")
