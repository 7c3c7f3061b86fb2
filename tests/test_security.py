"""No input is ever executed, and a page shows all input as text.

The tests of each reader try damaged files.
"""

import ast
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import verify
from fnn.config import parse
from fnn.data import DATASETS
from fnn.errors import ConfigError, FnnError
from fnn.export import load_trained
from fnn.report import diff
from fnn.report.run import read_run
from fnn.runs import folder
from fnn.verifier.page import write_page

from .report_runs import Page, edit_npz, make_run, report
from .test_config_errors import GOOD
from .test_house import ROOT, SOURCES

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>{{ 7 * 7 }}'


RUNNERS = {"eval", "exec", "__import__"}
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE = {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"}
UNSAFE |= {"Loader", "CLoader", "FullLoader", "CFullLoader", "UnsafeLoader", "CUnsafeLoader"}


def faults(source):
    """Yield (line, reason) for each line of a source that could run or show its input unescaped."""
    for node in ast.walk(ast.parse(source)):
        if reason := "; ".join(_faults(node)):
            yield node.lineno, reason


def _faults(node):
    match node:
        case ast.Import(names=names):
            yield from ("pickles" for name in names if name.name.split(".")[0] in PICKLERS)
        case ast.ImportFrom(module=module, names=names):
            if (module or "").split(".")[0] in PICKLERS:
                yield "pickles"
            for name in names:
                if module == "yaml" and name.name in UNSAFE:
                    yield "reads YAML with tags"
                if (module, name.name) == ("numpy", "load"):
                    yield "hides np.load"
        case ast.Attribute(value=ast.Name(id="yaml"), attr=attr) if attr in UNSAFE:
            yield "reads YAML with tags"
        case ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen"):
            yield "starts a shell"
        case ast.Name(id="Markup") | ast.Attribute(attr="Markup"):
            yield "marks as safe"
        case ast.Call(func=function, keywords=keywords):
            arguments = {k.arg: getattr(k.value, "value", None) for k in keywords}
            name = ast.unparse(function)
            if name in RUNNERS:
                yield "runs text"
            of_numpy = name.split(".")[0] in ("np", "numpy")
            reads = of_numpy and name.endswith((".load", "read_array"))
            if reads and arguments.get("allow_pickle") is not False:
                yield "may unpickle"
            if name.endswith("jinja2.Environment") and arguments.get("autoescape") is not True:
                yield "does not escape"
            if arguments.get("shell"):
                yield "starts a shell"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_source_runs_nothing_that_it_reads(path):
    assert list(faults(path.read_text())) == []


UNSAFE_LINES = """
eval(text)
exec(text, {})
__import__(name)
import pickle
from pickle import loads
import joblib.numpy_pickle
np.load(file)
np.load(file, allow_pickle=True)
np.load(file, allow_pickle=allowed)
from numpy import load
np.lib.format.read_array(stream)
yaml.load(text, Loader=yaml.SafeLoader)
yaml.unsafe_load(text)
class Reader(yaml.UnsafeLoader): pass
from yaml import full_load
jinja2.Environment(loader=loader)
jinja2.Environment(autoescape=False)
markupsafe.Markup(text)
subprocess.run(words, shell=True)
os.system(words)
"""


def test_unsafe_lines_are_found():
    assert [line for line in UNSAFE_LINES.split("\n") if line and not list(faults(line))] == []


def test_the_templates_mark_nothing_as_safe():
    templates = [*ROOT.glob("fnn/**/*.jinja")]
    assert templates
    for template in templates:
        text = template.read_text("utf-8").split("#}", 1)[1]  # without its first comment
        assert not re.search("safe|autoescape", text)


class Payload:
    """An object whose pickle makes a folder when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_file_is_not_written_through_a_link(tmp_path):
    (victim := tmp_path / "victim").write_text("mine")
    (tmp_path / ".summary.json.partial").symlink_to(victim)
    folder.write_text(tmp_path / "summary.json", "theirs")
    assert victim.read_text() == "mine"
    assert (tmp_path / "summary.json").read_text() == "theirs"


def test_no_archive_is_unpickled(tmp_path):
    trap = tmp_path / "unpickled"
    run = make_run(tmp_path / "run", x_shape=(2,), k=2)
    payload = np.array([Payload(trap)], object)
    edit_npz(run / "parameters.npz", **{"1_dense/w": payload})
    edit_npz(run / "predictions.npz", scores=payload)
    assert {"parameters.npz", "predictions.npz"} <= read_run(run).problems.keys()
    (run / "config.yaml").write_text(
        "name: x\ndata: xor\nmodel: [dense: {features: 2}]\nloss: softmax_cross_entropy\n"
        "optimizer: {sgd: {learning_rate: 1}}\ntrain: {epochs: 1}\n"
    )
    with pytest.raises(FnnError, match=r"parameters\.npz cannot be read"):
        load_trained(run)
    data = {"x_train": payload, "y_train": [0], "x_test": payload, "y_test": [0]}
    np.savez(tmp_path / "data.npz", **data)
    with pytest.raises(FnnError, match="only pickle could read"):
        DATASETS["npz"](path=str(tmp_path / "data.npz"))
    assert not trap.exists()
    with np.load(tmp_path / "data.npz", allow_pickle=True) as archive:
        assert archive["x_train"].size  # unpickled here, the payload acts
    assert trap.exists()


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [{folder}]",
        "!!python/object/new:os.mkdir [{folder}]",
        "!!python/name:os.mkdir",
        "!!python/object:collections.Counter {{}}",
        "!<tag:yaml.org,2002:python/name:os.mkdir> ''",
        "!mine 3",
    ],
)
def test_a_tag_is_an_error_wherever_yaml_is_read(tmp_path, tag):
    value = tag.format(folder=tmp_path / "folder")
    with pytest.raises(ConfigError, match=r"x:\d+: not valid YAML: the tag .* is not allowed"):
        parse(GOOD.replace("seed: 0", f"seed: {value}"), "x")
    with pytest.raises(ConfigError, match=r"override seed=.*: the tag .* is not allowed"):
        parse(GOOD, "x", [f"seed={value}"])
    run = make_run(tmp_path / "run", n=8, m=2)
    (run / "config.yaml").write_text(f"seed: {value}\n")
    assert "is not allowed" in diff(run, run).problems["a"][0]
    with pytest.raises(ConfigError, match="is not allowed"):
        load_trained(run)
    assert not (tmp_path / "folder").exists()


def test_a_name_of_a_run_cannot_be_html():
    with pytest.raises(ConfigError, match="expected a name for the run's folder"):
        parse(GOOD.replace("name: small", f"name: '{EVIL}'"))


def test_the_problem_of_a_file_is_shown_as_text(tmp_path):
    run = make_run(tmp_path / "run")
    np.savez(run / "parameters.npz", **{EVIL.replace("/", ""): np.zeros(3)})
    packed = bytearray((run / "parameters.npz").read_bytes())
    packed[packed.index(b"NUMPY") + 130] ^= 1  # in its numbers; the error names the array
    (run / "parameters.npz").write_bytes(packed)
    problem = read_run(run).problems["parameters.npz"]
    assert "<script>" in problem
    page = report(run)
    page.assert_harmless()
    assert "Bad CRC-32" in page["filters"]


def test_the_error_of_a_function_is_shown_as_text(tmp_path):
    @jax.custom_vjp
    def f(x):
        return x * x

    def backward(x, dy):
        raise ValueError(EVIL)

    f.defvjp(lambda x: (x * x, x), backward)
    f.__name__ = EVIL
    outcome = verify(f, jnp.ones(3))
    assert EVIL in str(outcome.findings)
    page = Page(write_page([outcome], tmp_path / "page.html").read_text("utf-8"))
    page.assert_harmless()
    assert "7 * 7" in " ".join(page.text.values())
