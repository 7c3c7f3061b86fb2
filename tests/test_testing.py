"""`assert_vjp`: a report or an AssertionError, and how pytest shows that."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from fnn.ops import identity
from fnn.testing import assert_vjp

ROOT = Path(__file__).parents[1]


def scaled(factor):
    """x² with a backward rule that is right for a factor of 1."""

    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, dy: (factor * 2 * x * dy,))
    return square


def test_a_right_rule_gives_its_report():
    report = assert_vjp(scaled(1), "f32[3]", vary=False)
    assert report.ok
    assert report.resolution["x"] < 1e-10


def test_an_op_needs_no_arguments():
    assert assert_vjp(identity).name == "identity"


def test_a_wrong_rule_is_an_assertion_that_says_what():
    with pytest.raises(AssertionError, match=r"square: 1 finding \(factor in d x\)"):
        assert_vjp(scaled(3), "f32[3]", vary=False)


def test_the_definition_judges():
    with pytest.raises(AssertionError, match="forward value"):
        assert_vjp(scaled(1), "f32[3]", definition=lambda x: x * x + 1, vary=False)


def test_keywords_are_handed_on():
    def powered(x, *, n):
        return scaled(1)(x) ** n

    assert assert_vjp(powered, jnp.ones(3), vary=False, n=2).ok


def test_pytest_shows_the_line_of_the_test_and_no_line_of_ours(tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text(
        "import jax\nfrom fnn.testing import assert_vjp\nf = jax.custom_vjp(lambda x: x * x)\n"
        "f.defvjp(lambda x: (x * x, x), lambda x, dy: (x * dy,))\n"
        "def test_f():\n    assert_vjp(f, 'f32[3]', vary=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "assert_vjp(f, 'f32[3]', vary=False)" in done.stdout
    assert "value / factor" in done.stdout
    assert "testing.py" not in done.stdout
