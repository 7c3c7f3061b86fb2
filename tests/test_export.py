"""What a run learnt, in forms that others read: loaded back in, it is the run's model."""

import json
import sys

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from fnn import cli
from fnn.config import dump, load, parse
from fnn.export import FORMS, PLATFORMS, Trained, load_trained, to_stablehlo
from fnn.layers import LAYERS
from fnn.train import folder, prepare, train

from .report_runs import edit_json, edit_npz

HEAD = """\
loss: softmax_cross_entropy
optimizer: {adam: {learning_rate: 0.01}}
train: {epochs: 2, batch_size: full}
"""
CONFIG = f"""
name: small
data: digits
model:
  - flatten
  - dense: {{features: 8}}
  - batch_norm
  - relu
  - dense: {{features: 10}}
{HEAD}"""


@pytest.fixture(scope="session")
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


@pytest.fixture
def fnn(monkeypatch, capsys):
    """The command in this process: status, output, errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fnn", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err

    return call


def test_safetensors_are_the_runs_arrays(fnn, run):
    status, out, err = fnn(run.parent, "--to", "safetensors", "--json")  # the newest of its runs
    assert (status, err) == (0, "")
    file = run / "model.safetensors"
    assert json.loads(out) == {"file": str(file), "bytes": file.stat().st_size}
    found = safetensors.numpy.load_file(file)
    kept = {}
    for name in ("parameters.npz", "state.npz"):
        with np.load(run / name, allow_pickle=False) as arrays:
            kept |= dict(arrays)
    assert found.keys() == kept.keys() >= {"1_dense/w", "2_batch_norm/mean", "4_dense/b"}
    for name, array in kept.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    with safetensors.safe_open(file, "numpy") as opened:
        words = opened.metadata()
    assert dump(parse(words["config"])) == dump(load(run / "config.yaml"))
    assert words["fnn"]


def test_stablehlo_gives_the_scores_of_the_run(fnn, run, trained_run):
    file = run.parent / "elsewhere.bin"
    status, out, _ = fnn(run, "--to", "stablehlo", "--out", file)
    assert status == 0
    assert out == f"{file}: {file.stat().st_size:,} bytes\n"
    content = bytearray(file.read_bytes())
    model = jax.export.deserialize(content)
    with np.load(run / "predictions.npz", allow_pickle=False) as arrays:
        scores = arrays["scores"]
    for n in (1, 7, len(scores)):
        # Sums of at most 64 products of numbers of size 1; XLA orders them by the batch's size.
        found = model.call(trained_run[1][:n])
        np.testing.assert_allclose(found, scores[:n], rtol=1e-5, atol=1e-5)
    assert model.platforms == PLATFORMS
    assert b".py" not in content  # nothing of the machine that it was made on
    with pytest.raises(ValueError, match="No VJP"):
        jax.grad(lambda x: model.call(x).sum())(trained_run[1][:2])


CHAIN = """
  - conv: {features: 4, window: 3}
  - max_pool: {window: 2}
  - upsample: {scale: 2}
  - conv_transpose: {features: 4, window: 3, stride: 2}
  - avg_pool: {window: 2}
  - residual: {body: [identity, layer_norm, {drop_path: {rate: 0.5}}]}
  - group_norm: {groups: 2}
  - batch_norm
  - local_response_norm
  - dropout: {rate: 0.5}
  - channel_dropout: {rate: 0.5}
  - alpha_dropout: {rate: 0.5}
  - sigmoid
  - tanh
  - relu
  - leaky_relu
  - softplus
  - step
  - unfold: {window: 2}
  - log_softmax
  - softmax
  - flatten
  - dense: {features: 4}
  - masked_dense: {features: 10, fan_in: 2}
"""
POOLED = "  - global_{}_pool\n  - dense: {{features: 10}}\n"
SCAN = "  - scan_1d: {window: 16, body: [{dense: {features: 2}}]}\n"
MODELS = [
    *(("digits", (8, 8, 1), POOLED.format(pool)) for pool in ("avg", "max", "softmax")),
    ("digits", (8, 8, 1), CHAIN),
    ("keyword", (100, 1), SCAN),
]


def test_every_layer_is_tried():
    tried = "".join(layers for _, _, layers in MODELS)
    assert [name for name in LAYERS if name not in tried] == []


@pytest.mark.parametrize(("data", "x_shape", "layers"), MODELS)
def test_every_layer_takes_batches_of_any_size(data, x_shape, layers):
    config = parse(f"name: x\ndata: {data}\nmodel:\n{layers}{HEAD}")
    model = config.build_model()
    params, state, _ = model.init(jax.random.key(0), (1, *x_shape))
    exported = to_stablehlo(Trained(config, model, params, state, x_shape))
    x = jax.random.normal(jax.random.key(1), (3, *x_shape))
    found = jax.export.deserialize(bytearray(exported)).call(x)
    y, _ = jax.jit(model.apply)(params, state, x)
    np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-6)


def unlink(name):
    return lambda run: (run / name).unlink()


def write(name, content):
    return lambda run: (run / name).write_bytes(content)


def cut(name):
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:300])


MISTAKES = {
    "no config": (unlink("config.yaml"), "config.yaml: no such file"),
    "a config with a tag": (write("config.yaml", b"name: !!python/name:os.system x"), "the tag"),
    "no parameters": (unlink("parameters.npz"), "parameters.npz is not in the run folder; it is"),
    "parameters cut": (cut("parameters.npz"), "parameters.npz cannot be read"),
    "noise": (write("parameters.npz", b"\xff" * 500), "parameters.npz cannot be read"),
    "no state": (unlink("state.npz"), "state.npz is not in the run folder"),
    "no summary": (unlink("summary.json"), "summary.json is not in the run folder"),
    "no shape": (lambda r: edit_json(r / "summary.json", x_shape=[]), "expected x_shape"),
    "a negative shape": (lambda r: edit_json(r / "summary.json", x_shape=[-8]), "expected x_shape"),
    "another shape": (
        lambda r: edit_json(r / "summary.json", x_shape=[9, 9, 1]),
        "1_dense/w: the model of config.yaml has numbers of shape (81, 8) there",
    ),
    "pickles": (
        lambda r: edit_npz(r / "parameters.npz", **{"1_dense/w": np.array([{}], object)}),
        "allow_pickle=False",
    ),
    "words": (
        lambda r: edit_npz(r / "parameters.npz", **{"1_dense/b": np.array(list("abcdefgh"))}),
        "the file <U1 of shape (8,)",
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("damage", MISTAKES)
def test_a_mistake_is_one_message_and_nothing_is_written(fnn, run, form, damage):
    spoil, words = MISTAKES[damage]
    spoil(run)
    before = sorted(path.name for path in run.iterdir())
    status, out, err = fnn(run, "--to", form)
    assert (status, out) == (2, "")
    assert words in " ".join(err.split())
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_file_that_cannot_be_written_leaves_what_was_there(fnn, run):
    for out in (run / "none" / "model", run):
        status, _, err = fnn(run, "--to", "safetensors", "--out", out)
        assert status == 2
        assert f"cannot write {out}" in err
    assert not list(run.parent.glob(".*"))


def test_a_model_without_parameters(tmp_path, trained_run):
    text = CONFIG[: CONFIG.index("  - dense")] + HEAD
    (tmp_path / "config.yaml").write_text(text)
    edit = json.loads((trained_run[0] / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(edit))
    trained = load_trained(tmp_path)
    assert trained.params == trained.layers == {}
    assert safetensors.numpy.load(FORMS["safetensors"](trained)) == {}
