"""120 mutated configs; `python -m tests.fuzz_configs` runs ten thousand."""

import subprocess
import sys

import pytest
from hypothesis import given, settings

from fnn.config import parse
from fnn.errors import ConfigError, FnnError
from fnn.runs.prepare import prepare

from .fuzz_configs import SETTINGS, Fault, check_command, check_message, judge, small_data
from .mutants import ROOT, SHIPPED, Mutant, mutants


@settings(SETTINGS, max_examples=120)
@given(mutants())
def test_a_mutant_is_a_run_or_a_refusal(mutant):
    with small_data():
        judge(mutant)


@pytest.mark.prove
def test_ten_thousand_mutants():
    process = subprocess.run([sys.executable, "-m", "tests.fuzz_configs"], cwd=ROOT)
    assert process.returncode == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_the_configs_themselves_are_accepted_or_want_files(name):
    with small_data():
        outcome, message = judge(Mutant(SHIPPED[name], (), ()))
    assert outcome == "ok" or "no such folder" in message


REFUSED = [  # too large for memory, for a program or for float32
    ("model.1.dense.features=1000000000", "mutant.yaml:8 with override", "model.1 dense: its par"),
    ("model.1.dense.features=10000000000", "override", "model.1.dense.features: expected 42949672"),
    ("model.1={masked_dense: {features: 2, fan_in: 1, seed: 18446744073709551616}}", "seed: exp"),
    ("model=[{upsample: {scale: 1000000000}}]", "override", "model.0 upsample: its outputs (32, "),
    ("model=[{conv: {features: 3, window: 5, padding: 1000000000}}]", "model.0 conv: its outputs"),
    ("model=[{max_pool: {window: 1000000000, padding: SAME}}]", "model.0 max_pool: a window of "),
    ("model=[{unfold: {window: 1000, padding: SAME}}]", "model.0 unfold: a window of 1000×1000"),
    ("model=[{residual: {body: [{dense: {features: 1000000000}}]}}]", "model.0.body.0 dense: its"),
    (
        "model=[{resnet: {depth: 60000002}}]",
        "model.0.resnet: depth must be 6 n + 2",
        "1202), got 6",
    ),
    ("optimizer.adam.learning_rate=1e39", "optimizer.adam.learning_rate: expected a number withi"),
    ("data={noise: {shape: [1, 1, 1, 1, 1, 1, 1, 1, 1]}}", "data.noise: ", "expected 1 to 8 sizes"),
    # errors that only a trace of the step raises
    ("model.1.dense.b_init=he_normal", "mutant.yaml:8", "model.1 fans need weights of shape"),
    ("model=[{batch_norm: {axis_name: x}}, flatten, {dense: {features: 10}}]", "model.0 batch_n"),
    (
        "optimizer.adam.learning_rate={join_schedules: {schedules: [], boundaries: []}}",
        "optimizer.adam.learning_rate.join_schedules: cannot be built",
    ),
    # texts that would forge a line or colour a terminal
    ('"a\\nb": 1=2', 'override "a\\nb": 1=2: '),
    ('model.0={"\\e[31m": 1}', "model.0: unknown layer '\\x1b[31m'"),
    ('data={digits: {" ": 1}}', "data.digits.' ': unknown key ' '"),
    ('model.0={"{hint}": 1}', "model.0: unknown layer '{hint}'; known"),
    ('data={csv: {path: "\\e[31m"}}', "data.csv: ", "\\x1b[31m: no such file"),
    ('data={csv: {path: "a\\0b"}}', "data.csv: ", "cannot be read: "),
]


@pytest.mark.parametrize(("override", "words"), [(row[0], row[1:]) for row in REFUSED])
def test_refused_at_once(override, words):
    mutant = Mutant(SHIPPED["digits_mlp"], (override,), ())
    with small_data():
        _, message = judge(mutant)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("override", [REFUSED[0][0], "train.epochs=0", "data.target=x", 'a="'])
def test_the_command_refuses_and_leaves_nothing(override, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_command(Mutant(SHIPPED["digits_mlp"], (override,), ()))


@pytest.mark.parametrize(
    "message",
    [
        *("expected an integer, got 3", "mutant.yaml:99: seed: expected an integer, got 3"),
        "mutant.yaml:2: expected an integer, got 3",
        *(f"mutant.yaml:2: seed: expected an integer{end}" for end in ("\ngot 3", ", got \x1b")),
    ],
)
def test_a_message_that_does_not_help_is_a_fault(message):
    with pytest.raises(Fault):
        check_message(message, Mutant(SHIPPED["xor"], (), ()))


def test_what_writes_or_lasts_is_a_fault(monkeypatch, tmp_path):
    def writes(config):
        (tmp_path / "x").write_text("")

    def lasts(config):
        while True:
            pass

    monkeypatch.setattr("tests.fuzz_configs.SECONDS", 0.1)
    for prepare_, words in ((writes, "it did open"), (lasts, "more than 0.1 seconds")):
        monkeypatch.setattr("tests.fuzz_configs.prepare", prepare_)
        with pytest.raises(Fault, match=words):
            judge(Mutant(SHIPPED["xor"], (), ()))


def test_an_optimizer_whose_state_does_not_fit_is_refused(monkeypatch):
    config = parse(SHIPPED["xor"], "xor", ["optimizer={adam: {learning_rate: 1}}"])
    for memory, error, words in (
        (100, ConfigError, r": optimizer: with its state the model's param"),
        (10, FnnError, r"xor:7: model.0 dense: its parameters take 36 B, and"),
    ):
        monkeypatch.setattr("fnn.runs.check.memory_of_devices", lambda memory=memory: memory)
        with pytest.raises(error, match=words):
            prepare(config)


def test_a_step_that_changes_a_dtype_is_refused(monkeypatch):
    def changed(*parts):
        return lambda state, x, labels: (state._replace(step=state.step.astype("float32")), 0.0)

    monkeypatch.setattr("fnn.runs.check.make_update", changed)
    with pytest.raises(ConfigError, match=r"xor:\d+: optimizer: a step gives parameters or a stat"):
        prepare(parse(SHIPPED["xor"], "xor"))
