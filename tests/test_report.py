"""The report reads any run folder, whole or cut short, and shows it safely."""

import base64
import json
import os
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fnn.errors import FnnError
from fnn.report import charts, pictures, predictions, words, write_report
from fnn.report.run import Predictions, read_run

ALL_FILES = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "summary.json",
    "predictions.npz",
    "parameters.npz",
    "comparison.json",
)
SECTIONS = (
    "curves",
    "confusion",
    "examples",
    "filters",
    "layers",
    "gradients",
    "config",
    "environment",
)
CONFIG = (
    "name: digits_mlp # the main job\nmodel:\n  - dense: {features: 12}\nlearning_rate: 1.0e-3\n"
)


def write_json(file, value):
    file.write_text(json.dumps(value), "utf-8")


def edit_json(file, **changes):
    write_json(file, json.loads(file.read_text("utf-8")) | changes)


def edit_npz(file, **changes):
    with np.load(file) as archive:
        arrays = dict(archive) | changes
    np.savez(file, **arrays)


def write_metrics(file, epochs):
    file.write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs), "utf-8")


def make_run(folder, *, epochs=12, k=10, outputs=None, x_shape=(8, 8), n=60, m=16, loss="softmax"):
    """Write a complete run of a classifier with k classes and a 12-unit first layer."""
    rng = np.random.default_rng(0)
    outputs = outputs or k
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG, "utf-8")
    write_metrics(
        folder / "metrics.jsonl",
        [
            {
                "epoch": epoch,
                "step": 10 * epoch,
                "train_loss": 2.0 / epoch**2,
                "test_loss": 2.1 / epoch,
                "test_accuracy": 1 - 0.5 / epoch,
                "seconds": 0.1 * epoch,
            }
            for epoch in range(1, epochs + 1)
        ],
    )
    y_true = rng.integers(0, k, n)
    y_pred = np.where(rng.random(n) < 0.8, y_true, rng.integers(0, k, n))
    losses = rng.random(n) + (y_true != y_pred)
    worst = np.argsort(-losses)[:m]
    scores = rng.random((n, 1)) if outputs == 1 else rng.normal(size=(n, outputs))
    np.savez(
        folder / "predictions.npz",
        y_true=y_true,
        y_pred=y_pred,
        scores=scores,
        loss=losses,
        worst_index=worst,
        worst_x=rng.random((m, *x_shape)),
    )
    inputs = int(np.prod(x_shape))
    parameters = {
        "1_dense/w": rng.normal(size=(inputs, 12)).astype(np.float32),
        "1_dense/b": np.zeros(12, np.float32),
        "10_dense/w": rng.normal(size=(12, outputs)).astype(np.float32),
    }
    np.savez(folder / "parameters.npz", **parameters)
    write_json(
        folder / "summary.json",
        {
            "name": "digits_mlp",
            "status": "completed",
            "epochs": epochs,
            "steps": 10 * epochs,
            "train_loss": 0.01,
            "test_loss": 0.1,
            "test_accuracy": 0.9,
            "seconds_to_first_step": 0.6,
            "seconds": 1.2,
            "parameters": sum(w.size for w in parameters.values()),
            "gradient": "manual",
            "loss": f"{loss}_cross_entropy",
            "batch_size": 32,
            "train_examples": 240,
            "test_examples": n,
            "classes": [f"c{i}" for i in range(k)],
            "x_shape": list(x_shape),
            "layers": [
                {
                    "path": "model.1",
                    "layer": "dense(12)",
                    "output_shape": [12],
                    "parameters": 12 * inputs + 12,
                    "multiply_adds": 12 * inputs,
                }
            ],
        },
    )
    write_json(
        folder / "comparison.json",
        {
            "parameters": [
                {"path": name, "shape": list(w.shape), "max_relative_difference": 2.4e-7}
                for name, w in parameters.items()
            ],
            "loss_relative_difference": 0.0,
            "step_time_us": {"manual": 100.0, "autodiff": 125.0},
            "step_time_ratio": 1.25,
            "temp_bytes": {"manual": 4096, "autodiff": 8192},
            "temp_ratio": 2.0,
        },
    )
    write_json(
        folder / "environment.json",
        {
            "fnn": "0.1.0",
            "device": "cpu",
            "cpu_count": 2,
            "seed": 0,
            "git_commit": None,
            "git_dirty": True,
            "command": "fnn run configs/digits_mlp.yaml",
            "started": "2025-11-21T03:04:05+00:00",
        },
    )
    return folder


