"""The verbs that take run folders: diff, export."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .command import AsJson, app
from .show import print_json, print_table


@app.command(epilog="Example: fnn diff runs/digits_mlp/20250101-120000 runs/digits_mlp")
def diff(
    a: Annotated[
        Path,
        typer.Argument(help="A run folder, or an experiment's: its last run.", metavar="RUN_A"),
    ],
    b: Annotated[Path, typer.Argument(help="The other.", metavar="RUN_B")],
    as_json: AsJson = False,
) -> None:
    """Show two runs side by side: config, environment, metrics."""
    from ..report.diff import diff, tables, verdict
    from ..report.find import find_run

    found = diff(find_run(a), find_run(b))
    if as_json:
        print_json(found.as_json())
        return
    for name, run in found.runs.items():
        print(f"{name.upper()}: {run}")
        for problem in found.problems[name]:
            print(f"   {problem}")
    for table in tables(found):
        print_table(*table)
    print(verdict(found))


@app.command(epilog="Example: fnn export runs/digits_mlp --to stablehlo")
def export(
    run: Annotated[
        Path, typer.Argument(help="A run folder, or an experiment's: its last run.", metavar="RUN")
    ],
    to: Annotated[
        Literal["safetensors", "stablehlo"],
        typer.Option(help="Arrays by name, or the function from inputs to outputs."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where; by default RUN/model.FORM.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's model in a form that others read."""
    from ..export import export
    from ..report.find import find_run

    file = export(find_run(run), to, out)
    size = file.stat().st_size
    if as_json:
        print_json({"file": str(file), "bytes": size})
    else:
        print(f"{file}: {size:,} bytes")
