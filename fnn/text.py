"""Numbers, sizes, shapes, durations and ticks as text, for tables, pages and messages."""

import math
from collections.abc import Iterable
from datetime import datetime
from typing import TypeGuard

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MISSING = "–"
MINUS = "−"


def finite(value: float | None) -> TypeGuard[float]:
    """Return whether there is a number, neither NaN nor infinite."""
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
    """Return 2.4e-7 as `2.4 × 10⁻⁷`, with spaces that do not break, and 1e-7 as `10⁻⁷`."""
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
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def short_duration(seconds: float) -> str:
    """Return 0.00123 as `1.23 ms`."""
    unit, factor = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    return f"{seconds * factor:.3g} {unit}"


def moment(iso: str) -> str:
    """Return ISO 8601 `2025-11-21T03:04:05+00:00` as `2025-11-21 03:04 UTC`, other text as is."""
    try:
        return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return iso


def size(octets: float) -> str:
    """Return 41216 as `40.2 KiB`."""
    if octets < 1024:
        return f"{octets:.0f} B"
    power = min(int(math.log2(octets) // 10), 4)
    return f"{octets / 1024**power:.1f} {'KMGT'[power - 1]}iB"


def shape(sizes: Iterable[int], times: str = "×", scalar: str = "scalar") -> str:
    """Return (64, 128) as `64×128`."""
    return times.join(map(str, sizes)) or scalar


def plural(quantity: int, noun: str) -> str:
    """Return `1 epoch`, `1,800 epochs`."""
    return f"{quantity:,} {noun}{'' if quantity == 1 else 's'}"


def nice_step(span: float, most: int) -> float:
    """Return the smallest of 1, 2, 5, 10, … × 10ᵏ that cuts `span` into at most `most` pieces."""
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers within [low, high]."""
    step = nice_step(high - low, most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return decades within [low, high], with 2 and 5 between them where they are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / 6))
    factors = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    ticks = [f * 10.0**k for k in range(first, last + 1, stride) for f in factors]
    return [t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]
