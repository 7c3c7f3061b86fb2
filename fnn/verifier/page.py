"""Reports as one HTML page without other files, with error maps of wrong cotangents."""

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from .. import page as pages
from ..text import plural
from . import maps, words
from .report import Report, also, by_group, dtypes_of

_PACKAGES = ("fnn", "jax", "jaxlib", "numpy")


def write_page(reports: Sequence[Report], path: Path) -> Path:
    """Write the page of some reports to `path`; return `path`.

    Raises FnnError if the file cannot be written.
    """
    return pages.write(path, page(reports))


def page(reports: Sequence[Report]) -> str:
    """Return the page of some reports as HTML; the same reports give the same text."""
    ops = [(f"op{i}", report) for i, report in enumerate(reports)]
    return pages.render(
        "fnn.verifier",
        "page.html",
        ops=ops,
        wrong=[(anchor, report) for anchor, report in ops if not report.ok],
        right=[(anchor, report) for anchor, report in ops if report.ok],
        also=also,
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


def _largest(reports: Sequence[Report], dtype: str) -> tuple[float, str]:
    """Return the largest error in a dtype, NaN before any number, and the name of its report."""
    errors = [(r.errors[dtype], r.name) for r in reports if dtype in r.errors]
    return max(errors, key=lambda e: (e[0] != e[0], e[0]))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return words.MISSING
