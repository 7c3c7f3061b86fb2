"""Reports as one HTML page that needs no other file, wrong cotangents pictured as error maps."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .. import page as pages
from . import maps, words
from .defects import DEFECTS
from .report import Finding, Report

_PACKAGES = ("fnn", "jax", "jaxlib", "numpy")


@dataclass(frozen=True)
class Shown:
    """A finding with its numbers in words, and its error map if it has one."""

    finding: Finding
    also: str
    got: str
    expected: str
    map: maps.ErrorMap | None

    @property
    def meaning(self) -> str:
        """What its defect class means."""
        return DEFECTS[self.finding.defect].meaning


@dataclass(frozen=True)
class Op:
    """A report with what the page adds: an anchor, findings and worst cases laid out."""

    anchor: str
    report: Report
    findings: Sequence[Shown]
    worst: Mapping[str, maps.ErrorMap]


def write_page(reports: Sequence[Report], path: Path) -> Path:
    """Write the page of some reports to `path`, and return that.

    Raises FnnError where the file cannot be written.
    """
    return pages.write(path, page(reports))


def page(reports: Sequence[Report]) -> str:
    """Return the page of some reports as HTML; the same reports give the same text."""
    ops = [_op(i, report) for i, report in enumerate(reports)]
    return pages.render(
        "fnn.verify",
        "page.html",
        ops=ops,
        wrong=[op for op in ops if not op.report.ok],
        right=[op for op in ops if op.report.ok],
        groups=words.by_group(reports),
        dtypes=words.dtypes_of(reports),
        largest={d: _largest(reports, d) for d in words.dtypes_of(reports)},
        capabilities=words.columns(r.capabilities for r in reports),
        costs=words.columns(r.cost for r in reports),
        probes=sum(r.probes for r in reports),
        seconds=sum(r.seconds for r in reports),
        environment={"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES},
        maps=maps,
        words=words,
    )


def _op(number: int, report: Report) -> Op:
    drawn = {name: maps.error_map(picture) for name, picture in report.worst.items()}
    return Op(
        anchor=f"op{number}",
        report=report,
        findings=[_shown(f, others) for f, others in words.grouped(report.findings)],
        worst={name: drawing for name, drawing in drawn.items() if drawing},
    )


def _shown(finding: Finding, others: Sequence[Finding]) -> Shown:
    got, expected = words.numbers(finding)
    picture = finding.picture
    return Shown(
        finding=finding,
        also=words.also(others),
        got=got,
        expected=expected,
        map=maps.error_map(picture, finding.index) if picture else None,
    )


def _largest(reports: Sequence[Report], dtype: str) -> tuple[float, str]:
    """The largest error in a dtype, NaN before any number, and the report that has it."""
    errors = [(r.errors[dtype], r.name) for r in reports if dtype in r.errors]
    return max(errors, key=lambda e: (e[0] != e[0], e[0]))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return words.MISSING
