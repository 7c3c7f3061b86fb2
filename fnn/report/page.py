"""The page itself: what a run folder says, through a template, into one file."""

import os
from functools import partial
from importlib.resources import files
from pathlib import Path

import jinja2

from ..errors import FnnError
from . import charts, sections, words
from .run import Run, read_run


def write_report(run: Path) -> Path:
    """Write RUN/report.html, one page that needs no other file, and return its path.

    A run that was cut short gets a page of what there is. The same folder gives the same bytes,
    and a reader of the page never meets a half-written one.

    Raises FnnError when `run` is no run folder, or cannot be written to.
    """
    return write_page(run / "report.html", "page.html.jinja", page_content(read_run(run)))


def write_page(report: Path, template: str, content: dict[str, object]) -> Path:
    """Write a page whole, and return its path.

    Raises FnnError where it cannot be written.
    """
    page = _template(template).render(content)
    unfinished = report.with_name(f".report.html.{os.getpid()}")
    try:
        unfinished.write_bytes(page.encode("utf-8", "replace"))
        os.replace(unfinished, report)
    except OSError as error:
        raise FnnError(f"{report}: cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return report


def page_content(run: Run) -> dict[str, object]:
    """Return what the template shows."""
    return {
        "run": run,
        "layers": run.summary.layers,
        "verdict": sections.verdict(run),
        "curves": sections.curves(run),
        "confusion": sections.confusion_matrix(run),
        "examples": sections.examples(run),
        "filters": sections.filters(run),
        "gradients": sections.gradients(run),
        "config": list(words.yaml_tokens(run.config)) or sections.why(run, "config.yaml"),
        "environment": sections.environment(run),
        "why": partial(sections.why, run),
        "charts": charts,
        "words": words,
    }


def _template(name: str) -> jinja2.Template:
    folder = files("fnn.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
