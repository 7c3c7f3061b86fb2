"""The house: who imports whom, and what every file and every public name owes its reader."""

import ast
from pathlib import Path

import pytest

from .runs import python

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fnn"
ORDER = [
    {"cotangent", "errors", "example", "memory", "metrics", "text", "tree"},
    {"custom_op", "page", "progress"},
    {"ops", "init"},
    {"layers", "loss", "data"},
    {"backprop", "verify", "bench", "models"},
    {"config", "testing"},
    {"train", "report"},
    {"runs"},
    {"sweep", "export"},
    {"cli"},
    {"__main__"},
]
"""Data flows one way: a room imports from the floors below it, or from its own family."""
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """The rooms of fnn that a file imports, wherever in it the import stands."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            parts = (*base, *(node.module.split(".") if node.module else ()))
            if len(parts) > 1:
                yield parts[1]
            else:
                yield from (alias.name for alias in node.names if alias.name in FLOOR)


def test_every_room_has_its_floor():
    assert {room(path) for path in SOURCES} - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_room_and_imports_nothing_above(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), "a file says what it holds"
    here = room(path)
    for there in imported(path) if path != PACKAGE / "__init__.py" else ():
        assert there == here or FLOOR[there] < FLOOR[here], f"{path} imports fnn.{there}"


def modules_after(code):
    """The modules that are loaded once `code` has run in a fresh interpreter."""
    process = python("-c", f"{code}\nimport sys; print(' '.join(sys.modules))")
    modules, errors = process.communicate()
    assert process.returncode == 0, errors
    return set(modules.split())


OPS = (
    "import fnn; fnn.ops\n"
    "import fnn.custom_op; from fnn import op, rules, OPS\n"
    "assert op is fnn.op and callable(op) and OPS['relu'] is fnn.ops.relu\n"  # the decorator
    "assert {'op', 'OPS', 'ops', 'layers'} <= set(dir(fnn))"
)
REPORT = "import fnn.report, fnn.report.diff, fnn.report.find, fnn.cli.show"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import fnn, fnn.cli", {"jax", "optax", "pydantic", "sklearn", "matplotlib"}),
        (OPS, {"optax", "pydantic", "sklearn", "matplotlib"}),
        ("import fnn.config", {"jax", "optax", "sklearn", "matplotlib"}),
        (REPORT, {"jax", "optax", "matplotlib", "fnn.train", "fnn.runs"}),
        ("import fnn.data", {"jax", "sklearn"}),
    ],
)
def test_imports_are_lazy(code, absent):
    assert not modules_after(code) & absent


def test_datasets_are_made_without_jax():
    assert not any("import jax" in path.read_text() for path in (PACKAGE / "data").glob("*.py"))
