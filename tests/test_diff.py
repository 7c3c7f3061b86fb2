"""Two runs side by side, and the search for a run folder."""

import json

import pytest

from fnn.errors import FnnError
from fnn.report import diff, find_run
from fnn.report.run import ESSENTIAL

from .report_runs import edit_json, make_run, write_metrics
from .runs import command as command

SHORT = ("environment.json", "summary.json", "predictions.npz", "parameters.npz", "comparison.json")


@pytest.fixture
def pair(tmp_path):
    """Two runs, the other with another learning rate, one layer more, and other metrics."""
    one, other = (make_run(tmp_path / name, n=8, m=2) for name in "ab")
    text = (other / "config.yaml").read_text()
    text = text.replace("1.0e-3", "0.01").replace("12}\n", "12}\n  - relu\n")
    (other / "config.yaml").write_text(text)
    edit_json(other / "environment.json", device="tpu", started="2025-11-22T00:00:00+00:00")
    edit_json(other / "summary.json", steps=240)
    rows = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    rows[4]["test_loss"] = 0.01
    rows[11]["test_accuracy"] = None
    write_metrics(other / "metrics.jsonl", [*rows, rows[0] | {"epoch": 13}])
    return one, other


def both(a, b):
    return {"a": a, "b": b}


def test_differences_and_numbers_side_by_side(pair):
    comparison = diff(*pair)
    assert comparison.config == {"learning_rate": both(1e-3, 0.01), "model.1": {"b": "relu"}}
    assert comparison.environment.keys() == {"device", "started"}
    assert comparison.problems == both([], [])
    assert comparison.summary["steps"] == both(120, 240)
    assert comparison.summary["status"] == both("completed", "completed")
    test_loss, accuracy = comparison.metrics["test_loss"], comparison.metrics["test_accuracy"]
    assert test_loss["best"]["b"] == {"epoch": 5, "value": 0.01}
    assert test_loss["last"] == both({"epoch": 12, "value": 2.1 / 12}, {"epoch": 13, "value": 2.1})
    assert accuracy["best"]["b"] == {"epoch": 11, "value": 1 - 0.5 / 11}
    assert comparison.epochs[1]["train_loss"] == both(2.0, 2.0)
    assert comparison.epochs[12]["test_accuracy"].keys() == {"a"}
    assert comparison.epochs[13]["train_loss"].keys() == {"b"}
    assert (comparison.common_epochs, comparison.first_difference) == (12, 5)
    of_itself = diff(pair[0], pair[0])
    assert of_itself.config == of_itself.environment == {}
    assert of_itself.first_difference is None


def test_values_that_look_alike_are_not_the_same(pair):
    for values in (("1", "1.0"), ("1", "true"), ("null", "''"), ("[]", "{}"), ("{a: 1}", "{b: 1}")):
        for run, value in zip(pair, values):
            (run / "config.yaml").write_text(f"x: {value}\n")
        assert diff(*pair).config, values


def test_the_tables_and_the_whole_as_json(command, pair):
    status, out, err = command("diff", *pair)
    assert (status, err) == (0, "")
    expected = {
        *(f"A: {pair[0]}", "learning_rate 0.001 0.01", "device cpu tpu", "steps 120 240"),
        *("10 of 13 epochs", "1 2 2 2.1 2.1 0.5 0.5", "13 – 2 – 2.1 – 0.5"),
        "the metrics differ from epoch 5 on",
    }
    assert expected <= {" ".join(line.replace("│", " ").split()) for line in out.splitlines()}

    (pair[0] / "config.yaml").write_text("x: .nan\n")
    printed = json.loads(command("diff", *pair, "--json")[1])
    assert printed["config"]["x"] == {"a": None}
    assert [row["epoch"] for row in printed["epochs"]] == list(range(1, 14))
    assert printed["first_difference"] == 5


def test_a_killed_run_shows_its_files(command, pair):
    for name in SHORT:
        (pair[1] / name).unlink()
    with (pair[1] / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"epoch": 14, "tr')
    status, out, _ = command("diff", *pair)
    assert status == 0
    assert "summary.json is not in the run folder" in out
    assert "10 of 13 epochs" in out
    assert diff(*pair).environment == {}


@pytest.mark.parametrize("file", [*ESSENTIAL, "environment.json"])
def test_a_damaged_file_is_named_and_the_others_are_compared(command, pair, file):
    for text in (b"", b"[1, 2", b'{"a": !!python/name:os.system 0}', b"\xff\x00"):
        (pair[1] / file).write_bytes(text)
        status, out, _ = command("diff", *pair)
        assert status == 0
        if not (file == "metrics.jsonl" and not text):  # empty: a run before its first epoch
            assert f"{file} cannot be read" in out


def test_a_path_without_a_run_is_one_message(command, tmp_path, pair):
    (tmp_path / "notes/xor").mkdir(parents=True)
    make_run(tmp_path / "notes/xor/1", n=8, m=2)
    (tmp_path / "empty").mkdir()
    for path, words in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "empty", "found no run"),
        (tmp_path / "notes", f"its folder {tmp_path}/notes/xor has some"),
        (pair[0] / "config.yaml", f"got a file; its folder is {pair[0]}"),
    ):
        status, out, err = command("diff", pair[0], path)
        assert (status, out) == (2, "")
        assert words in err
    for name in ESSENTIAL:
        (pair[1] / name).write_bytes(b"\xff")
    with pytest.raises(FnnError, match="not a run folder"):
        diff(*pair)


def test_the_newest_run_is_the_last_by_name(tmp_path):
    assert find_run(make_run(tmp_path / "renamed", n=8, m=2)) == tmp_path / "renamed"
    assert find_run(tmp_path) == tmp_path / "renamed"
    times = ("20250101-120000-10", "20250101-120000", "20250101-120000-2", "20241231-235959")
    for name in times:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "20260101-000000").mkdir()  # killed before it wrote anything
    assert find_run(tmp_path) == tmp_path / times[0]
