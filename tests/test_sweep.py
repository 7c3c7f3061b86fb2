"""Sweeps: axes, what shares a program, and that a run in a sweep is the run by itself."""

import json
import math
import re
import signal
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from fnn.cli import app
from fnn.config import load
from fnn.errors import ConfigError, FnnError
from fnn.report import write_sweep_report
from fnn.runs import folder as files
from fnn.runs.fit import train
from fnn.runs.prepare import prepare
from fnn.sweep import Ready, plan_sweep, read_plan, read_results, sweep
from fnn.sweep.axes import Range, draw, grid, parse_axis, split_words
from fnn.sweep.program import Program

from .runs import Stop, arrays, metrics, sampled

CONFIG = """\
name: small
seed: 3
data: {moons: {points: 120, noise: 0.2}}
model: [{dense: {features: 8}}, relu, {dense: {features: 2}}]
loss: softmax_cross_entropy
optimizer: {sgd: {learning_rate: 0.1, momentum: 0.5}}
train: {batch_size: 32, epochs: 2}
"""
RATE = "optimizer.sgd.learning_rate"


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(CONFIG)
    return file


def ready(config, *words, **chosen):
    return Ready(plan_sweep(config, words, **chosen))


def swept(config, folder, *words, **chosen):
    where = files.create(folder, "sweep")
    summary = sweep(ready(config, *words, **chosen), where)
    return where, summary, read_results(where)


def check_alone(row, folder):
    """A run of a sweep has the parameters of the run by itself; return that one and its summary."""
    alone = files.create(folder, "alone")
    summary = train(prepare(load(row / "config.yaml")), alone)
    check_parameters(row, alone)
    return alone, summary


def check_parameters(*folders):
    chex.assert_trees_all_equal(*(arrays(folder / "parameters.npz") for folder in folders))


# Axes


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=0..3", [0, 1, 2, 3]),
        ("seed=5,0..1", [5, 0, 1]),
        ("a=1e-3,1e-2", [1e-3, 1e-2]),
        ("a=0.5..0.9:5", [0.5, 0.6, 0.7, 0.8, 0.9]),
        ("a=1e-4..1e-1:log:4", [1e-4, 1e-3, 1e-2, 1e-1]),
        ("a=1..16:log:5", [1, 2, 4, 8, 16]),
        ("a=null,true,x,'0..3'", [None, True, "x", "0..3"]),
        ("a={normal: {stddev: 1, x: 2}},[1, 2]", [{"normal": {"stddev": 1, "x": 2}}, [1, 2]]),
        ("a=-1..1", [-1, 0, 1]),
    ],
)
def test_an_axis_is_read(word, values):
    read = [value.value for value in parse_axis(word).values]
    assert read == values
    assert [type(value) for value in read] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed"], "expected key=values"),
        (["seed="], "expected values, got none"),
        (["seed=1"], "expected a key with several values"),
        (["seed=1,1"], "1 stands in it twice"),
        (["a=0.1,1e-1"], "0.1 stands in it twice"),
        (["seed=3..1"], "from a lower to a higher"),
        (["seed=0..1e9"], "a grid needs to know how many"),
        (["seed=0..100000"], "more than 10000"),
        (["a=0..1:log:3"], "begins above 0"),
        (["a=1..2:1"], "2 values or more"),
        (["a=0.1..0.2,3"], "say how many values"),
        (["a=[1,2"], "not valid YAML"),
        (["a=1,2", "a=3,4"], "has an axis already"),
        (["a=0..999", "b=0..99"], "100000 runs, more than 10000"),
    ],
)
def test_an_axis_that_cannot_be_is_refused(words, message):
    with pytest.raises(FnnError, match=re.escape(message)):
        grid(split_words(words)[1])


def test_points_are_drawn_from_a_seed_within_their_ranges():
    _, axes = split_words(["a=1e-4..1e-1:log", "b=x,{y: 1}", "c=1..64:log"])
    assert isinstance(axes[0], Range)
    points = draw(axes, 50, seed=1)
    assert points == draw(axes, 50, seed=1) != draw(axes, 50, seed=2)
    assert len({tuple(value.text for value in point) for point in points}) == 50
    rates = [point[0].value for point in points]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert 15 < sum(rate < 10**-2.5 for rate in rates) < 35  # the middle of the decades
    assert {point[1].text for point in points} == {"x", "{y: 1}"}
    assert all(1 <= point[2].value <= 64 for point in points)
    _, few = split_words(["b=x,y", "d=0..1"])
    assert draw(few, 50, seed=1) == grid(few)


