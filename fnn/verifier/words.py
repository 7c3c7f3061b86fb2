"""Numbers and facts as text, for a report in a terminal and on a page."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..text import MISSING, size

WIDTH = 100
_LABEL = 12  # columns of the label that opens a row of facts
_INDENT = 6  # columns before the lines of a finding
Number = complex | np.number


def paragraph(text: str, hanging: int = 0) -> list[str]:
    """Wrap each line of a text; continuation lines are indented by `hanging` more columns."""
    lines = []
    for i, line in enumerate(text.splitlines()):
        rest = " " * (_INDENT + hanging)
        lines += textwrap.wrap(
            *(line, WIDTH),
            initial_indent=" " * _INDENT if i == 0 else rest,
            subsequent_indent=rest,
            break_on_hyphens=False,
            break_long_words=False,
        )
    return lines


def row(label: str, items: Iterable[str]) -> list[str]:
    """Set facts after a label, as many per line as fit; a fact that fits on a line is unbroken."""
    start, lines = f"  {label:<{_LABEL}} ", [""]
    for item in items:
        joined = f"{lines[-1]}   {item}" if lines[-1] else item
        if len(start) + len(joined) <= WIDTH:
            lines[-1] = joined
        else:
            lines += textwrap.wrap(item, WIDTH - len(start), break_on_hyphens=False)
    full = [line for line in lines if line]
    return [(start if i == 0 else " " * len(start)) + line for i, line in enumerate(full)]


def index(at: Sequence[int]) -> str:
    """Return (3, 0) as `[3, 0]`, and nothing for a scalar's ()."""
    return f"[{', '.join(str(int(i)) for i in at)}]" if at else ""


def digits(value: Number | None, count: int) -> str:
    """Return a number with this many digits, and nothing for None."""
    if value is None:
        return ""
    plain = complex(value) if np.iscomplexobj(value) else float(np.real(value))
    return f"{plain:.{count}g}"


def plain(numbers: Mapping[str, Number | None]) -> dict[str, Any]:
    """Return numbers as JSON has them.

    A finite real number stays a number. NaN, infinities and complex numbers become text that
    Python's `float` and `complex` read: "nan", "-inf", "(1-2j)".
    """

    def one(value: Number | None) -> Any:
        if value is None:
            return None
        if np.iscomplexobj(value):
            return str(complex(value))
        real = float(np.real(value))
        return real if math.isfinite(real) else str(real)

    return {name: one(value) for name, value in numbers.items()}


def columns(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return every key of some mappings, in order of first appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


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


def memory(kind: str, rule: int, autodiff: int) -> str:
    """Return `residuals 128 B (autodiff 256 B)`."""
    return f"{kind} {size(rule)} (autodiff {size(autodiff)})"


def seconds(value: float) -> str:
    """Return 0.823 as `0.8 s` and 200 as `3 min 20 s`."""
    if value < 99.95:
        return f"{value:.1f} s" if value >= 0.095 else f"{value:.2f} s"
    minutes, left = divmod(round(value), 60)
    return f"{minutes} min {left} s"


def sentence(text: str) -> str:
    """Return a clause with a capital at its start and a full stop at its end."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")
