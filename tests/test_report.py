"""The report reads any run folder, whole or cut short, and shows it safely."""

import json
import os
import re

import numpy as np
import pytest

from fnn.errors import FnnError
from fnn.report import write_report
from fnn.report.run import read_run

from .report_runs import FILES, SECTIONS, Page, edit_json, edit_npz, make_run, report, write_metrics


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def test_a_complete_run_shows_every_section_in_order(run):
    page = report(run)
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == list(SECTIONS)
    assert page.left_out() == set()
    for section, texts in {
        "header": ("90.0 % test accuracy", "dense(12)", "2025-11-21 03:04 UTC"),
        "curves": ("best 95.8 %, epoch 12",),
        "filters": ("The weights of 12 units",),
        "gradients": (
            "equal to rounding",
            "need 20 % less time",
            "need 50 % less temporary memory",
        ),
        "environment": ("fnn run config.yaml", "not committed"),
    }.items():
        for text in texts:
            assert text in page[section]
    assert page.count("svg", role="img") == 2
    assert page.count("img", **{"class": "ink"}) == 16


def test_the_page_needs_nothing_from_elsewhere_and_is_the_same_again(run):
    html = write_report(run).read_text("utf-8")
    page = Page(html)
    assert re.findall(r"https?://|@import|url\(|<script", html) == []
    assert all(reference.startswith("data:") for reference in page.references)
    assert len(html) < 1_000_000
    described = {"img": "alt", "svg": "aria-label"}
    assert all(attrs[described[tag]] for tag, attrs in page.tags if tag in described)
    assert write_report(run).read_text("utf-8") == html


