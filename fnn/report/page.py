"""The page of a run: its folder's files, rendered through a template into one file."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .. import page, text
from ..metrics import METRICS
from . import charts, sections
from .run import RunFolder, metric_text, read_run


def write_report(run: Path) -> Path:
    """Write RUN/report.html, one page that needs no other file, and return its path.

    A run that was cut short gets a page of what there is. The same folder gives the same bytes,
    and a reader of the page never meets a half-written one.

    Raises FnnError when `run` is no run folder, or cannot be written to.
    """
    return write_page(run / "report.html", "page.html.jinja", page_content(read_run(run)))


def write_page(report: Path, template: str, content: dict[str, object]) -> Path:
    """Write a page from a template and its content, and return its path.

    Raises FnnError where it cannot be written.
    """
    tools = {"charts": charts, "text": text, "metrics": METRICS, "metric_text": metric_text}
    return page.write(report, page.render("fnn.report", template, **content, **tools))


def page_content(run: RunFolder) -> dict[str, object]:
    """Return the content of a run's template."""
    return {
        "run": run,
        "layers": run.summary.layers,
        "verdict": sections.verdict(run),
        "curves": sections.curves(run),
        "confusion": sections.confusion_matrix(run),
        "examples": sections.examples(run),
        "filters": sections.filters(run),
        "gradients": sections.gradients(run),
        "config": list(yaml_tokens(run.config)) or sections.why(run, "config.yaml"),
        "environment": sections.environment(run),
        "why": partial(sections.why, run),
    }


_YAML_LINE = re.compile(
    r"""(?P<comment>\#.*$)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')
      | (?P<key>[\w.-]+(?=:(?:\s|$)))
      | (?P<number>(?<![\w.-])[-+]?\d[\d._]*(?:[eE][-+]?\d+)?(?![\w.]))
      | (?P<literal>\b(?:true|false|null)\b)
      | (?P<mark>[-{}\[\],:])
      """,
    re.VERBOSE | re.MULTILINE,
)


def yaml_tokens(text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, piece) pairs for colouring YAML; the pieces joined are `text`.

    The kind is empty for plain text. The regular expression reads one line at a time, so a string
    over several lines stays plain.
    """
    end = 0
    for match in _YAML_LINE.finditer(text):
        if match.start() > end:
            yield "", text[end : match.start()]
        yield match.lastgroup or "", match.group()
        end = match.end()
    if end < len(text):
        yield "", text[end:]
