"""What the documents tell a reader to type works."""

import re
from pathlib import Path

import pytest

import fnn
from fnn.custom_op import OPS
from fnn.ops import activations

ROOT = Path(__file__).parents[1]


def blocks(name, language="python"):
    """The Python of a Markdown file."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


@pytest.fixture
def table():
    """The table of ops, put back as it was."""
    before = dict(OPS)
    yield OPS
    OPS.clear()
    OPS.update(before)


def test_the_readme_uses_an_op_and_writes_one(capsys, table):
    use, write, *_ = blocks("README.md")
    exec(use, {})
    assert 0 <= float(capsys.readouterr().out) < 1e-6
    exec(write, {"__name__": "readme"})
    assert capsys.readouterr().out == "True\n"
    assert "squash" in table


def test_the_guide_shows_the_report_of_a_wrong_rule(capsys):
    exec(blocks("docs/verify.md")[0], {"__name__": "guide"})
    printed = blocks("docs/verify.md", "text")[0]
    findings = printed.partition("\n")[2].partition("\n\n")[0]  # without the time, and the bytes
    assert "numerics" in findings
    assert findings in capsys.readouterr().out


def test_the_guide_backpropagates(capsys):
    exec(blocks("docs/backprop.md")[0], {"__name__": "guide"})
    assert capsys.readouterr().out.startswith("z2  (2, 10)\nw2  (15, 10)\n")


@pytest.mark.parametrize("vary", [False, pytest.param(True, marks=pytest.mark.prove)])
def test_contributing_adds_an_op(table, vary):
    elu, line = blocks("CONTRIBUTING.md")[:2]
    exec(elu, vars(activations) | {"__name__": "contributing"})
    assert fnn.verify(table["elu"], vary=vary).ok
    assert line.strip() == "from .activations import elu as elu"