@pytest.mark.parametrize("file", FILES)
def test_a_missing_or_damaged_file_costs_its_own_section_only(run, file):
    whole, allowed = (run / file).read_bytes(), FILES[file]
    noise = b"\xff\xfe{[" + bytes(range(256))
    for damaged, says in ((b"", ""), (whole[: len(whole) // 2], ""), (noise, "cannot be read")):
        (run / file).write_bytes(damaged)
        page = report(run)
        assert page.left_out() <= allowed
        assert any(f"{file} {says}" in page[name] for name in allowed) or not says
    (run / file).unlink()
    page = report(run)
    assert page.left_out() == allowed
    assert any(f"{file} is not in the run folder" in page[name] for name in allowed)


def test_a_line_half_written_when_the_run_died_is_dropped(run):
    with (run / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"epoch": 13, "train_lo')
    assert len(read_run(run).epochs) == 12


def test_a_run_cut_after_one_epoch_has_a_page(tmp_path):
    run = make_run(tmp_path / "run", epochs=1)
    for file in ("summary.json", "predictions.npz", "parameters.npz", "comparison.json"):
        (run / file).unlink()
    page = report(run)
    assert page.left_out() == {"confusion", "examples", "filters", "layers", "gradients"}
    assert "unfinished" in page["header"]
    assert "50.0 % test accuracy" in page["header"]
    assert page.count("circle") == 4  # a dot for each of three curves, and the mark


def test_every_status_is_named(run):
    for status in ("completed", "converged", "interrupted", "diverged", "strange"):
        edit_json(run / "summary.json", status=status)
        assert f"digits_mlp {status}" in report(run)["header"]


def test_losses_that_are_not_numbers_leave_gaps(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[4]["test_loss"] = lines[6]["train_loss"] = None
    lines[8]["train_loss"], lines[9]["train_loss"] = float("nan"), float("inf")
    write_metrics(run / "metrics.jsonl", lines)
    curves = report(run)["curves"]
    assert "not a finite number in 4 epochs, first in epoch 5" in curves
    assert "nan" not in curves.lower()
    write_metrics(run / "metrics.jsonl", [{"epoch": 1, "train_loss": None, "test_loss": None}])
    edit_json(run / "summary.json", status="diverged", test_loss=None, test_accuracy=None)
    page = report(run)
    assert "no epoch has a finite loss" in page["curves"]
    assert "no epoch has a test accuracy" in page["curves"]
    assert "– test loss" in page["header"]


def test_points_of_the_plane_are_plotted(tmp_path):
    page = report(make_run(tmp_path / "run", k=3, x_shape=(2,), n=40, m=40))
    assert "Predictions in the plane All 40 test examples" in page["examples"]
    assert page.count("svg", role="img") == 3
    assert page.left_out() == {"filters"}


@pytest.mark.parametrize(
    ("x_shape", "left_out"),
    [
        ((13,), {"examples", "filters"}),
        ((8, 8), set()),
        *(((28, 28, 1), set()), ((100, 70), set()), ((8, 8, 3), {"filters"})),
        *((shape, {"examples", "filters"}) for shape in ((8, 8, 2), (1, 64))),
    ],
)
def test_only_images_become_pictures(tmp_path, x_shape, left_out):
    assert report(make_run(tmp_path / "run", x_shape=x_shape)).left_out() == left_out


def test_weights_without_plain_numbers_have_no_picture(run):
    edit_npz(run / "parameters.npz", **{"1_dense/w": np.zeros((64, 12), "V2")})
    assert "stored as |V2" in report(run)["filters"]


def test_a_binary_net_with_one_output(tmp_path):
    page = report(make_run(tmp_path / "run", k=2, outputs=1, loss="binary"))
    assert page.left_out() == set()
    assert page.count("th", scope="row") == 3 + 1  # two classes and precision; the layers' total
    assert "p = 0." in page["examples"]


def test_eleven_classes_of_which_one_has_no_example_and_one_no_name(tmp_path):
    run = make_run(tmp_path / "run", k=11)
    edit_npz(run / "predictions.npz", y_true=np.full(60, 10), y_pred=np.full(60, 9))
    edit_json(run / "summary.json", classes=[f"c{i}" for i in range(10)])
    confusion = report(run)["confusion"]
    assert "0 of 60 test examples are classified right" in confusion
    assert "10 → c9 60" in confusion


def test_a_matrix_too_large_for_a_page_becomes_a_list_and_no_examples_are_no_pictures(tmp_path):
    page = report(make_run(tmp_path / "run", k=100, m=0))
    assert page.left_out() == {"examples"}
    assert "With 100 classes the matrix would not fit" in page["confusion"]
    assert page.count("table", **{"class": "confusion"}) == 0
    assert page.count("table", **{"class": "mistakes"}) == 1


def apart(difference):
    """Return a comparison whose gradients differ by `difference`."""
    return {"parameters": [{"path": "1_dense/w", "max_relative_difference": difference}]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"step_time_ratio": 0.8}, "automatic differentiation does better: the hand-written rules"),
        ({"step_time_ratio": 1.01}, "takes the same time either way"),
        ({"step_time_ratio": None}, "was not measured"),
        ({"temp_ratio": 0.5}, "need 100 % more temporary memory"),
        ({"temp_ratio": 1.0}, "the same temporary memory either way"),
        ({"temp_ratio": None, "temp_bytes": None}, "temporary memory of a step is not known"),
        ({"step_time_us": {"manual": None, "autodiff": 3}}, "less time per training step."),
        ({"parameters": []}, "gradients were not compared"),
        ({"loss_relative_difference": 1e-7}, "The loss itself differs by 10⁻⁷"),
        (apart(0.0), "equal bit for bit"),
        (apart(1.2e-7), "to rounding: the largest difference is 1 times one float32 rounding"),
        (apart(0.3), "more than rounding explains: run fnn verify"),
        (apart(None), "At least one difference is not known"),
        (apart(float("nan")), "At least one difference is not known"),
    ],
)
def test_the_comparison_names_every_measurement(run, changes, says):
    edit_json(run / "comparison.json", **changes)
    assert says in report(run)["gradients"]


def test_everything_shown_is_escaped(tmp_path):
    evil = '<script>alert("x")</script>\'"><img src=x onerror=alert(1)>{{ 7 * 7 }}'
    run = make_run(tmp_path / "run", k=2)
    (run / "config.yaml").write_text(f"name: {evil} # {evil}\n'{evil}': \"{evil}\"\n", "utf-8")
    layer = {"path": evil, "layer": evil}
    names = dict.fromkeys(("name", "status", "gradient", "loss"), evil)
    edit_json(run / "summary.json", classes=[evil, evil], layers=[layer], **names)
    environment = {evil: evil, "device": evil, "started": evil, "x": "\ud800"}
    edit_json(run / "environment.json", **environment)
    row = {"path": evil, "max_relative_difference": 1e-7}
    edit_json(run / "comparison.json", parameters=[row])
    page = report(run)
    page.assert_harmless()
    assert evil in page["confusion"]  # the names of classes
    assert "{{ 7 * 7 }}" in page["header"]
    assert evil in page["config"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_pred": np.zeros(3, int)}, "y_pred: unexpected int64 array of shape (3,)"),
        ({"scores": np.zeros(60)}, "scores: unexpected float64 array of shape (60,)"),
        ({"loss": np.zeros(60, complex)}, "loss: unexpected complex128"),
        ({"y_true": np.full(60, -1)}, "expected class numbers from 0 up"),
        ({"worst_index": np.full(16, 60)}, "expected indices below 60"),
        ({"worst_x": np.float64(3)}, "worst_x: unexpected float64 array of shape ()"),
        ({"y_true": np.array([{}], dtype=object)}, "allow_pickle"),
    ],
)
def test_arrays_of_the_wrong_shape_or_type_are_named(run, changes, says):
    edit_npz(run / "predictions.npz", **changes)
    assert says in report(run)["confusion"]


def test_a_damaged_byte_never_escapes_as_a_traceback(run):
    rng = np.random.default_rng(0)
    for file in ("predictions.npz", "parameters.npz", "summary.json", "comparison.json"):
        whole = (run / file).read_bytes()
        for place, byte in rng.integers((len(whole), 256), size=(4, 2)):
            (run / file).write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            write_report(run)
        (run / file).write_bytes(whole)


def test_another_folder_is_an_error_and_stays_untouched(tmp_path):
    (tmp_path / "file").touch()
    for name in ("empty", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other/notes.txt").touch()
    for name in ("absent", "file", "empty", "other"):
        with pytest.raises(FnnError, match="run folder"):
            write_report(tmp_path / name)
        assert not (tmp_path / name / "report.html").exists()


def test_an_old_report_survives_a_failed_one(run, monkeypatch):
    old = write_report(run).read_bytes()
    edit_json(run / "summary.json", name="renamed")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FnnError, match=r"report\.html: cannot be written: No space left"):
        write_report(run)
    assert (run / "report.html").read_bytes() == old
    assert sorted(p.name for p in run.iterdir()) == sorted([*FILES, "report.html"])
