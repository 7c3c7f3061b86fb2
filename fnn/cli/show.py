"""The output of a verb: a table for the reader, or one JSON object."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any


def keep_libraries_off_stdout() -> None:
    """Send to standard error what libraries print; Gloo prints a line for every process."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)


def print_json(value: dict[str, Any]) -> None:
    """Print `value` as one line of JSON, with null for every number that is not finite."""
    plain = json.loads(json.dumps(value), parse_constant=lambda _: None)
    print(json.dumps(plain, allow_nan=False))


def print_table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows of text; a column that contains only numbers is aligned to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for i, name in enumerate(header):
        numeric = i > 0 and all(row[i][:1].isdigit() or row[i] in ("", "–") for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    print(title)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