class Page(HTMLParser):
    """A page taken apart: text by section, tags that are open, and references."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.tags, self.references = [], {}, [], []
        self.section = "header"
        self.feed(html)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.references += [attrs[name] for name in ("src", "href", "srcset") if name in attrs]
        if tag in ("td", "th", "dd", "dt"):
            self.handle_data(" ")
        if tag == "section":
            self.section = attrs["id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text[self.section] = self.text.get(self.section, "") + data

    def __getitem__(self, section):
        return " ".join(self.text[section].split())

    def left_out(self):
        return {name for name in SECTIONS if "Left out:" in self.text[name]}

    def count(self, tag, **attrs):
        return sum(t == tag and attrs.items() <= a.items() for t, a in self.tags)


def report(folder):
    return Page(write_report(folder).read_text("utf-8"))


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def test_a_complete_run_shows_every_section_in_order(run):
    page = report(run)
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == list(SECTIONS)
    assert page.left_out() == set()
    assert "90.0 % test accuracy" in page["header"]
    assert "dense(12)" in page["header"]
    assert "2025-11-21 03:04 UTC" in page["header"]
    assert "best 95.8 %, epoch 12" in page["curves"]
    assert page.count("svg", role="img") == 2
    assert page.count("img", **{"class": "ink"}) == 16
    assert "The weights of 12 units" in page["filters"]
    assert "equal to rounding" in page["gradients"]
    assert "need 20 % less time" in page["gradients"]
    assert "need 50 % less temporary memory" in page["gradients"]
    assert "fnn run config.yaml" in page["environment"]
    assert "not committed" in page["environment"]


def test_the_page_needs_nothing_from_elsewhere(run):
    html = write_report(run).read_text("utf-8")
    assert re.findall(r"https?://|@import|url\(|<script", html) == []
    assert all(reference.startswith("data:") for reference in Page(html).references)
    assert len(html) < 1_000_000


def test_every_image_and_figure_is_described(run):
    for tag, attrs in report(run).tags:
        if tag == "img":
            assert attrs["alt"]
        if tag == "svg":
            assert attrs["aria-label"]


def test_the_same_run_gives_the_same_bytes(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


@pytest.mark.parametrize("file", ALL_FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_a_missing_or_damaged_file_costs_its_own_section_only(run, file, damage):
    path, whole = run / file, (run / file).read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        noise = b"\xff\xfe{[" + bytes(range(256))
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "noise": noise}[damage])
    allowed = {
        "config.yaml": {"config"},
        "environment.json": {"environment"},
        "metrics.jsonl": {"curves"},
        "summary.json": {"layers", "filters"},
        "predictions.npz": {"confusion", "examples"},
        "parameters.npz": {"filters"},
        "comparison.json": {"gradients"},
    }[file]
    page = report(run)
    assert page.left_out() <= allowed
    if damage == "missing":
        assert page.left_out() == allowed
        assert any(f"{file} is not in the run folder" in page[name] for name in allowed)
    if damage == "noise":
        assert any(f"{file} cannot be read" in page[name] for name in allowed)


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


@pytest.mark.parametrize("status", ["completed", "converged", "interrupted", "diverged", "strange"])
def test_every_status_is_named(run, status):
    edit_json(run / "summary.json", status=status)
    assert f"digits_mlp {status}" in report(run)["header"]


def test_losses_that_are_not_numbers_leave_gaps(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[4]["test_loss"] = lines[6]["train_loss"] = None
    lines[8]["train_loss"] = float("nan")
    lines[9]["train_loss"] = float("inf")
    write_metrics(run / "metrics.jsonl", lines)
    page = report(run)
    assert "not a finite number in 4 epochs, first in epoch 5" in page["curves"]
    assert "nan" not in page["curves"].lower()


def test_a_run_without_one_finite_loss_says_so(run):
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
        ((28, 28, 1), set()),
        ((100, 70), set()),
        ((8, 8, 3), {"filters"}),
        ((8, 8, 2), {"examples", "filters"}),
        ((1, 64), {"examples", "filters"}),
    ],
)
def test_only_images_become_pictures(tmp_path, x_shape, left_out):
    assert report(make_run(tmp_path / "run", x_shape=x_shape)).left_out() == left_out


def test_weights_without_plain_numbers_have_no_picture(run):
    edit_npz(run / "parameters.npz", **{"1_dense/w": np.zeros((64, 12), "V2")})
    assert "stored as |V2" in report(run)["filters"]


def test_a_binary_net_with_one_output(tmp_path):
    run = make_run(tmp_path / "run", k=2, outputs=1, loss="binary")
    page = report(run)
    assert page.left_out() == set()
    assert page.count("th", scope="row") == 3 + 1  # two classes and precision; the layers' total
    assert "p = 0." in page["examples"]


def test_eleven_classes_of_which_one_has_no_example_and_one_no_name(tmp_path):
    run = make_run(tmp_path / "run", k=11)
    edit_npz(run / "predictions.npz", y_true=np.full(60, 10), y_pred=np.full(60, 9))
    edit_json(run / "summary.json", classes=[f"c{i}" for i in range(10)])
    page = report(run)
    assert "0 of 60 test examples are classified right" in page["confusion"]
    assert "10 → c9 60" in page["confusion"]


def test_a_matrix_too_large_for_a_page_becomes_a_list(tmp_path):
    page = report(make_run(tmp_path / "run", k=100))
    assert "With 100 classes the matrix would not fit" in page["confusion"]
    assert page.count("table", **{"class": "confusion"}) == 0
    assert page.count("table", **{"class": "mistakes"}) == 1


def test_a_run_that_kept_no_examples(tmp_path):
    page = report(make_run(tmp_path / "run", m=0))
    assert page.left_out() == {"examples"}


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
    ],
)
def test_the_comparison_says_what_was_measured(run, changes, says):
    edit_json(run / "comparison.json", **changes)
    assert says in report(run)["gradients"]


@pytest.mark.parametrize(
    ("difference", "says"),
    [
        (0.0, "equal bit for bit"),
        (1.2e-7, "equal to rounding: the largest difference is 1 times one float32 rounding"),
        (0.3, "more than rounding explains: run fnn verify"),
        (None, "At least one difference is not known"),
        (float("nan"), "At least one difference is not known"),
    ],
)
def test_the_gradients_are_called_equal_only_when_they_are(run, difference, says):
    row = {"path": "1_dense/w", "shape": [64, 12], "max_relative_difference": difference}
    edit_json(run / "comparison.json", parameters=[row])
    assert says in report(run)["gradients"]


def test_everything_shown_is_escaped(tmp_path):
    evil = '<script>alert("x")</script>\'"><img src=x onerror=alert(1)>{{ 7 * 7 }}'
    run = make_run(tmp_path / "run", k=2)
    (run / "config.yaml").write_text(f"name: {evil} # {evil}\n'{evil}': \"{evil}\"\n", "utf-8")
    layer = {"path": evil, "layer": evil}
    names = dict.fromkeys(("name", "status", "gradient", "loss"), evil)
    edit_json(run / "summary.json", classes=[evil, evil], layers=[layer], **names)
    write_json(
        run / "environment.json",
        {evil: evil, "device": evil, "started": evil, "x": "\ud800"},
    )
    row = {"path": evil, "max_relative_difference": 1e-7}
    edit_json(run / "comparison.json", parameters=[row])
    html = write_report(run).read_text("utf-8")
    page = Page(html)
    assert page.count("script") == 0
    assert not any("onerror" in attrs for _, attrs in page.tags)
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
        for _ in range(10):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] = rng.integers(256)
            (run / file).write_bytes(damaged)
            write_report(run)
        (run / file).write_bytes(whole)


@pytest.mark.parametrize("what", ["absent", "file", "empty", "other"])
def test_what_is_no_run_folder_is_an_error_and_stays_untouched(tmp_path, what):
    folder = tmp_path / "run"
    if what == "file":
        folder.write_text("hello")
    elif what != "absent":
        folder.mkdir()
    if what == "other":
        (folder / "notes.txt").write_text("hello")
    with pytest.raises(FnnError, match="run folder"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_an_old_report_survives_a_failed_one(run, monkeypatch):
    old = write_report(run).read_bytes()
    edit_json(run / "summary.json", name="renamed")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FnnError, match=r"report\.html: cannot be written: No space left"):
        write_report(run)
    assert (run / "report.html").read_bytes() == old
    assert sorted(p.name for p in run.iterdir()) == sorted([*ALL_FILES, "report.html"])


def test_the_report_loads_neither_jax_nor_the_training_code():
    program = (
        "import sys, fnn.report; "
        "print([m for m in ('jax', 'matplotlib', 'fnn.train') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_png_round_trip():
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    data = base64.b64decode(pictures.png(pixels).removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[16:24] == bytes([0, 0, 0, 3, 0, 0, 0, 2])
    length = int.from_bytes(data[33:37])
    rows = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(2, 13)
    np.testing.assert_array_equal(rows[:, 0], 0)
    np.testing.assert_array_equal(rows[:, 1:].reshape(2, 3, 4), pixels)


def test_the_first_layer_is_found_by_number_not_by_letter():
    names = ["10_dense/w", "2_dense/w", "2_dense/b"]
    assert pictures.first_parametric_layer(dict.fromkeys(names)) == "2_dense"


@pytest.mark.parametrize(
    ("scores", "loss", "expected"),
    [
        ([[0.0, np.log(3.0)]], "softmax_cross_entropy", ("p", 0.75)),
        ([[np.log(3.0)]], "binary_cross_entropy_with_logits", ("p", 0.75)),
        ([[0.9]], "binary_cross_entropy", ("p", 0.9)),
        ([[0.2, 0.8]], "categorical_cross_entropy", ("p", 0.8)),
        ([[0.2, 0.8]], "squared_error", ("output", 0.8)),
        ([[-1.0, 2.0]], "squared_error", None),
        ([[1e4, -1e4]], "softmax_cross_entropy", ("p", 0.0)),
    ],
)
def test_what_the_true_class_was_given(scores, loss, expected):
    one = np.ones(1, int)
    p = Predictions(one, one, np.array(scores), np.zeros(1), one, np.zeros((1, 2)))
    found = predictions.true_class_output(p, loss)
    if expected is None:
        assert found is None
    else:
        assert found[0] == expected[0]
        np.testing.assert_allclose(found[1], [expected[1]], rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "log"), [([1.0, 0.5], False), ([1.0, 0.05], True), ([1.0, 0.0], False)]
)
def test_a_loss_that_spans_decades_has_a_logarithmic_axis(values, log):
    chart = charts.loss_chart(np.arange(1.0, 3.0), [("train", np.array(values))])
    assert chart.log is log


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [0.0, 0.0],
        [0.693, 0.693 + 1e-16],
        [1e-9, 1e30],
        [-5.0, 3.0],
        [1e5, 3e5],
        [99.0, 100.5],
    ],
)
def test_ticks_are_distinct_and_inside_the_plot(values):
    epochs = np.arange(1.0, len(values) + 1)
    chart = charts.loss_chart(epochs, [("train", np.array(values))])
    labels = [tick.label for tick in chart.y_ticks]
    assert 2 <= len(labels) <= 8
    assert len(set(labels)) == len(labels)
    for tick in chart.y_ticks:
        assert charts.TOP - 0.1 <= tick.at <= charts.BOTTOM + 0.1


def test_a_long_curve_keeps_its_peak():
    values = np.full(20_000, 0.5)
    values[12_345] = 7.0
    chart = charts.loss_chart(np.arange(20_000.0), [("train", values)])
    heights = [float(pair.split()[1]) for pair in re.split("[ML]", chart.lines[0].path) if pair]
    assert len(heights) < 1000
    assert np.ptp(heights) > 150


def test_many_epochs_make_a_short_table(tmp_path):
    run = make_run(tmp_path / "run", epochs=1000)
    assert "The numbers (100 of 1000 epochs)" in report(run)["curves"]
    assert (run / "report.html").stat().st_size < 300_000


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (words.number(0.06918), "0.0692"),
        (words.number(2.4e-7), "2.4\xa0×\xa010⁻⁷"),
        (words.number(1e-7), "10⁻⁷"),
        (words.number(123456.0), "123,456"),
        (words.number(float("nan")), "not finite"),
        (words.number(-0.4), "−0.4"),
        (words.number(-2.4e-7), "−2.4\xa0×\xa010⁻⁷"),
        (words.number(None), "–"),
        (words.percent(0.9783), "97.8\xa0%"),
        (words.duration(0.613), "0.61 s"),
        (words.duration(59.96), "60.0 s"),
        (words.duration(200), "3 min 20 s"),
        (words.duration(7503), "2 h 5 min"),
        (words.microseconds(6213), "6.21 ms"),
        (words.size(41216), "40.2 KiB"),
        (words.size(0), "0 B"),
        (words.plural(1, "epoch"), "1 epoch"),
        (words.plural(0, "epoch"), "0 epochs"),
        (words.moment("yesterday"), "yesterday"),
    ],
)
def test_numbers_in_words(written, expected):
    assert written == expected


def test_the_wilson_interval_is_the_published_one():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 and 0 of 20.
    np.testing.assert_allclose(words.wilson(81, 263), (0.2553, 0.3662), atol=5e-5)
    np.testing.assert_allclose(words.wilson(0, 20), (0.0, 0.1611), atol=5e-5)


@pytest.mark.parametrize(
    "text", [CONFIG, "", "a: 'x # y' # z\n- [1, -2.5e3, true, {b: c}]\n", "é: ∂"]
)
def test_colouring_a_config_loses_nothing(text):
    assert "".join(piece for _, piece in words.yaml_tokens(text)) == text


def test_a_config_is_coloured_by_kind():
    kinds = dict(reversed([(piece, kind) for kind, piece in words.yaml_tokens(CONFIG)]))
    assert kinds["name"] == "key"
    assert kinds["1.0e-3"] == "number"
    assert kinds["# the main job"] == "comment"
    assert kinds["{"] == "mark"


def test_the_package_ships_its_template():
    folder = Path(sys.modules["fnn.report"].__file__).parent
    assert {p.name for p in folder.iterdir()} >= {
        "page.html.jinja",
        "figures.html.jinja",
        "page.css",
    }


@pytest.mark.parametrize(("stretch", "round_"), [(1.0, True), (3.0, True), (1000.0, False)])
def test_a_circle_in_the_plane_is_drawn_round(stretch, round_):
    angle = np.linspace(0, 2 * np.pi, 40)
    points = np.stack([stretch * np.cos(angle), np.sin(angle)], 1)
    dots = charts.scatter(points, [0] * 40, [0] * 40, [""] * 40).dots
    across, up = np.ptp([d.x for d in dots]), np.ptp([d.y for d in dots])
    assert bool(abs(across / up / stretch - 1) < 0.01) is round_
