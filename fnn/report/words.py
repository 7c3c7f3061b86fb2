"""Numbers, durations and sentences, as a reader wants them."""

import math
import re
from collections.abc import Iterator
from datetime import datetime
from typing import TypeGuard

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MISSING = "–"
MINUS = "−"
_Z95 = 1.959964  # the normal distribution's 97.5 % point


def finite(value: float | None) -> TypeGuard[float]:
    """Whether there is a number, and it is neither NaN nor infinite."""
    return value is not None and math.isfinite(value)


def count(value: float | None) -> str:
    """Return 9610 as `9,610`."""
    return MISSING if value is None else f"{value:,.0f}"


def number(value: float | None, digits: int = 3) -> str:
    """Return 0.06918 as `0.0692` and 2.4e-7 as `2.4 × 10⁻⁷`."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        plain = f"{value:,.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"
        return plain.replace("-", MINUS)
    return scientific(value)


def scientific(value: float) -> str:
    """Return 2.4e-7 as `2.4 × 10⁻⁷` in one piece, and a power of ten as `10⁻⁷`."""
    mantissa, exponent = f"{value:.1e}".split("e")
    mantissa = mantissa.replace("-", MINUS)
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return power if mantissa == "1.0" else f"{mantissa}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{power}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return 0.978 as `97.8 %`, with a space that does not break."""
    if not finite(fraction):
        return MISSING
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """Return 0.613 as `0.61 s` and 200 as `3 min 20 s`."""
    if not finite(seconds):
        return MISSING
    if seconds < 99.95:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(written: str) -> str:
    """Return ISO 8601 `2025-11-21T03:04:05+00:00` as `2025-11-21 03:04 UTC`, other text as is."""
    try:
        return f"{datetime.fromisoformat(written):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return written


def microseconds(us: float) -> str:
    """Return 96.2 as `96.2 µs` and 6213 as `6.21 ms`."""
    return f"{us:.1f} µs" if us < 1000 else f"{us / 1000:.3g} ms"


def size(octets: float) -> str:
    """Return 41216 as `40.2 KiB`."""
    if octets < 1024:
        return f"{octets:.0f} B"
    power = min(int(math.log2(octets) // 10), 4)
    return f"{octets / 1024**power:.1f} {'KMGT'[power - 1]}iB"


def shape(sizes: tuple[int, ...]) -> str:
    """Return (64, 128) as `64 × 128`."""
    return " × ".join(map(str, sizes)) or "scalar"


def plural(quantity: int, noun: str) -> str:
    """Return `1 epoch`, `1,800 epochs`."""
    return f"{quantity:,} {noun}" if quantity == 1 else f"{quantity:,} {noun}s"


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion, correct of total > 0.

    Unlike p ± 1.96 √(p(1-p)/n) it stays inside [0, 1] and keeps its width at p = 1, where good
    classifiers live. Source: Wilson 1927, J. Am. Stat. Assoc. 22(158).
    """
    p, z2 = correct / total, _Z95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


_YAML_LINE = re.compile(
    r"""(?P<comment>\#.*$)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')
      | (?P<key>[\w.-]+(?=:(?:\s|$)))
      | (?P<number>(?<![\w.-])[-+]?\d[\d._]*(?:[eE][-+]?\d+)?(?![\w.]))
      | (?P<literal>\b(?:true|false|null)\b)
      | (?P<mark>[-{}\[\],:])
      """,
    re.VERBOSE | re.MULTILINE,
)


def yaml_tokens(text: str) -> Iterator[tuple[str, str]]:
    """Cut YAML into (kind, text) pairs for colouring; the texts joined give `text` back.

    The kind is empty for plain text. A regular expression reads one line at a time, so a string
    over several lines keeps the plain colour; nothing is ever lost or altered.
    """
    end = 0
    for match in _YAML_LINE.finditer(text):
        if match.start() > end:
            yield "", text[end : match.start()]
        yield match.lastgroup or "", match.group()
        end = match.end()
    if end < len(text):
        yield "", text[end:]
