"""The command `fnn verify`, which checks backward rules."""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from ..errors import FnnError
from .command import AsJson, app, ask_for_devices
from .named_ops import all_ops, find_op
from .show import print_json


class _SeveralValues(typer.core.TyperCommand):
    """A command whose `--args` and `--static` take all words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_spread(args)))


def _spread(words: Iterable[str]) -> Iterator[str]:
    """Rewrite `--args A B` as `--args=A --args=B`; a word such as -3 is a value."""
    option, values = "", 0
    for word in words:
        name, equals, _ = word.partition("=")
        if word.startswith("-") and not word.lstrip("-.")[:1].isdigit():
            _check_values(option, values)
            option, values = (name, len(equals)) if name in ("--args", "--static") else ("", 0)
            if word != option:
                yield word
        elif option:
            values += 1
            yield f"{option}={word}"
        else:
            yield word
    _check_values(option, values)


def _check_values(option: str, values: int) -> None:
    if option and not values:
        raise FnnError(f"{option} needs a value; see fnn verify --help")


@app.command(
    cls=_SeveralValues,
    epilog='Example: fnn verify my_package.my_module:my_op --args "f32[8,16]" "f32[16]" '
    "--static eps=1e-5",
)
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Ops, or module:function; all ops by default.", metavar="F"),
    ] = None,
    args: Annotated[
        list[str] | None,
        typer.Option(help="The arguments of F: arrays (f32[8,16]), literals.", metavar="A..."),
    ] = None,
    static: Annotated[
        list[str] | None, typer.Option(help="Keyword arguments of F.", metavar="NAME=VALUE...")
    ] = None,
    definition: Annotated[
        str | None,
        typer.Option(help="The same function in plain JAX.", metavar="MODULE:FUNCTION"),
    ] = None,
    no_vary: Annotated[
        bool, typer.Option("--no-vary", help="Use only the given values and shapes.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write the reports as a web page.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check backward rules: those of fnn, or of any custom_vjp or custom_jvp.

    Exit with status 1 if a rule fails.
    """
    ask_for_devices(2)  # the checks split arrays over devices
    from ..verifier import command
    from ..verifier.page import write_page

    if html and not html.parent.is_dir():
        raise FnnError(f"{html}: there is no folder {html.parent}")
    # A name with dots, colons or slashes is a module.
    functions = {n: command.load(n) if set(n) & set(":./") else find_op(n) for n in names or ()}
    start = time.perf_counter()
    reports = command.verify_each(
        functions or all_ops(), args or (), static or (), definition, not no_vary
    )
    page = {"page": str(write_page(reports, html))} if html else {}
    ok = all(report.ok for report in reports)
    if as_json:
        print_json({"ok": ok, "reports": [report.as_json() for report in reports], **page})
    else:
        command.show(reports, time.perf_counter() - start)
        if html:
            print(f"page: {html}")
    sys.exit(0 if ok else 1)
