"""Configs: the files in configs/, what they build, overrides, and writing them out again."""

import json
from pathlib import Path

import optax
import pytest

from fnn.config import Chain, Choice, Config, dump, json_schema, load, parse
from fnn.data import DATASETS, TRANSFORMS
from fnn.errors import ConfigError, DataError
from fnn.layers import LAYERS, Dense, Serial
from fnn.loss import LOSSES
from fnn.models import MODELS

CONFIGS = sorted(Path(__file__).parent.parent.joinpath("configs").glob("*.yaml"))
TEXT = """\
name: small
data: {xor: {copies: 3}}
model: [flatten, dense: {features: 4, w_init: {normal: {stddev: 0.5}}}, relu, dense: {features: 2}]
loss: squared_error
optimizer: {adam: {learning_rate: 1e-3}}
train: {epochs: 4}
"""
WARM = "{init_value: 0, peak_value: 1, warmup_steps: 3, decay_steps: 9}"


def model_line(config: Config, index: int) -> str:
    return dump(config).split("model:\n")[1].splitlines()[index].strip()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file(path):
    config = load(path)
    assert config.name == path.stem
    assert parse(dump(config)) == config
    assert dump(parse(dump(config))) == dump(config)
    assert isinstance(config.build_model(), Serial)
    assert callable(config.build_loss())
    assert callable(config.build_optimizer().update)
    first, second, *_ = path.read_text(encoding="utf-8").splitlines()
    assert first == "# yaml-language-server: $schema=schema.json"
    assert second.startswith("# ")


def test_defaults_are_filled_in_and_written_out():
    config = parse(TEXT)
    assert (config.seed, config.gradient, config.train.batch_size) == (0, "manual", 32)
    assert config.train.converge is None
    assert config.loss == Choice("loss", "squared_error", {"form": "half_sum"})
    assert model_line(config, 2) == "- relu: {subgradient_at_zero: 0.0}"
    assert model_line(config, 3) == (
        "- dense: {features: 2, use_bias: true, w_init: glorot_uniform, b_init: zeros}"
    )
    assert "data: {xor: {copies: 3, noise: 0.0, seed: 0}}" in dump(config)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


def test_what_it_builds():
    config = parse(TEXT)
    layers = config.build_model().layers
    assert len(layers) == 4
    assert isinstance(layers[1], Dense)
    assert layers[1].features == 4
    assert config.load_dataset().x_train.shape[1:] == (2,)
    text = TEXT.replace("{copies: 3}", "{copies: 3}, target: {one_vs_rest: {label: 1}}")
    assert parse(text).load_dataset().classes == ("not 1", "1")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{copies: 3}", "{copies: 0}", "x:2: data.xor: "),
        ("{copies: 3}", "{copies: 3}, target: {one_vs_rest: {label: 7}}", "x:2: data.target.one_"),
    ],
)
def test_the_error_of_a_dataset_has_its_line(old, new, words):
    with pytest.raises(DataError, match=words):
        parse(TEXT.replace(old, new), "x").load_dataset()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1", 1),
        ("{constant_schedule: {value: 0.5}}", 0.5),
        ("{join_schedules: {schedules: [constant_schedule: {value: 3}], boundaries: []}}", 3),
        ("{piecewise_constant_schedule: {init_value: 2, boundaries_and_scales: {5: 0.1}}}", 2),
        (f"{{sgdr_schedule: {{cosine_kwargs: [{WARM}, {WARM}]}}}}", 0),
    ],
)
def test_learning_rates(text, value):
    config = parse(TEXT.replace("1e-3", text))
    rate = config.optimizer.arguments["learning_rate"]
    assert (rate.build()(0) if isinstance(rate, Choice) else rate) == value
    assert parse(dump(config)) == config


def test_a_list_of_optimizers_is_a_chain():
    chain = "[clip_by_global_norm: {max_norm: 1.0}, adam: {learning_rate: 1e-3}]"
    config = parse(TEXT.replace("{adam: {learning_rate: 1e-3}}", chain))
    assert isinstance(config.optimizer, Chain)
    assert isinstance(config.build_optimizer(), optax.GradientTransformationExtraArgs)
    assert parse(dump(config)) == config


XOR = "{xor: {copies: 3, noise: 0.0, seed: 0}"
DENSE = "  - dense: {features: 2, use_bias: true, w_init:"
LABEL = "{one_vs_rest: {label: 1}}"
SGD = "optimizer: {sgd: {learning_rate: 0.1, momentum: null, nesterov: false"
EPSILON = "train: {epochs: 4, batch_size: 32, converge: {epsilon: 0.0001, window: 1}"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=7", "seed: 7"),
        ("name=other", "name: other"),
        ("train.epochs=9", "train: {epochs: 9, batch_size: 32, converge: null"),
        ("train.batch_size=full", "train: {epochs: 4, batch_size: full, converge: null"),
        ("train.converge.epsilon=1e-4", EPSILON),
        ("data.xor.copies=5", "data: {xor: {copies: 5, noise: 0.0, seed: 0}}"),
        ("data=xor", "data: {xor: {copies: 1, noise: 0.0, seed: 0}}"),
        ("loss.squared_error.form=mean", "loss: {squared_error: {form: mean}}"),
        ("model.2=sigmoid", "  - sigmoid"),
        ("model.2.leaky_relu.negative_slope=0.5", "  - leaky_relu: {negative_slope: 0.5}"),
        ("model=[flatten, tanh]", "  - tanh"),
        ("model.3.dense.w_init.uniform.scale=2", f"{DENSE} {{uniform: {{scale: 2}}"),
        ("optimizer.sgd.learning_rate=0.1", SGD),
        ("data.target.one_vs_rest.label=1", f"data: {XOR}, target: {LABEL}}}"),
    ],
)
def test_override(override, line):
    lines = dump(parse(TEXT, overrides=[override])).splitlines()
    assert any(written.startswith(line) for written in lines)


