"""The verbs that take run folders: diff, export."""

from pathlib import Path
from typing import Annotated

import typer

from .command import AsJson, app
from .show import print_json, print_table

RunFolder = Annotated[
    Path, typer.Argument(help="A run folder, or an experiment's: its newest run.", metavar="RUN")
]


@app.command(epilog="Example: fnn diff runs/digits_mlp/20250101-120000 runs/digits_mlp")
def diff(
    a: Annotated[Path, typer.Argument(help="A run folder, or an experiment's.", metavar="RUN_A")],
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
