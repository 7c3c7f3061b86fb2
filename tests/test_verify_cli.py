"""`fnn verify`, in this process: the words it takes, what it prints, how it ends."""

import json
import os
import re
import sys

import pytest

from fnn import cli
from fnn.custom_op import Op
from fnn.ops import identity
from fnn.verifier import command

MODULE = '''
import jax
import jax.numpy as jnp

@jax.custom_vjp
def right(x):
    return jnp.where(x > 0, x, 0)

@jax.custom_vjp
def doubled(x):
    return jnp.where(x > 0, x, 0)

@jax.custom_vjp
def bare(x):
    return x

right.defvjp(lambda x: (right(x), x > 0), lambda up, dy: (jnp.where(up, dy, 0),))
doubled.defvjp(lambda x: (doubled(x), x > 0), lambda up, dy: (jnp.where(up, 2 * dy, 0),))

def sloped(x, n=1, *, slope=1.0, name="", flip=False):
    """What the words of a command line became is in the value, and must be what was meant."""
    assert (n, slope, name, flip) == (-3, 1e-5, "same", True)
    return right(x["a"])

def whole(x):
    return x["a"] * 0 + jnp.maximum(x["a"], 0)

LIMIT = 3
'''


@pytest.fixture
def fnn(tmp_path, monkeypatch, capsys):
    """The command `fnn verify` in a folder with a module `tiny`: status, output, errors."""
    (tmp_path / "tiny.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fnn", "verify", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        return ended.value.code, output.out, output.err

    yield run
    sys.modules.pop("tiny", None)


def test_a_right_rule(fnn):
    status, out, err = fnn("tiny:right", "--args", "f32[4,3]", "--no-vary")
    assert (status, err) == (0, "")
    assert out.startswith("right: ok")
    assert "resolution" in out


def test_a_wrong_rule_as_text_and_as_a_page(fnn, tmp_path):
    status, out, _ = fnn("tiny:doubled", "--args", "f32[4,3]", "--html", "found.html")
    assert status == 1
    assert "value / factor" in out
    assert out.endswith("page: found.html\n")
    assert "doubled" in (tmp_path / "found.html").read_text()


def test_several_are_a_table_with_the_failing_ones_in_full(fnn, monkeypatch):
    doubled = Op(identity.definition, examples=identity.examples)
    doubled.def_fwd(identity.fwd_rule)
    doubled.def_bwd(lambda saved, dy: 2 * dy)
    monkeypatch.setattr("fnn.OPS", {"right": identity, "wrong": doubled})
    status, out, _ = fnn("--no-vary")
    assert status == 1
    assert re.search(r"^ identity +ok .*\n identity +FAILED", out, re.MULTILINE)
    assert out.count("value / factor") == 1
    assert re.search(r"\n1 verified, 1 failed, in .+ s\n$", out)


def test_json_is_one_object(fnn):
    status, out, err = fnn("tiny:doubled", "--args=f32[4]", "--no-vary", "--json", "--html", "p")
    assert (status, err) == (1, "")
    output = json.loads(out)
    (report,) = output.pop("reports")
    assert output == {"ok": False, "page": "p"}
    assert (report["name"], [f["defect"] for f in report["findings"]]) == ("doubled", ["factor"])
    assert report.keys() >= {"resolution", "errors", "capabilities", "cost", "notes", "seconds"}


def test_words_become_arguments(fnn):
    status, out, err = fnn(
        *("tiny:sloped", "--no-vary", "--args", "{'a': 'f32[4]'}", "-3"),
        *("--static", "slope=1e-5", "name=same", "--static", "flip=true"),
    )
    assert (status, err) == (0, "")
    assert out.startswith("sloped: ok")


def test_a_definition(fnn):
    call = ("jax.nn:relu", "--args", "f32[4]", "--no-vary", "--definition")
    assert fnn(*call, "tiny:right")[0] == 0
    assert fnn("tiny:doubled", *call[1:], "jax.nn:relu")[0] == 1


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *(("3", 3), ("-1", -1), ("0.5", 0.5), ("None", None), ("True", True), ("true", True)),
        *(("false", False), ("(1, 2)", (1, 2)), ("f32[8,16]", "f32[8,16]"), ("same", "same")),
        *(("i32[8] in 0..9", "i32[8] in 0..9"), ("'3'", "3"), ("{'w': 'f32[2]'}", {"w": "f32[2]"})),
    ],
)
def test_a_word_is_a_literal_or_itself(word, value):
    assert command.literal(word) == value
    assert type(command.literal(word)) is type(value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sofmax",), "there is no op 'sofmax'; did you mean 'softmax'?"),
        (("tinny:right",), "there is no module tinny; did you mean 'tiny'?"),
        (("qqqqqq:right",), "there is no module qqqqqq; the current folder holds tiny"),
        (("jax.nnn:relu",), "there is no module jax.nnn; did you mean 'nn'?"),
        (("tiny.inside:right",), "there is no module tiny.inside; tiny holds no modules"),
        (("tiny:rihgt",), "tiny has no rihgt; did you mean 'right'?"),
        (("tiny:LIMIT",), "tiny:LIMIT is no function; its type is int"),
        (("tiny.right",), "cannot read 'tiny.right'; write module:function"),
        (("tiny.py:right",), "name the module, as import does: tiny:right"),
        (("tiny:right",), 'say what to call it with, such as --args "f32[8,16]"'),
        (("tiny:right", "--args"), "--args needs a value"),
        (("tiny:right", "--static", "--json"), "--static needs a value"),
        (("tiny:right", "--args", "f99[4]"), "'f99[4]' has no known dtype"),
        (("tiny:right", "--args", "f32[4"), "cannot read 'f32[4'"),
        (("tiny:right", "--args", "f32[4]", "f32[4]"), "its signature is right(x)"),
        (("tiny:right", "--args", "i32[4]"), "no argument of right(i32[4]) can be differentiated"),
        (("tiny:right", "--args", "f32[4]", "--static", "eps"), "expected NAME=VALUE"),
        (("tiny:right", "--args", "f32[4]", "--definition", "no:where"), "there is no module no"),
        (("tiny:right", "--args", "f32[4]", "--html", "a/b.html"), "there is no folder a"),
        (("tiny:bare", "--args", "f32[4]"), "call bare.defvjp(fwd, bwd) first"),
        (("tiny:whole", "--args", "{'a': 'f32[4]'}"), "no custom rule was found in whole"),
        (("relu", "tanh", "--args", "f32[4]"), "name one function, not 2"),
        (("tanh", "--walk"), "No such option"),
    ],
)
def test_a_wrong_call_is_one_message(fnn, arguments, words):
    status, out, err = fnn(*arguments)
    assert status == 2
    assert words in " ".join(err.split())
    assert out == ""


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("broken", "x = 1\nx = = 2\n", "SyntaxError: invalid syntax"),
        ("asking", "x = 1\nimport nothing_of_the_kind\n", "No module named 'nothing_of_the_kind'"),
        ("rude", "x = 1\nraise SystemExit('no')\n", "SystemExit: no"),
    ],
)
def test_a_module_that_fails_says_what_and_where(fnn, tmp_path, name, text, words):
    (tmp_path / f"{name}.py").write_text(text)
    status, _, err = fnn(f"{name}:f", "--args", "f32[4]")
    assert status == 2
    assert f"{name} cannot be imported: " in err
    assert words in err
    assert f"{name}.py, line 2)" in err


def test_two_devices_are_asked_for_unless_a_number_is_set(monkeypatch):
    count = "--xla_force_host_platform_device_count="

    def flags(before):
        monkeypatch.setenv("XLA_FLAGS", before)
        cli.command.ask_for_devices(2)
        return os.environ["XLA_FLAGS"]

    assert flags("--xla_one") == f"--xla_one {count}2"
    assert flags(f"{count}3") == f"{count}3"
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    assert flags("") == ""