def test_overrides_apply_in_order():
    config = parse(TEXT, overrides=["optimizer=sgd", "optimizer.sgd.learning_rate=1", "seed=3"])
    assert config.optimizer.name == "sgd"
    assert config.seed == 3


ENTRY = "no such entry of a list; its entries are"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epochs", "{}: expected key=value, e.g. train.epochs=5"),
        ("=5", "{}: expected key=value"),
        ("train..epochs=5", "expected key=value"),
        ("train.epochs=five", "{}: train.epochs: expected an integer, got"),
        ("train.epoch=5", "{}: train.epoch: unknown key 'epoch'; did you mean"),
        ("train.epochs=[", "{}: not valid YAML"),
        ("seed.x=1", "{}: seed: expected an integer, got {{x: 1}}"),
        ("name.x=1", "{}: name: is 'small' and has no 'x' below it"),
        ("model.9=relu", f"{{}}: model.9: {ENTRY}"),
        ("model.dense.features=3", f"model.dense: {ENTRY} model.0 ("),
        ("optimizer=sgd", "{}: optimizer.sgd.learning_rate: missing argument"),
        ("optimizer.adamm.b1=1", "unknown key 'adamm' beside 'adam'; did you mean 'adam'?"),
        ("optimizer=lbfgs", "unknown optimizer 'lbfgs', left out: its line search needs the loss"),
        ("model.1.dense.features=0", "x:3 with {}: model.1.dense: features must be at least"),
    ],
)
def test_a_wrong_override(override, words):
    with pytest.raises(ConfigError) as error:
        parse(TEXT, "x", [override])
    assert words.format(f"override {override}") in str(error.value)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("model.1.dense.features", "x:3"),
        ("model.3 dense", "x:3"),
        ("train.epochs", "override train.epochs=5"),
        ("train.batch_size", "x:6 "),
        ("seed", "x"),
        (("optimizer", "adam"), "x:5"),
    ],
)
def test_where(path, place):
    config = parse(TEXT, "x", ["train.epochs=5"])
    assert config.where(path) == place.strip()


def test_the_files_that_are_no_configs(tmp_path):
    (tmp_path / "latin1.yaml").write_bytes(b"name: a\ndata: caf\xe9\n")
    (tmp_path / "huge.yaml").write_bytes(b"#" * 300_000)
    (tmp_path / "bom.yaml").write_text(TEXT, encoding="utf-8-sig")
    for name, words in {
        "latin1.yaml": "latin1.yaml:2: byte 0xe9 is not UTF-8",
        "huge.yaml": "huge.yaml: larger than 256 KiB",
        "hug.yaml": "no such file; did you mean",
        ".": "is a folder; name a config file in it, e.g. ",
        "a\0b": "cannot be read",
    }.items():
        with pytest.raises(ConfigError) as error:
            load(str(tmp_path / name))
        assert words in str(error.value)
    assert load(tmp_path / "bom.yaml") == parse(TEXT)


@pytest.mark.parametrize(
    "text",
    ["1e-3", "1.", ".5", "-2.5E+3", "+7", "1_000", "on", "yes", "No", "007", "1:30", "2020-01-01"],
)
def test_plain_scalars_are_those_of_yaml_1_2(text):
    """A folder must be a text, so YAML of another type would be refused."""
    try:
        number = float(text) if text != "007" else None
    except ValueError:
        number = None
    if number is None:
        check_folder(text, text)
    else:
        config = parse(TEXT, overrides=[f"optimizer.adam.eps={text}"])
        assert config.optimizer.arguments["eps"] == number


def check_folder(written, text):
    """YAML `written` is read as `text`, also after it is dumped and parsed again."""
    config = parse(TEXT.replace("{xor: {copies: 3}}", f"{{idx: {{folder: {written}}}}}"))
    assert config.data.dataset.arguments["folder"] == text
    assert parse(dump(config)) == config


@pytest.mark.parametrize("text", ["1e-3", "null", "true", "yes", "~", "", "a: b", "#x", "5", "é\n"])
def test_texts_are_quoted_where_they_must_be(text):
    check_folder(json.dumps(text), text)


def test_anchors_and_aliases():
    text = TEXT.replace("relu, dense: {features: 2}", "&layer {dense: {features: 2}}, *layer")
    assert parse(text).model[2] == parse(text).model[3] == parse(TEXT).model[3]


def test_the_schema_file_is_current():
    written = json.loads(CONFIGS[0].with_name("schema.json").read_text())
    schema = json.loads(json.dumps(json_schema()))
    if written["$comment"] != schema["$comment"]:  # another optax: its tables may differ
        for each in (written, schema):
            del each["$comment"], each["$defs"]["optimizer"], each["$defs"]["schedule"]
    assert schema == written, "run: python -m fnn.config > configs/schema.json"


def test_the_schema_names_every_row_and_refers_to_what_is_there():
    schema = json_schema()
    tables = {"dataset": DATASETS, "transform": TRANSFORMS, "layer": LAYERS | MODELS}
    for kind, table in (tables | {"loss": LOSSES}).items():
        rows = schema["$defs"][kind]["anyOf"][1]["properties"]
        assert list(rows) == list(table)
        assert all(row["description"] for row in rows.values())
    for reference in set(json.dumps(schema).split('"$ref": "#/$defs/')[1:]):
        assert reference.partition('"')[0] in schema["$defs"]
    assert "x-fnn" not in json.dumps(schema)
