"""HTML pages: a template of a package, rendered and written in one piece."""

import os
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from .errors import FnnError


def render(package: str, template: str, **content: Any) -> str:
    """Return a template of `package`, filled with `content`, all of which is escaped."""
    folder = files(package)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(content)


def write(path: Path, page: str) -> Path:
    """Write a page to `path` and return that; a reader never meets a half-written page.

    Raises FnnError where it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(page.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise FnnError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return path
