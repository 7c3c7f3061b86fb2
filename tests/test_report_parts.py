"""The parts of a report: pictures, charts, numbers as text, a coloured config."""

import base64
import re
import sys
import zlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from fnn import text
from fnn.metrics import METRICS, MetricName
from fnn.report import charts, pictures, predictions
from fnn.report.page import yaml_tokens
from fnn.report.run import Predictions

from .report_runs import CONFIG, make_run, report


def test_png_round_trip():
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    data = base64.b64decode(pictures.png(pixels).removeprefix("data:image/png;base64,"))
    assert (data[:8], data[16:24]) == (b"\x89PNG\r\n\x1a\n", bytes([0, 0, 0, 3, 0, 0, 0, 2]))
    length = int.from_bytes(data[33:37])
    rows = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(2, 13)
    np.testing.assert_array_equal(rows[:, 0], 0)
    np.testing.assert_array_equal(rows[:, 1:].reshape(2, 3, 4), pixels)


def test_the_first_layer_is_the_first_by_number_not_by_letter():
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
def test_the_output_of_the_true_class(scores, loss, expected):
    one = np.ones(1, int)
    p = Predictions(one, one, np.array(scores), np.zeros(1), one, np.zeros((1, 2)))
    actual = predictions.true_class_output(p, loss)
    if actual is not None:
        actual = actual[0], pytest.approx(actual[1].item(), rel=1e-12, abs=0)
    assert actual == expected


def test_a_loss_that_spans_decades_has_a_logarithmic_axis():
    for values, log in (([1.0, 0.5], False), ([1.0, 0.05], True), ([1.0, 0.0], False)):
        assert charts.line_chart(np.arange(1.0, 3.0), [("train", np.array(values))]).log is log


ENDS = ([0.0, 0.0], [0.693, 0.693 + 1e-16], [1e-9, 1e30], [-5.0, 3.0], [1e5, 3e5], [99.0, 100.5])


@pytest.mark.parametrize("values", [[1.0], *ENDS])
def test_ticks_are_distinct_and_inside_the_plot(values):
    epochs = np.arange(1.0, len(values) + 1)
    ticks = charts.line_chart(epochs, [("train", np.array(values))]).y_ticks
    assert 2 <= len(ticks) <= 8
    assert len({tick.label for tick in ticks}) == len(ticks)
    assert all(charts.TOP - 0.1 <= tick.at <= charts.BOTTOM + 0.1 for tick in ticks)


def test_a_long_curve_keeps_its_peak():
    values = np.full(20_000, 0.5)
    values[12_345] = 7.0
    chart = charts.line_chart(np.arange(20_000.0), [("train", values)])
    heights = [float(pair.split()[1]) for pair in re.split("[ML]", chart.lines[0].path) if pair]
    assert len(heights) < 1000
    assert np.ptp(heights) > 150


def test_many_epochs_make_a_short_table(tmp_path):
    run = make_run(tmp_path / "run", epochs=1000)
    assert "The numbers (100 of 1000 epochs)" in report(run)["curves"]
    assert (run / "report.html").stat().st_size < 300_000


TEXTS = {
    text.number: {
        0.06918: "0.0692",
        123456.0: "123,456",
        float("nan"): "not finite",
        None: "–",
        -0.4: "−0.4",
        1e-7: "10⁻⁷",
        2.4e-7: "2.4\xa0×\xa010⁻⁷",
        -2.4e-7: "−2.4\xa0×\xa010⁻⁷",
    },
    text.percent: {0.9783: "97.8\xa0%"},
    text.duration: {0.613: "0.61 s", 59.96: "60.0 s", 200: "3 min 20 s", 7503: "2 h 5 min"},
    text.short_duration: {6213e-6: "6.21 ms", 96.2e-6: "96.2 µs", 2: "2 s"},
    text.size: {41216: "40.2 KiB", 0: "0 B"},
    text.shape: {(64, 128): "64×128", (): "scalar"},
    text.moment: {"yesterday": "yesterday"},
    lambda n: text.plural(n, "epoch"): {1: "1 epoch", 0: "0 epochs"},
}


def test_numbers_as_text():
    for write, texts in TEXTS.items():
        assert {x: write(x) for x in texts} == texts


def test_the_wilson_interval_is_the_published_one():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 and 0 of 20.
    np.testing.assert_allclose(predictions.wilson(81, 263), (0.2553, 0.3662), atol=5e-5)
    np.testing.assert_allclose(predictions.wilson(0, 20), (0.0, 0.1611), atol=5e-5)


def test_a_config_is_coloured_by_kind_and_loses_nothing():
    for config in (CONFIG, "", "a: 'x # y' # z\n- [1, -2.5e3, true, {b: c}]\n", "é: ∂"):
        assert "".join(piece for _, piece in yaml_tokens(config)) == config
    kinds = dict(reversed([(piece, kind) for kind, piece in yaml_tokens(CONFIG)]))
    expected = {"name": "key", "1.0e-3": "number", "# the main job": "comment", "{": "mark"}
    assert {piece: kinds[piece] for piece in expected} == expected


def test_the_package_ships_its_template():
    folder = Path(sys.modules["fnn.report"].__file__).parent
    assert {"page.html.jinja", "figures.html.jinja", "page.css"} <= {
        p.name for p in folder.iterdir()
    }


def test_a_circle_in_the_plane_is_drawn_round():
    angle = np.linspace(0, 2 * np.pi, 40)
    for stretch, is_round in ((1.0, True), (3.0, True), (1000.0, False)):
        points = np.stack([stretch * np.cos(angle), np.sin(angle)], 1)
        dots = charts.scatter(points, [0] * 40, [0] * 40, [""] * 40).dots
        across, up = np.ptp([(d.x, d.y) for d in dots], axis=0)
        assert bool(abs(across / up / stretch - 1) < 0.01) is is_round


def test_every_metric_has_its_name_and_its_direction():
    assert list(METRICS) == list(get_args(MetricName))
    loss, accuracy = METRICS["test_loss"], METRICS["test_accuracy"]
    assert loss.cost(0.1) < loss.cost(0.2) < loss.cost(float("nan")) == loss.cost(None)
    assert accuracy.cost(0.2) < accuracy.cost(0.1) < accuracy.cost(None)
