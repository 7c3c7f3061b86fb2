"""The verbs that take run folders: diff, export."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .command import AsJson, RunFolder, app
from .show import print_json, print_table


@app.command(epilog="Example: fnn diff runs/digits_mlp/20250101-120000 runs/digits_mlp")
def diff(
    a: Annotated[
        Path,
        typer.Argument(
            help="A run folder, or the folder of an experiment: its newest run.", metavar="RUN_A"
        ),
    ],
    b: Annotated[Path, typer.Argument(help="The other run.", metavar="RUN_B")],
    as_json: AsJson = False,
) -> None:
    """Show two runs side by side: config, environment, metrics."""
    from ..report.diff import diff, tables, verdict
    from ..report.find import find_run

    difference = diff(find_run(a), find_run(b))
    if as_json:
        print_json(difference.as_json())
        return
    for name, run in difference.runs.items():
        print(f"{name.upper()}: {run}")
        for problem in difference.problems[name]:
            print(f"   {problem}")
    for table in tables(difference):
        print_table(*table)
    print(verdict(difference))


@app.command(epilog="Example: fnn export runs/digits_mlp --to stablehlo")
def export(
    run: RunFolder,
    to: Annotated[
        Literal["safetensors", "stablehlo"],
        typer.Option(help="Arrays by name, or the function from inputs to outputs."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write; RUN/model.FORM by default.", metavar="FILE"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the model of a run in a format that other programs read."""
    from ..export import export
    from ..report.find import find_run

    file = export(find_run(run), to, out)
    size = file.stat().st_size
    if as_json:
        print_json({"file": str(file), "bytes": size})
    else:
        print(f"{file}: {size:,} bytes")
