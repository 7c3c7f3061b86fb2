"""The verb that times the rules of the ops: bench."""

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
    dtype: Annotated[str, typer.Option(help="The dtype of the floating-point arrays.")] = "float32",
    seconds: Annotated[float, typer.Option(help="The time limit per row.", min=0.0)] = 3.0,
    cores: Annotated[int, typer.Option(help="The number of cores; 0 is all.", min=0)] = 0,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with status 1 if an op misses the bar.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the ops' rules with automatic differentiation: time, and bytes of residuals.

    With --check, exit with status 1 if an op is more than 5 % slower than the fastest form that
    JAX differentiates, or has more bytes of residuals than the definition.
    """
    from ..bench import command

    ops = {name: find_op(name) for name in names or ()}
    rows, failures = command.measure_each(ops or all_ops(), bool(ops), dtype, seconds, cores)
    if as_json:
        print_json(command.as_json(rows, failures))
    elif rows:
        command.show(rows)
    for failure in failures:
        print(f"fnn: {failure}", file=sys.stderr)
    sys.exit(2 if failures else int(check and any(row.faults for row in rows)))
