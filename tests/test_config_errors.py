"""A wrong config gives one clear message: place, actual value, expected value, fix.

test_fuzz_configs.py tries configs with random mistakes.
"""

import pytest

from fnn.config import parse
from fnn.errors import ConfigError

GOOD = """\
name: small
seed: 0
data: {digits: {test_fraction: 0.2}}
model:
  - flatten
  - dense: {features: 16}
  - relu
  - dense:
      features: 10
loss: softmax_cross_entropy
optimizer:
  adam:
    learning_rate: 1e-3
train:
  batch_size: 32
  epochs: 4
"""

SIZE = "x:15: train.batch_size: expected a positive integer or 'full', got"
RATE = "x:13: optimizer.adam.learning_rate"
DIGITS = "{digits: {test_fraction: 0.2}}"
STOPPING = "epochs: 4\n  early_stopping"
WINDOW = "epochs: 4\n  converge: {epsilon: 0, window: 0}"
NORMAL = "features: 16, w_init: {normal: {stddev: a}}"
COSINE = "{cosine_decay_schedule: {init_value: 1, decay_steps: 0}}"

# text in GOOD, its replacement, and parts of the message
WRONG = [
    # keys
    ("epochs: 4", "epoch: 4", ["x:16: train.epoch: unknown key 'epoch'; did you mean 'epochs'?"]),
    ("seed: 0", "sed: 0", ["x:2: sed: unknown key 'sed'; did you mean 'seed'?"]),
    ("seed: 0", "zzz: 0", ["x:2: zzz: unknown key 'zzz'; known keys: name, seed, data, model"]),
    ("seed: 0", "7: 0", ["x:2: 7: unknown key '7'"]),
    ("features: 16", "featurs: 16", ["x:6: model.1.dense.featurs: ", "did you mean 'features'?"]),
    ("- relu", "- relu: {a: 1}", ["x:7: model.2.relu.a: unknown key 'a'; known keys: subgrad"]),
    ("- flatten", "- flatten: {a: 1}", ["x:5: model.0.flatten.a: ", "it has no arguments"]),
    ("train:\n", "trian:\n", ["x:14: trian: unknown key 'trian'; did you mean 'train'?"]),
    # missing parts
    ("loss: softmax_cross_entropy\n", "", ["x: loss: missing section; add e.g. `loss: softmax_"]),
    ("  epochs: 4\n", "", ["x:14: train.epochs: missing argument; expected an integer, 1"]),
    ("{features: 16}", "", ["x:6: model.1.dense.features: missing argument; expected an integer"]),
    ("  adam:\n    learning_rate: 1e-3", "  adam", ["x:11: optimizer.adam.learning_rate: missing"]),
    # types
    ("epochs: 4", "epochs: five", ["x:16: train.epochs: expected an integer, got 'five'"]),
    ("epochs: 4", "epochs: '4'", ["x:16: train.epochs: expected an integer, got '4'"]),
    ("epochs: 4", "epochs: true", ["x:16: train.epochs: expected an integer, got true"]),
    ("epochs: 4", "epochs: 4.5", ["x:16: train.epochs: expected an integer, got 4.5"]),
    ("epochs: 4", "epochs:", ["x:16: train.epochs: expected an integer, got nothing"]),
    ("features: 16", "features: [16]", ["model.1.dense.features: expected an integer, got [16]"]),
    ("{features: 16}", "16", ["x:6: model.1.dense: expected a mapping with the keys features"]),
    ("features: 16", "features: 16, use_bias: 1", ["use_bias: expected true or false, got 1"]),
    ("test_fraction: 0.2", "test_fraction: a", ["x:3: data.digits.test_fraction: expected a num"]),
    ("- flatten", "- 3", ["x:5: model.0: expected a layer, its name or {name: arguments}, got 3"]),
    ("- flatten", "-", ["x:5: model.0: expected a layer", "got nothing"]),
    ("softmax_cross_entropy", "[relu]", ["x:10: loss: expected a loss", "got [relu]"]),
    ("1e-3", "true", [f"{RATE}: expected a number or a schedule, got t"]),
    ("1e-3", "[1]", ["learning_rate: expected a number or a schedule, got [1]"]),
    ("1e-3", ".nan", ["learning_rate: expected a finite number, got .nan"]),
    ("1e-3", "1e999", ["learning_rate: expected a finite number, got .inf"]),
    (DIGITS, "3", ["x:3: data: expected a dataset", "got 3"]),
    (DIGITS, "", ["x:3: data: expected a dataset", "got nothing"]),
    # values
    ("seed: 0", "seed: -1", ["x:2: seed: expected 0 or more, got -1"]),
    ("seed: 0", "seed: 4294967296", ["x:2: seed: expected 4294967295 or less, got 4294967296"]),
    ("epochs: 4", "epochs: 0", ["x:16: train.epochs: expected 1 or more, got 0"]),
    ("size: 32", "size: 0", [f"{SIZE} 0"]),
    ("size: 32", "size: ful", [f"{SIZE} 'ful'"]),
    ("size: 32", "size: true", [f"{SIZE} true"]),
    (
        "epochs: 4",
        WINDOW,
        [
            "x:17: train.converge.epsilon: expected a number above 0, got 0",
            "x:17: train.converge.window: expected 1 or more, got 0",
        ],
    ),
    (
        "epochs: 4",
        "epochs: 4\n  average: 1.0",
        ["train.average: expected a number below 1, got 1.0"],
    ),
    ("epochs: 4", "epochs: 4\n  average: 0", ["train.average: expected a number above 0, got 0"]),
    ("epochs: 4", "epochs: 4\n  accumulate: 0", ["train.accumulate: expected 1 or more, got 0"]),
    (
        "epochs: 4",
        f"{STOPPING}: {{metric: loss}}",
        ["metric: expected 'train_loss', 'test_loss' or"],
    ),
    ("epochs: 4", f"{STOPPING}: {{min_delta: -1}}", ["min_delta: expected 0 or more, got -1"]),
    (
        "  epochs: 4",
        "  epochs: 4\n  early_stoping: {}",
        ["unknown key 'early_stoping'; did you mean 'early_stopping'"],
    ),
    ("seed: 0", "distributed: {address: here}", ["address: expected host:port, got 'here'"]),
    (
        "seed: 0",
        "distributed: 2",
        ["distributed: expected a mapping with the keys address, ", "got 2"],
    ),
    ("seed: 0", "distributed: Auto", ["distributed: expected auto or a mapping, got 'Auto'"]),
    ("name: small", "name: ../up", ["x:1: name: expected a name for the run's folder", "'../up'"]),
    ("name: small", "name: .hidden", ["x:1: name: ", "not '.' first", "got '.hidden'"]),
    ("name: small", "name: ''", ["x:1: name: ", "got ''"]),
    ("name: small", "name: 12", ["x:1: name: expected a text, got 12"]),
    ("seed: 0", "gradient: manuel", ["'manual', 'autodiff' or 'backprop', got 'manuel'; did you"]),
    ("features: 16", "features: 0", ["x:6: model.1.dense: features must be at least 1, got 0"]),
    ("1e-3", COSINE, [f"{RATE}.cosine_decay_schedule: ", "decay_steps=0"]),
    # references
    ("- dense: {", "- denze: {", ["x:6: model.1: unknown layer 'denze'; did you mean 'dense'?"]),
    ("- relu", "- rellu", ["x:7: model.2: unknown layer 'rellu'; did you mean 'relu'?"]),
    ("- relu", "- zzzz", ["x:7: model.2: unknown layer 'zzzz'; known layers: identity, sigmoid, "]),
    ("digits:", "digit:", ["x:3: data: unknown dataset 'digit'; did you mean 'digits'?"]),
    ("softmax_cross_entropy", "softmax", ["x:10: loss: unknown loss 'softmax'; did you mean"]),
    ("adam", "adamm", ["x:11: optimizer: unknown optimizer 'adamm'; did you mean 'adam'?"]),
    ("1e-3", "fast", ["x:13: ", "expected a number or a schedule, got 'fast'; known schedules: "]),
    ("1e-3", "{cosine: {}}", ["unknown schedule 'cosine'; did you mean 'cosine_decay_schedule', "]),
    ("features: 16", "features: 16, w_init: he", ["unknown initializer 'he'"]),
    ("features: 16", NORMAL, ["w_init.normal.stddev: expec"]),
    ("0.2}}", "0.2}, target: one_vs_all}", ["x:3: data.target: unknown transform 'one_vs_all'"]),
    ("0.2}}", "0.2}, targt: a}", ["unknown key 'targt' beside 'digits'; did you mean 'target'?"]),
    (DIGITS, "{target: {one_vs_rest: {label: 2}}}", ["a dataset", "noth"]),
    # one choice, badly written
    ("      features: 10", "    features: 10", ["x:9: model.3.features: ", "indent it further"]),
    ("adam:\n", "sgd: \n  adam:\n", ["optimizer: expected one optimizer, got the keys sgd, adam"]),
    ("- relu", "- {}", ["x:7: model.2: expected a layer", "got {}"]),
    ("- relu", "- relu:\n    tanh:", ["x:7: model.2: expected one layer", "begin each with '- '"]),
    ("adam:\n", "name: adam\n  x:\n", ["got the keys name, x; write {name: {arguments}}"]),
    ("{features: 16}", "16", ["did you mean {features: 16}?"]),
    ("- relu", "- ReLU", ["unknown layer 'ReLU'; did you mean 'relu'?"]),
    ("- relu", "- relu: 3", ["x:7: model.2.relu: expected a mapping with the keys subgradient"]),
    ("- relu", "- tanh: 3", ["x:7: model.2.tanh: it has no arguments, got 3"]),
    # YAML
    ("seed: 0", "name: again", ["x:2: name: duplicate key 'name', first on line 1"]),
    ("features: 16", "features: 16, features: 2", ["x:6: model.1.dense.features: duplicate key"]),
    ("  epochs: 4", "\tepochs: 4", ["x:16: not valid YAML", "indent with spaces, not with tabs"]),
    ("seed: 0", "seed: [0", ["x:3: not valid YAML: while parsing a flow"]),
    ("seed: 0", "seed: !!python/name:os.kill 0", ["x:2: not valid YAML: the tag ", "not allowed"]),
    ("seed: 0", "seed: !!int 0", ["x:2: not valid YAML: the tag "]),
    ("seed: 0", "seed: *nowhere", ["x:2: not valid YAML: found undefined alias 'nowhere'"]),
    ("seed: 0", "seed: &a [*a]", ["x:2: seed.0: an alias that contains itself"]),
    ("seed: 0", f"seed: {'9' * 5000}", ["x:2: seed: a number of 5000 digits"]),
    ("seed: 0", "true: 0", ["x:2: a key must be a text or an integer, got 'true'"]),
    ("seed: 0", "[a]: 0", ["x:2: a key must be a text or an integer, got a list or a mapping"]),
    ("seed: 0", "seed: \x01", ["x:2: not valid YAML: character '\\x01' is not allowed"]),
    ("seed: 0", "--- a", ["x:2: not valid YAML", "expected a single document"]),
    ("seed: 0", "seed: " + "[" * 5000, ["x: nested too deeply"]),
]


