"""`fnn bench`: from names of ops to rows, and rows as a table or JSON."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ..custom_op import Op
from ..errors import FnnError, did_you_mean
from ..progress import each
from ..text import MISSING, plural, short_duration, size
from .cores import available, keep_memory, pin
from .row import BAR, Row, examples, measure_one
from .timing import Ratio

DTYPES = ("float64", "float32", "bfloat16", "float16")


def measure_each(
    ops: Mapping[str, Op], named: bool, dtype: str, seconds: float, cores: int = 0
) -> tuple[list[Row], list[str]]:
    """Measure ops, with a progress bar on standard error if that is a terminal.

    Ops without an example for timing are skipped, unless they are `named`. With `cores` 0 all cores
    are used. Returns the rows, and a message per failed row.

    Raises FnnError for an unknown dtype, and for a named op that has no example.
    """
    if dtype not in DTYPES:
        raise FnnError(
            f"--dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}"
            + did_you_mean(dtype, DTYPES)
        )
    if cores:
        pin(cores)
    keep_memory()
    timed = [op for op in ops.values() if named or any("bench" in e.tags for e in op.examples)]
    jobs = [(op, example) for op in timed for example in examples(op)]
    names = each([op.name for op, _ in jobs], "timing")
    rows, failures = [], []
    for _, job in zip(names, jobs, strict=True):
        try:
            rows.append(measure_one(*job, dtype, seconds))
        except FnnError as error:
            failures.append(str(error))
    return rows, failures


def as_json(rows: Sequence[Row], failures: Sequence[str]) -> dict[str, Any]:
    """Return all rows and the machine as plain values."""
    return {
        "ok": not failures and not any(row.faults for row in rows),
        "bar": BAR,
        "device": jax.devices()[0].device_kind,
        "cores": available(),
        "jax": jax.__version__,
        "rows": [row.as_json() for row in rows],
        "failures": list(failures),
    }


def show(rows: Sequence[Row]) -> None:
    """Print a table of the rows and a legend."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("op", overflow="fold", min_width=24)
    heads = ("time", "autodiff", "reference", "fastest", "", "temp", "keeps", "autodiff", "")
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for row in rows:
        temporary = (row.temp_bytes[form] for form in ("autodiff", "manual"))
        style = "bold red" if row.faults else "green" if row.verdict == "faster" else ""
        table.add_row(
            *(f"{row.op}({row.call})", short_duration(row.seconds["manual"])),
            *map(_ratio, (row.over_autodiff, row.over_reference, row.over_fastest)),
            row.fastest,
            memory_ratio(*temporary),
            *(_residuals(row, form) for form in ("manual", "autodiff")),
            Text(row.verdict, style),
        )
    Console(width=None if sys.stdout.isatty() else 132).print(table)
    dtypes = ", ".join(dict.fromkeys(row.dtype for row in rows))
    print(
        f"{dtypes} on {jax.devices()[0].device_kind}, {plural(available(), 'core')}, "
        f"jax {jax.__version__}. time: one pass forward and backward.\n"
        "autodiff, reference, fastest: the times of the definition, the reference and the fastest "
        "form,\neach differentiated by JAX, over the rules' time; temp: the definition's temporary "
        "memory over\nthe rules'. Above 1 the rules win. keeps: bytes kept for the backward pass; "
        "+ y: and the output\ny itself."
    )


def _ratio(ratio: Ratio | None) -> str:
    """Return `1.52 ± 0.03`, with the significant digits."""
    if ratio is None:
        return MISSING
    digits = max(0, 2 - len(str(int(ratio.half_width))) + (ratio.half_width < 1))
    return f"{ratio.median:.{digits}f} ± {ratio.half_width:.{digits}f}"


def _residuals(row: Row, form: str) -> str:
    beside = row.beside_output[form]
    return size(beside) + (" + y" if row.residual_bytes[form] > beside else "")


def memory_ratio(autodiff: int, manual: int) -> str:
    """Return autodiff's bytes over the rules', `∞` where the rules use none."""
    if autodiff == manual:
        return "1.0"
    return f"{autodiff / manual:,.{1 if autodiff < 100 * manual else 0}f}" if manual else "∞"
