"""`assert_vjp`: a report or an AssertionError, and how pytest shows that."""

import jax
import jax.numpy as jnp
import pytest

from fnn.ops import identity
from fnn.testing import assert_vjp


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
    assert assert_vjp(identity, vary=False).name == "identity"


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


def test_pytest_shows_the_line_of_the_test_and_no_line_of_ours(tmp_path, capsys):
    file = tmp_path / "test_it.py"
    file.write_text(
        "import jax\nfrom fnn.testing import assert_vjp\nf = jax.custom_vjp(lambda x: x * x)\n"
        "f.defvjp(lambda x: (x * x, x), lambda x, dy: (x * dy,))\n"
        "def test_f():\n    assert_vjp(f, 'f32[3]', vary=False)\n"
    )
    plugins = ("cacheprovider", "faulthandler", "xdist")  # which the outer pytest goes on with
    quiet = [option for plugin in plugins for option in ("-p", f"no:{plugin}")]
    assert pytest.main(["-q", "-s", *quiet, str(file)]) == 1
    shown = capsys.readouterr().out
    assert "assert_vjp(f, 'f32[3]', vary=False)" in shown
    assert "value / factor" in shown
    assert "testing.py" not in shown
