"""The house: the order of imports, the size of files, and the names in them."""

import ast

import pytest

from .prove import imports
from .runs import ROOT, python

PACKAGE = ROOT / "fnn"
ORDER = [
    {"cotangent", "errors", "example", "memory", "metrics", "text", "tree"},
    {"custom_op", "page", "progress"},
    {"ops", "init"},
    {"layers", "loss", "data"},
    {"backprop", "verifier", "bench", "models"},
    {"config", "testing"},
    {"train", "report"},
    {"runs"},
    {"sweep", "export"},
    {"cli"},
    {"__main__"},
]
"""A room imports only from the floors before its own, and from itself."""
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}
SOURCES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = ("fnn", "tests", "experiments", "benchmarks")
PARTICIPLES = {"found", "given", "came", "kept", "asked", "told", "said", "seen"}
"""Words that say nothing of a value; a name is a noun."""


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_has_its_floor():
    assert {room(path) for path in SOURCES} - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_room_and_imports_nothing_above(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), "a file says what it holds"
    here = room(path)
    for there in {room(file) for file in imports(path)} - {here, "__init__"}:
        assert here == "__init__" or FLOOR[there] < FLOOR[here], f"{path} imports fnn.{there}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_value_is_named_by_a_participle(folder):
    names = [
        f"{path}:{node.lineno}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (name_of_value(node),)
        if name in PARTICIPLES
    ]
    assert names == []


def name_of_value(node):
    """Return the name of a variable, field, parameter or keyword argument where it gets a value."""
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
        return node.id if isinstance(node, ast.Name) else node.attr
    return node.arg if isinstance(node, ast.arg | ast.keyword) else None


def modules_after(code):
    """Return the modules that `code` loads in a fresh interpreter."""
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


def test_datasets_do_not_need_jax():
    assert not any("import jax" in path.read_text() for path in (PACKAGE / "data").glob("*.py"))
