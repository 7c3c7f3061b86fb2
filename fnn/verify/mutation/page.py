"""The summary of a run, printed."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .summary import KILLED, NAMED


def show(found: dict[str, Any], jobs: int) -> None:
    """Print a summary, the verdict last."""
    if found["operators"]:
        _table(
            "mutants by operator",
            ("operator", "defect", "killed", "of", "right name first", "or later"),
            [
                (
                    *(o["operator"], o["group"], f"{o['killed']:,}", f"{o['mutants']:,}"),
                    *(f"{o['named']:,}", f"{o['mentioned']:,}"),
                )
                for o in found["operators"]
            ],
        )
    _list("survivors", [_join(s["mutant"], s["error"]) for s in found["survivors"]])
    _list(
        "killed under another name",
        [
            f"{m['mutant']}: {', '.join(m['found'])}; it is {' or '.join(m['expected'])}"
            for m in found["misnamed"]
        ],
    )
    _list("equivalent: no fault", [f"{e['mutant']}: {e['reason']}" for e in found["equivalents"]])
    _list(
        "equivalent, and yet rejected",
        [
            _join(f"{e['mutant']}: {', '.join(e['found'])}", e["error"])
            for e in found["equivalents"]
            if e["found"] or e["error"]
        ],
    )
    _list(
        "false alarms",
        [
            f"{a['rule']}, {a['dtype']}, seed {a['seed']}: {finding}"
            for a in found["alarms"]
            for finding in a["findings"]
        ],
    )
    _list(
        "not asked, for the function itself fails",
        [f"{s['rule']}, {s['dtype']}, seed {s['seed']}: {s['reason']}" for s in found["skipped"]],
    )
    if found["checkers"]:
        _show_checkers(found["checkers"])
    _show_seconds(found["seconds"], jobs)
    print(verdict(found))


def verdict(found: dict[str, Any]) -> str:
    """Return the run in one line."""
    killed, named = (
        _percent(found[a], found[b]) for a, b in (("killed", "mutants"), ("named", "killed"))
    )
    return (
        f"{found['mutants']:,} mutants, {found['equivalent']:,} more that are equivalent: "
        f"{killed} killed (bar {_percent(KILLED, 1)}), "
        f"{named} of these by the right name (bar {_percent(NAMED, 1)}); "
        f"correct rules, {found['clean_runs']:,} runs: {found['false_alarms']:,} false alarms: "
        + ("ok" if found["ok"] else "FAILED")
    )


def _show_checkers(found: dict[str, Any]) -> None:
    for title, first, shares, totals in (
        ("mutants killed, by checker", "defects", found["killed"], found["mutants"]),
        ("correct rules rejected", "dtype", found["false_alarms"], found["clean_runs"]),
    ):
        if not totals:
            continue
        rows = [
            (name, f"{total:,}", *(_percent(shares[c][name], total) for c in shares))
            for name, total in totals.items()
        ]
        every = sum(totals.values())
        whole = (_percent(sum(share.values()), every) for share in shares.values())
        _table(title, (first, "of", *shares), [*rows, ("all", f"{every:,}", *whole)])


def _show_seconds(found: dict[str, Any], jobs: int) -> None:
    words = {"cold": "a rule, cold", "warm": "a rule, warm", "mutant": "a mutant"}
    for name, what in words.items():
        if name in found:
            times = found[name]
            print(f"{what}: median {times['median']:.2f} s, 95 % within {times['p95']:.2f} s")
    if jobs > 1:
        print(f"(timed with {jobs} processes side by side)")


def _percent(part: float, whole: float) -> str:
    """Return a share, never rounded up to the whole or down to nothing."""
    if not whole:
        return "–"
    share = int(1000 * part / whole) / 10
    return f"{share:.1f} %" if share or not part else "< 0.1 %"


def _join(name: str, error: str) -> str:
    return f"{name} (crash: {error})" if error else name


def _list(title: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"{title}: {len(lines):,}", *lines, sep="\n  ")


def _table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table()
    for i, name in enumerate(header):
        numeric = all(row[i][:1] in "–<0123456789" for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    print(title)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
