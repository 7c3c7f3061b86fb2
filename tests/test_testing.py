"""`assert_vjp` returns a report or raises an AssertionError that pytest shows well."""

import jax.numpy as jnp
import pytest

from fnn.ops import identity
from fnn.testing import assert_vjp

from .test_verify import SQUARE, WRONG


def test_a_right_rule_returns_its_report():
    report = assert_vjp(SQUARE, "f32[3]", vary=False)
    assert report.ok
    assert report.resolution["x"] < 1e-10


def test_an_op_needs_no_arguments():
    assert assert_vjp(identity, vary=False).name == "identity"


def test_a_wrong_rule_raises_an_error_with_its_defect():
    with pytest.raises(AssertionError, match=r"square: 1 finding \(factor in d x\)"):
        assert_vjp(WRONG, "f32[3]", vary=False)


def test_the_definition_judges():
    with pytest.raises(AssertionError, match="forward value"):
        assert_vjp(SQUARE, "f32[3]", definition=lambda x: x * x + 1, vary=False)


def test_keywords_reach_the_function():
    def power(x, *, n):
        return SQUARE(x) ** n

    assert assert_vjp(power, jnp.ones(3), vary=False, n=2).ok


def test_pytest_shows_the_line_of_the_test_and_no_line_of_ours(tmp_path, capsys):
    file = tmp_path / "test_it.py"
    file.write_text(
        "import jax\nfrom fnn.testing import assert_vjp\nf = jax.custom_vjp(lambda x: x * x)\n"
        "f.defvjp(lambda x: (x * x, x), lambda x, dy: (x * dy,))\n"
        "def test_f():\n    assert_vjp(f, 'f32[3]', vary=False)\n"
    )
    plugins = ("cacheprovider", "faulthandler", "xdist")  # the outer pytest still uses them
    quiet = [option for plugin in plugins for option in ("-p", f"no:{plugin}")]
    assert pytest.main(["-q", "-s", *quiet, str(file)]) == 1
    output = capsys.readouterr().out
    assert "assert_vjp(f, 'f32[3]', vary=False)" in output
    assert "value / factor" in output
    assert "testing.py" not in output
