"""The verb that times the ops' rules: bench."""

import sys
from typing import Annotated

import typer

from .command import AsJson, app
from .named_ops import all_ops, find_op
from .show import print_json


@app.command(epilog="Example: fnn bench softmax_cross_entropy --dtype bfloat16 --cores 1 --check")
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(help='Ops; by default all with an example tagged "bench".', metavar="[OP]"),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the floating-point arrays.")] = "float32",
    seconds: Annotated[float, typer.Option(help="For timing a row, at most.", min=0.0)] = 3.0,
    cores: Annotated[int, typer.Option(help="Run on so many cores; 0: on all.", min=0)] = 0,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with status 1 if an op misses the bar.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Time the ops' rules against automatic differentiation, and weigh what they keep.

    With --check, exit with status 1 if an op is more than 5 % slower than the fastest form that
    JAX differentiates, or keeps more bytes for the backward pass than the definition does.
    """
    from ..bench import command

    chosen = {name: find_op(name) for name in names or ()}
    rows, failures = command.measure_each(chosen or all_ops(), bool(chosen), dtype, seconds, cores)
    if as_json:
        print_json(command.as_json(rows, failures))
    elif rows:
        command.show(rows)
    for failure in failures:
        print(f"fnn: {failure}", file=sys.stderr)
    sys.exit(2 if failures else int(check and any(row.faults for row in rows)))
