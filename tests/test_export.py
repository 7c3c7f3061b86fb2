"""Exports of a run, loaded back: they are the run's model."""

import json

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from fnn.config import dump, load, parse
from fnn.export import FORMS, PLATFORMS, Trained, load_trained, to_stablehlo
from fnn.runs import folder
from fnn.runs.fit import train
from fnn.runs.prepare import prepare

from .report_runs import edit_json, edit_npz
from .runs import EVERY_LAYER, arrays, drawn
from .runs import command as command

HEAD = """\
loss: softmax_cross_entropy
optimizer: {adam: {learning_rate: 0.01}}
train: {epochs: 2, batch_size: full}
"""
CONFIG = f"""
name: small
data: digits
model: [flatten, dense: {{features: 8}}, batch_norm, relu, dense: {{features: 10}}]
{HEAD}"""


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """A run of a small network with state, and its test examples."""
    ready = prepare(parse(CONFIG))
    where = folder.create(tmp_path_factory.mktemp("runs"), "small")
    train(ready, where)
    return where, ready.data.x_test


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of the run's files that a test may damage."""
    copy = tmp_path / "small" / trained_run[0].name
    copy.mkdir(parents=True)
    for file in (path for path in trained_run[0].iterdir() if path.is_file()):
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_safetensors_are_the_runs_arrays(command, run):
    newest = run.parent  # of its runs
    status, out, err = command("export", newest, "--to", "safetensors", "--json")
    assert (status, err) == (0, "")
    file = run / "model.safetensors"
    assert json.loads(out) == {"file": str(file), "bytes": file.stat().st_size}
    loaded = safetensors.numpy.load_file(file)
    expected = arrays(run / "parameters.npz") | arrays(run / "state.npz")
    assert loaded.keys() == expected.keys() >= {"1_dense/w", "2_batch_norm/mean", "4_dense/b"}
    for name, array in expected.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
    with safetensors.safe_open(file, "numpy") as opened:
        words = opened.metadata()
    assert dump(parse(words["config"])) == dump(load(run / "config.yaml"))
    assert words["fnn"]


def test_stablehlo_gives_the_scores_of_the_run(command, run, trained_run):
    file = run.parent / "elsewhere.bin"
    status, out, _ = command("export", run, "--to", "stablehlo", "--out", file)
    assert status == 0
    assert out == f"{file}: {file.stat().st_size:,} bytes\n"
    content = bytearray(file.read_bytes())
    model = jax.export.deserialize(content)
    scores = arrays(run / "predictions.npz")["scores"]
    for n in (1, 7, len(scores)):
        # Sums of at most 64 products of numbers of size 1; XLA orders them by the batch's size.
        outputs = model.call(trained_run[1][:n])
        np.testing.assert_allclose(outputs, scores[:n], rtol=1e-5, atol=1e-5)
    assert model.platforms == PLATFORMS
    assert b".py" not in content  # nothing of the machine that it was made on
    with pytest.raises(ValueError, match="No VJP"):
        jax.grad(lambda x: model.call(x).sum())(trained_run[1][:2])


def test_every_layer_takes_batches_of_any_size():
    config = parse(f"name: x\ndata: digits\n{EVERY_LAYER}{HEAD}")
    model = config.build_model()
    params, state = drawn(model, (1, 8, 8, 1))
    exported = to_stablehlo(Trained(config, model, params, state, (8, 8, 1)))
    x = np.random.default_rng(1).normal(size=(3, 8, 8, 1)).astype(np.float32)
    outputs = jax.export.deserialize(bytearray(exported)).call(x)
    y, _ = jax.jit(model.apply)(params, state, x)
    np.testing.assert_allclose(outputs, y, rtol=1e-5, atol=1e-6)


def write(name, content):
    return lambda run: (run / name).write_bytes(content)


def cut(name):
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:300])


def edit(name, **changes):
    how = edit_json if name.endswith(".json") else edit_npz
    return lambda run: how(run / name, **changes)


def gone(name):
    return lambda run: (run / name).unlink()


P, OTHER = (
    "parameters.npz",
    "1_dense/w: the model of config.yaml has numbers of shape (81, 8) there",
)
PICKLES = {"1_dense/w": np.array([{}], object)}
MISTAKES = {
    "no config": (gone("config.yaml"), "config.yaml: no such file"),
    "a config with a tag": (write("config.yaml", b"name: !!python/name:os.system x"), "the tag"),
    "no parameters": (gone(P), f"{P} is not in the run folder; it is"),
    "parameters cut": (cut(P), f"{P} cannot be read"),
    "noise": (write(P, b"\xff" * 500), f"{P} cannot be read"),
    "no state": (gone("state.npz"), "state.npz is not in the run folder"),
    "no summary": (gone("summary.json"), "summary.json is not in the run folder"),
    "no shape": (edit("summary.json", x_shape=[]), "expected x_shape"),
    "a negative shape": (edit("summary.json", x_shape=[-8]), "expected x_shape"),
    "another shape": (edit("summary.json", x_shape=[9, 9, 1]), OTHER),
    "pickles": (edit(P, **PICKLES), "allow_pickle=False"),
    "words": (edit(P, **{"1_dense/b": np.array(list("abcdefgh"))}), "the file <U1 of shape (8,)"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("damage", MISTAKES)
def test_a_mistake_is_one_message_and_nothing_is_written(command, run, form, damage):
    spoil, words = MISTAKES[damage]
    spoil(run)
    before = sorted(path.name for path in run.iterdir())
    status, out, err = command("export", run, "--to", form)
    assert (status, out) == (2, "")
    assert words in " ".join(err.split())
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_file_that_cannot_be_written_leaves_the_old_one(command, run):
    for out in (run / "none" / "model", run):
        status, _, err = command("export", run, "--to", "safetensors", "--out", out)
        assert status == 2
        assert f"cannot write {out}" in err
    assert not list(run.parent.glob(".*"))


def test_a_model_without_parameters(tmp_path, trained_run):
    text = f"name: small\ndata: digits\nmodel: [flatten]\n{HEAD}"
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "summary.json").write_bytes((trained_run[0] / "summary.json").read_bytes())
    trained = load_trained(tmp_path)
    assert trained.params == trained.layers == {}
    assert safetensors.numpy.load(FORMS["safetensors"](trained)) == {}
