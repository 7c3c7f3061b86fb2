"""Synthetic run folders for the tests of the report, and a parser of its page."""

import json
from html.parser import HTMLParser

import numpy as np

from fnn.report import write_report

FILES = {
    "config.yaml": {"config"},
    "environment.json": {"environment"},
    "metrics.jsonl": {"curves"},
    "summary.json": {"layers", "filters"},
    "predictions.npz": {"confusion", "examples"},
    "parameters.npz": {"filters"},
    "comparison.json": {"gradients"},
}
"""The files of a run, and the sections of its page that need them."""
SECTIONS = ("curves", "confusion", "examples", "filters", "layers", "gradients", "config")
SECTIONS += ("environment",)
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
            {"epoch": epoch, "step": 10 * epoch, "seconds": 0.1 * epoch}
            | {"train_loss": 2.0 / epoch**2, "test_loss": 2.1 / epoch}
            | {"test_accuracy": 1 - 0.5 / epoch}
            for epoch in range(1, epochs + 1)
        ],
    )
    y_true = rng.integers(0, k, n)
    y_pred = np.where(rng.random(n) < 0.8, y_true, rng.integers(0, k, n))
    losses = rng.random(n) + (y_true != y_pred)
    worst = np.argsort(-losses)[:m]
    scores = rng.random((n, 1)) if outputs == 1 else rng.normal(size=(n, outputs))
    predictions = {"y_true": y_true, "y_pred": y_pred, "scores": scores, "loss": losses}
    images = {"worst_index": worst, "worst_x": rng.random((m, *x_shape))}
    np.savez(folder / "predictions.npz", **predictions, **images)
    inputs = int(np.prod(x_shape))
    parameters = {
        "1_dense/w": rng.normal(size=(inputs, 12)).astype(np.float32),
        "1_dense/b": np.zeros(12, np.float32),
        "10_dense/w": rng.normal(size=(12, outputs)).astype(np.float32),
    }
    np.savez(folder / "parameters.npz", **parameters)
    layer = {"path": "model.1", "layer": "dense(12)", "output_shape": [12]}
    layer |= {"parameters": 12 * inputs + 12, "multiply_adds": 12 * inputs}
    summary = {"name": "digits_mlp", "status": "completed", "x_shape": list(x_shape)}
    summary |= {"epochs": epochs, "steps": 10 * epochs, "batch_size": 32, "train_examples": 240}
    summary |= {"train_loss": 0.01, "test_loss": 0.1, "test_accuracy": 0.9, "test_examples": n}
    summary |= {"seconds_to_first_step": 0.6, "seconds": 1.2, "gradient": "manual"}
    summary |= {"parameters": sum(w.size for w in parameters.values()), "layers": [layer]}
    summary |= {"loss": f"{loss}_cross_entropy", "classes": [f"c{i}" for i in range(k)]}
    write_json(folder / "summary.json", summary)
    differences = [
        {"path": name, "shape": list(w.shape), "max_relative_difference": 2.4e-7}
        for name, w in parameters.items()
    ]
    comparison = {"parameters": differences, "loss_relative_difference": 0.0}
    comparison |= {"step_time_us": {"manual": 100.0, "autodiff": 125.0}, "step_time_ratio": 1.25}
    comparison |= {"temp_bytes": {"manual": 4096, "autodiff": 8192}, "temp_ratio": 2.0}
    write_json(folder / "comparison.json", comparison)
    environment = {"fnn": "0.1.0", "device": "cpu", "cpu_count": 2, "seed": 0, "git_commit": None}
    environment |= {"git_dirty": True, "command": "fnn run configs/digits_mlp.yaml"}
    environment |= {"started": "2025-11-21T03:04:05+00:00"}
    write_json(folder / "environment.json", environment)
    return folder


class Page(HTMLParser):
    """A parsed page: text by section, open tags, and references."""

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

    def assert_harmless(self):
        assert self.count("script") == self.count("img", src="x") == 0
        assert not any(name.startswith("on") for _, attrs in self.tags for name in attrs)

    def count(self, tag, **attrs):
        return sum(t == tag and attrs.items() <= a.items() for t, a in self.tags)


def report(folder):
    return Page(write_report(folder).read_text("utf-8"))