# What shares a program


@pytest.mark.parametrize(
    ("words", "programs"),
    [
        ([f"{RATE}=0.1,0.2", "optimizer.sgd.momentum=0.5,0.9", "seed=0..1"], [(8, 3)]),
        ([f"{RATE}=1,0.2"], [(2, 1)]),
        (["optimizer.sgd.momentum=null,0.5,0.9"], [(1, 0), (2, 1)]),
        (["model.0.dense.features=4,8", "seed=0..2"], [(3, 1), (3, 1)]),
        (["optimizer={sgd: {learning_rate: 0.1}},{adam: {learning_rate: 0.1}}"], [(1, 0), (1, 0)]),
        (["gradient=manual,backprop", f"{RATE}=0.1,0.2"], [(2, 1), (2, 1)]),
        (["model.1=relu,{leaky_relu: {negative_slope: 0.1}}", "seed=0,1"], [(2, 1), (2, 1)]),
        (["train.batch_size=32,48"], [(1, 0), (1, 0)]),
    ],
)
def test_values_that_are_numbers_share_a_program(config, words, programs):
    groups = ready(config, *words).groups
    assert [(len(group.rows), len(group.arguments)) for group in groups] == programs
    assert len({id(group.experiment.data) for group in groups}) == 1


def test_a_value_that_must_be_known_makes_programs_of_its_own(config):
    words = ["model.1=leaky_relu", "model.1.leaky_relu.negative_slope=0.1,0.2", "seed=0,1"]
    groups = ready(config, *words).groups
    assert [(len(group.rows), list(group.arguments)) for group in groups] == [(2, ["seed"])] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.epoch=1,2"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["train.epochs=1,x"], "override train.epochs=x: train.epochs: expected an integer, got"),
        (["model.9.dense.features=1,2"], "no such entry of a list"),
        ([f"{RATE}=0.1,0.2", "optimizer.adam.learning_rate=0.1,0.2"], "has no effect beside"),
        ([f"{RATE}=0.1,0.2", "train.on_nan=roll_back"], "cannot roll back"),
        ([f"{RATE}=0.1,0.2", "mesh={data: 2}"], "a sweep shares its runs out over the devices"),
    ],
)
def test_a_mistake_in_one_run_is_one_message_before_any(config, words, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        ready(config, *words)


# The same numbers


@pytest.mark.parametrize("number", sampled(7, 0))
def test_a_run_in_a_sweep_is_the_run_by_itself(config, tmp_path, number):
    words = (f"{RATE}=0.05,0.3", "seed=3,4", "optimizer.sgd.momentum=0.5,0.9")
    words += ("train.batch_size=40",)  # which leaves a smaller batch at an epoch's end
    _, summary, results = swept(config, tmp_path, *words)
    assert (summary["runs"], summary["programs"], summary["status"]) == (8, 1, "completed")
    (where,) = (tmp_path / "sweep").iterdir()
    result = results[number]
    row = where / result["folder"]
    values = (f"{key}={value}" for key, value in result["values"].items())
    assert load(row / "config.yaml") == load(config, [words[-1], *values])
    alone, summary_alone = check_alone(row, tmp_path)
    for got, want in zip(metrics(row), metrics(alone), strict=True):
        assert got == pytest.approx(want, rel=1e-6)  # an evaluation may be rounded otherwise
    assert {*json.loads((row / "summary.json").read_bytes())} == {*summary_alone} - {"signal"}
    assert result["test_loss"] == pytest.approx(summary_alone["test_loss"], rel=1e-5)


BFLOAT16 = "precision={params: bfloat16, reduce: bfloat16}"
PRECISIONS = [
    (("precision.compute=bfloat16", f"{RATE}=0.1,0.3"), 1),
    (("precision.params=bfloat16", f"{RATE}=0.1,0.3"), 2),
    ((BFLOAT16, "optimizer.sgd.momentum=0.5,0.9"), 2),
    ((BFLOAT16, "seed=1,2"), 1),
]


@pytest.mark.parametrize(("words", "programs"), PRECISIONS)
def test_numbers_share_a_program_where_the_precision_lets_them(config, words, programs):
    assert len(ready(config, *words).groups) == programs


@pytest.mark.parametrize("row", sampled(*PRECISIONS))
def test_so_it_is_in_other_precisions(config, tmp_path, row):
    words, programs = row
    where, summary, _ = swept(config, tmp_path, "train.epochs=1", *words)
    assert summary["programs"] == programs
    check_alone(where / "runs/001", tmp_path)


def test_a_run_that_diverges_does_not_disturb_its_neighbours(config, tmp_path):
    good, _, calm = swept(config, tmp_path, f"{RATE}=0.1,0.2,0.3,0.4")
    other, summary, mixed = swept(config, tmp_path, f"{RATE}=0.1,1e30,0.3,1e38")
    assert [result["status"] for result in mixed] == ["completed", "diverged"] * 2
    assert summary["diverged"] == 2
    assert summary["best"]["run"] in (0, 2)
    for number in (0, 2):
        row = f"runs/{number:03}"
        assert metrics(good / row) == metrics(other / row)
        check_parameters(good / row, other / row)
        assert mixed[number] == calm[number]
    (last,) = metrics(other / "runs/001")
    assert (last["epoch"], last["train_loss"]) == (1, None)
    assert mixed[1]["train_loss"] is None


def test_runs_shared_out_over_devices_are_the_runs_on_one(config):
    """Nothing is exchanged between the devices."""
    group = ready(config, "seed=0..4", f"{RATE}=0.1,0.2").groups[0]
    programs = []
    for devices in (jax.devices()[:1], jax.devices()[:4]):
        program = Program(group, devices)
        state = program.init()
        active = np.ones(program.places, bool)
        batches = program.orders(1)[:, :96].reshape(program.places, 3, 32)
        state, losses = program.steps(state, active, batches)
        evaluation = program.evaluate(state)
        programs.append(jax.tree.map(lambda a: np.asarray(a)[:10], (losses, evaluation)))
    assert len(state.params["0_dense"]["w"].sharding.device_set) == 4
    assert program.places == 12
    chex.assert_trees_all_equal(*programs)
    text = program.compiled(active, batches)
    assert "num_partitions=4" in text
    assert not re.search("all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", text)


def test_runs_at_once_are_the_runs_one_after_another(config, monkeypatch):
    group = ready(config, f"{RATE}=0.1,0.2,0.3").groups[0]
    programs = []
    for at_once in (False, True):
        monkeypatch.setattr("fnn.sweep.program._at_once", lambda mesh, a=at_once: a)
        program = Program(group, jax.devices()[:1])
        active = np.array([True, False, True])
        batches = program.orders(1)[:, :96].reshape(1, 3, 32)
        state, losses = program.steps(program.init(), active, batches)
        programs.append(jax.device_get((state._replace(key=None), losses)))
        assert np.asarray(state.step).tolist() == [3, 0, 3]
    chex.assert_trees_all_close(*programs, rtol=1e-5, atol=1e-6)


# Stopped and resumed


@pytest.mark.parametrize(
    ("method", "count"),
    [("steps", 2), pytest.param("epoch", 3, marks=pytest.mark.prove)],
    ids=["after a run diverged in this epoch", "between epochs of the second program"],
)
def test_a_sweep_that_was_stopped_goes_on_to_the_same_numbers(config, tmp_path, method, count):
    words = (f"{RATE}=0.1,1e30,0.3", "model.0.dense.features=8,6")
    words += ("train.batch_size=16", "checkpoint.steps=3")  # half an epoch
    whole, _, want = swept(config, tmp_path, *words)
    where = files.create(tmp_path, "stopped")
    with pytest.raises(KeyboardInterrupt):
        sweep(ready(config, *words), where, Stop(method, count, KeyboardInterrupt))
    assert len(list((where / "checkpoints").iterdir())) == 1
    summary = sweep(Ready(read_plan(where)), where)
    assert summary["status"] == "completed"
    assert read_results(where) == want
    for result in want:
        assert metrics(where / result["folder"]) == metrics(whole / result["folder"])
        check_parameters(where / result["folder"], whole / result["folder"])
    assert not any((where / "checkpoints").iterdir())


def test_a_sweep_that_is_stopped_before_its_first_step(config, tmp_path):
    words = (f"{RATE}=0.1,0.2",)
    where = files.create(tmp_path, "stopped")
    summary = sweep(ready(config, *words), where, Stop("start", 1, signal.SIGTERM))
    assert (summary["status"], summary["runs"]) == ("interrupted", 2)
    assert [row["status"] for row in read_results(where)] == ["interrupted"] * 2
    sweep(Ready(read_plan(where)), where)
    _, _, want = swept(config, tmp_path, *words)
    assert read_results(where) == want


def test_random_and_optuna_choose_points(config, tmp_path):
    words = (f"{RATE}=1e-3..1:log", "seed=1..4:log", "train.epochs=1")
    where, _, results = swept(config, tmp_path, *words, random=8)
    assert len(results) == 8
    assert read_plan(where).random == 8
    pytest.importorskip("optuna")
    where, summary, results = swept(config, tmp_path, *words, optuna=9, by="test_accuracy")
    assert (len(results), summary["runs"], summary["programs"]) == (9, 9, 2)
    assert summary["best"]["test_accuracy"] == max(r["test_accuracy"] for r in results)
    again = sweep(Ready(read_plan(where)), where)  # asks for the same points
    assert again["best"] == summary["best"]
    assert not math.isnan(again["seconds"])


# The command and its page


def test_the_command_leaves_a_report_that_holds_all_runs(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "8")  # which JAX has started with
    words = ["model.1=relu,{leaky_relu: {negative_slope: 0.1}}", f"{RATE}=0.1,1e30"]
    arguments = ["sweep", str(config), *words, "--by", "test_accuracy"]
    app([*arguments, "--runs", str(tmp_path), "--json"], standalone_mode=False)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["runs"], summary["programs"], summary["diverged"]) == (4, 2, 2)
    where = Path(summary["run"])
    assert where.parent.name == "small-sweep"
    page = (where / "report.html").read_text()
    assert page.count('class="thread') == 4
    assert page.count("off scale") == 2  # the losses of those that diverged
    assert page.count('class="spot') == 8  # over two keys
    assert all(f'href="runs/{number:03}/"' in page for number in range(4))
    assert "{leaky_relu: {negative_slope: 0.1}}" in page
    assert (where / summary["best"]["folder"] / "report.html").is_file()
    rows = [json.loads(f.read_bytes()) for f in where.glob("runs/*/summary.json")]
    app(["resume", str(where)], standalone_mode=False)  # where nothing is left to do
    seconds = json.loads((where / "summary.json").read_bytes())["seconds"]
    assert seconds > sum({row["seconds"] for row in rows})  # of both programs
    assert "4 runs" in capsys.readouterr().out
    before = (where / "summary.json").read_bytes()
    for arguments, message in (
        (["resume", where, "seed=1"], "a sweep, which continues without changes"),
        (["resume", where.parent, "seed=1"], "a sweep, which continues without changes"),
        (["resume", where / "runs/001"], r"is a run of a sweep, .*; continue with fnn resume"),
        (["replay", where, "--step", 1], r"is a sweep; name one of its runs, such as .*runs/000"),
        (["export", where.parent, "--to", "safetensors"], "is a sweep; name one of its runs"),
    ):
        with pytest.raises(FnnError, match=message):
            app([*map(str, arguments)], standalone_mode=False)
    assert (where / "summary.json").read_bytes() == before


