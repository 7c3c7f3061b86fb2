"""The command as a user types it."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fnn.cli import app
from fnn.cli import command as entry

from .runs import ROOT, python
from .runs import command as command

DIGITS = ROOT / "configs/digits_mlp.yaml"
XOR = ROOT / "configs/xor.yaml"


@pytest.fixture
def fnn(command, tmp_path, monkeypatch):
    """Run the command in this process and an empty folder: return status, output and errors."""
    monkeypatch.chdir(tmp_path)
    return command


VERBS = [command.callback.__name__ for command in app.registered_commands]


def test_the_verbs():
    assert [
        *("run", "resume", "replay", "compare", "plan", "sweep", "diff", "export"),
        *("verify", "bench", "ops"),
    ] == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(fnn, verb):
    status, out, _ = fnn(verb, "--help")
    assert status == 0
    assert f"Example: fnn {verb}" in out
    assert "--json" in out


def test_no_verb_shows_the_help_and_version_the_version(fnn):
    for words in ((), ("--help",)):
        assert all(verb in "".join(fnn(*words)[1:]) for verb in VERBS)
    assert re.fullmatch(r"fnn \d+\.\d+\.\d+\n", fnn("--version")[1])


def test_run(fnn):
    status, out, err = fnn("run", XOR, "train.epochs=2")
    assert status == 0
    assert "test accuracy" in out
    assert "epoch 2/2" in err
    (report,) = Path("runs/xor").glob("*/report.html")
    assert f"report: {report}" in out


def test_run_json(fnn):
    _, out, _ = fnn("run", XOR, "train.epochs=2", "--json", "--runs", "elsewhere", "--tensorboard")
    output = json.loads(out)
    assert list(Path(output["run"], "tensorboard").glob("events.*"))
    assert output.keys() >= {"run", "test_accuracy", "seconds_to_first_step", "seconds"}
    assert Path(output["run"], "report.html").exists()
    assert 0 < output["seconds_to_first_step"] < output["seconds"]


def test_plan_json(fnn):
    output = json.loads(fnn("plan", DIGITS, "model.1.dense.features=20", "--json")[1])
    assert output["parameters"] == 64 * 20 + 20 + 20 * 10 + 10
    assert [layer["output_shape"] for layer in output["layers"]] == [[64], [20], [20], [10]]
    assert output["steps_per_epoch"] == -(-output["train_examples"] // output["batch_size"])


def test_compare_json(fnn, monkeypatch):
    monkeypatch.setattr("fnn.runs.compare.ROUNDS", 1)
    comparison = json.loads(fnn("compare", XOR, "--json")[1])
    paths = ["0_dense/b", "0_dense/w", "2_dense/b", "2_dense/w"]
    assert [p["path"] for p in comparison["parameters"]] == paths
    assert comparison["step_time_us"]["manual"] > 0


def test_compare_a_run(fnn, monkeypatch):
    monkeypatch.setattr("fnn.runs.compare.ROUNDS", 1)
    run = Path(json.loads(fnn("run", XOR, "train.epochs=2", "--json")[1])["run"])
    assert not (run / "comparison.json").exists()
    before = (run / "report.html").read_bytes()
    comparison = json.loads(fnn("compare", "runs/xor", "--json")[1])
    written = json.loads((run / "comparison.json").read_bytes())
    assert written == {key: value for key, value in comparison.items() if key != "name"}
    assert (run / "report.html").read_bytes() != before
    assert "the losses differ by" in fnn("compare", run)[1]
    assert "is a run, whose config is fixed" in fnn("compare", run, "seed=1")[2]


def test_ops(fnn):
    assert "softmax_cross_entropy" in fnn("ops")[1]
    one = fnn("ops", "sigmoid")[1]
    assert "x̄ = y (1 - y) ȳ" in one
    assert "Source: Rumelhart" in one
    assert json.loads(fnn("ops", "dense", "--json")[1])["ops"][0]["arrays"] == ["x", "w", "b"]


def test_a_table_that_is_cut_off_is_no_error():
    words = f"{sys.executable} -m fnn ops | head -n 1"
    process = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, shell=True)
    assert "Traceback" not in process.stderr
    assert process.stdout.strip()  # `python -m fnn` is the command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "nowhere.yaml"), "nowhere.yaml: no such file"),
        (("run", DIGITS, "train.epoch=5"), "unknown key 'epoch'; did you mean 'epochs'?"),
        (("plan", DIGITS, "model.1.dense.features=x"), "expected an integer"),
        (("plan", DIGITS, "model.3.dense.features=9"), "the model ends with shape (32, 9)"),
        (("compare", DIGITS, "data={digit: {}}"), "did you mean 'digits'?"),
        (("verify", "sofmax"), "there is no op 'sofmax'; did you mean 'softmax'?"),
        (("ops", "sofmax"), "did you mean 'softmax'?"),
        (("run", ROOT / "configs/mnist_784_15_10.yaml"), "data/mnist: no such folder"),
        (("run", DIGITS, "--runs", "/dev/null"), "cannot make the run folder"),
        (("walk",), "No such command 'walk'"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(fnn, tmp_path, arguments, words):
    status, out, err = fnn(*arguments)
    assert (status, out) == (2, "")
    assert words in " ".join(err.split())
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_a_report(tmp_path):
    words = ("-m", "fnn", "run", XOR, "train.epochs=100000", "train.converge=null")
    own = {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": ""}  # fnn chooses the folder
    process = python(*words, cwd=tmp_path, **own)
    deadline = time.monotonic() + 240
    while not (list(tmp_path.glob("runs/xor/*/metrics.jsonl")) or time.monotonic() > deadline):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "interrupted" in out
    assert list(tmp_path.glob("runs/xor/*/report.html"))


def test_ctrl_c_ends_the_command_wherever_it_is(tmp_path):
    """An exception raised in the middle of an import, or in a callback from C, would be lost."""
    code = (
        "import gc, os, signal\n"
        "from fnn.cli import command\n"
        "def collected(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        "def app(**_): gc.callbacks.append(collected); gc.collect(); print('it went on')\n"
        "command.app = app\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "command.main()"
    )
    process = python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert process.communicate(timeout=240) == ("", "fnn: interrupted\n")
    assert process.returncode == 130


def idx(array):
    """Return an array of bytes as an IDX file."""
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def test_784_15_10_runs_on_idx_files(fnn, tmp_path):
    """Small files in the format of MNIST: the position of a bright column is the class."""
    folder = tmp_path / "data/mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 300), ("t10k", 100)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 40, (count, 28, 28))
        images[np.arange(count), :, 2 * labels + 4] = 255
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    words = ("run", ROOT / "configs/mnist_784_15_10.yaml", "train.epochs=30", "--json")
    output = json.loads(fnn(*words)[1])
    assert output["test_accuracy"] > 0.9
    layers = json.loads(Path(output["run"], "summary.json").read_text())["layers"]
    assert [layer["output_shape"] for layer in layers if layer["parameters"]] == [[15], [10]]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: 9 bytes\nmore"), 2, "memory: RESOURCE_EXHAUSTED: 9 b"),
        (MemoryError("Unable to allocate 9 bytes"), 2, "of memory: Unable to allocate 9 bytes;"),
        (MemoryError(), 2, "out of memory"),
        (RuntimeError("never"), None, None),  # an internal error has a traceback
    ],
)
def test_too_little_memory_is_a_message(fnn, monkeypatch, error, status, message):
    def fails(**_):
        raise error

    monkeypatch.setattr(entry, "app", fails)
    if status is None:
        with pytest.raises(RuntimeError, match="never"):
            fnn()
    else:
        actual, _, err = fnn()
        assert actual == status
        assert message in err