def message(text: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as error:
        parse(text, "x", overrides)
    return str(error.value)


@pytest.mark.parametrize(("old", "new", "expected"), WRONG)
def test_message(old, new, expected):
    assert GOOD.count(old) >= 1
    text = message(GOOD.replace(old, new, 1))
    for words in expected:
        assert words in text
    assert "pydantic" not in text
    assert "Input should" not in text
    assert len(text.splitlines()) == (2 if "window: 0" in new else 1)  # one mistake, one line


def test_all_mistakes_are_listed_in_the_order_of_the_file():
    text = GOOD.replace("seed: 0", "seed: x").replace("relu", "rellu").replace("epochs: 4", "")
    lines = message(text, ("gradient=slow",)).splitlines()
    places = [line.split(": ")[0] for line in lines]
    assert places == ["x:2", "x:7", "x:14", "override gradient=slow"]


def test_a_long_list_of_mistakes_is_cut():
    lines = message(GOOD.replace("  - flatten\n", "  - wrong\n" * 50)).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "... and 30 more"


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "x: empty; a config has the sections name, seed, data, model"),
        ("# only a comment\n", "x: empty"),
        ("- a\n- b\n", "x: expected a mapping with the sections name, seed"),
        ("just words", "got 'just words'"),
        (BOMB, "more than 50000 values"),
    ],
    ids=range(5),
)
def test_a_file_that_is_no_config(text, words):
    assert words in message(text)