def test_a_sweep_all_of_which_diverged_has_no_best_run(config, tmp_path, capsys):
    words = [f"{RATE}=1e30,1e38", "train.epochs=1", "--runs", str(tmp_path), "--json"]
    with pytest.raises(FnnError, match="all 2 runs diverged"):
        app(["sweep", str(config), *words], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["best"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=0,1", "--by", "loss"], "expected one of train_loss, test_loss, test_accuracy"),
        (["seed=0,1", "--random", "3", "--optuna", "3"], "use one"),
        (["seed=1"], "expected a key with several values"),
    ],
)
def test_a_mistake_on_the_command_line_leaves_nothing(config, tmp_path, words, message):
    with pytest.raises(FnnError, match=re.escape(message)):
        app(["sweep", str(config), *words, "--runs", str(tmp_path)], standalone_mode=False)
    assert {path.name for path in tmp_path.iterdir()} == {"small.yaml"}


def test_a_page_escapes_what_it_shows_and_survives_what_is_missing(tmp_path):
    values = {"model.1": "<script>", "seed": None}
    lines = [{"run": i, "folder": f"runs/{i:03}", "values": values} for i in range(2)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.yaml").write_text("name: small\n")
    page = write_sweep_report(tmp_path).read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "no run has a finite test loss" in page
    for text, message in (("", "no result yet"), ("{", "cannot be read")):
        (tmp_path / "results.jsonl").write_text(text)
        with pytest.raises(FnnError, match=message):
            write_sweep_report(tmp_path)
