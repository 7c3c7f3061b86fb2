"""Reports as one HTML page without other files, with error maps of wrong cotangents."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .. import page as pages
from ..text import plural
from . import maps, words
from .report import Finding, Report, also, by_group, dtypes_of

_PACKAGES = ("fnn", "jax", "jaxlib", "numpy")


@dataclass(frozen=True)
class MappedFinding:
    """A finding with the conditions of others of its kind, and its error map if it has one."""

    finding: Finding
    also: str
    map: maps.ErrorMap | None


@dataclass(frozen=True)
class Op:
    """A report with an anchor, and the error maps of its findings and worst cases."""

    anchor: str
    report: Report
    findings: Sequence[MappedFinding]
    worst: Mapping[str, maps.ErrorMap]


def write_page(reports: Sequence[Report], path: Path) -> Path:
    """Write the page of some reports to `path`; return `path`.

    Raises FnnError if the file cannot be written.
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
        groups=by_group(reports),
        dtypes=dtypes_of(reports),
        largest={d: _largest(reports, d) for d in dtypes_of(reports)},
        capabilities=words.columns(r.capabilities for r in reports),
        costs=words.columns(r.cost for r in reports),
        probes=sum(r.probes for r in reports),
        seconds=sum(r.seconds for r in reports),
        environment={"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES},
        maps=maps,
        words=words,
        plural=plural,
    )


def _op(number: int, report: Report) -> Op:
    worst = {name: maps.error_map(picture) for name, picture in report.worst.items()}
    findings = [_with_map(f, others) for f, others in report.kinds]
    return Op(f"op{number}", report, findings, {name: m for name, m in worst.items() if m})


def _with_map(finding: Finding, others: Sequence[Finding]) -> MappedFinding:
    picture = finding.picture
    return MappedFinding(
        finding, also(others), maps.error_map(picture, finding.index) if picture else None
    )


def _largest(reports: Sequence[Report], dtype: str) -> tuple[float, str]:
    """Return the largest error in a dtype, NaN before any number, and the name of its report."""
    errors = [(r.errors[dtype], r.name) for r in reports if dtype in r.errors]
    return max(errors, key=lambda e: (e[0] != e[0], e[0]))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return words.MISSING
