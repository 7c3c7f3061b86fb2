"""The command, as someone types it: in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fnn.cli import app, command

ROOT = Path(__file__).parents[1]
DIGITS = str(ROOT / "configs/digits_mlp.yaml")
XOR = str(ROOT / "configs/xor.yaml")
COMMAND = [sys.executable, "-m", "fnn"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}


@pytest.fixture
def fnn(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT
        )

    return run


VERBS = [command.callback.__name__ for command in app.registered_commands]


def test_the_verbs():
    assert [
        *("run", "resume", "replay", "compare", "plan", "sweep", "diff", "export"),
        *("verify", "bench", "ops"),
    ] == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(fnn, verb):
    done = fnn(verb, "--help")
    assert done.returncode == 0
    assert f"Example: fnn {verb}" in done.stdout
    assert "--json" in done.stdout


def test_no_verb_shows_the_help_and_version_the_version(fnn):
    for arguments in ((), ("--help",)):
        told = fnn(*arguments)
        assert all(verb in told.stdout + told.stderr for verb in VERBS)
    assert re.fullmatch(r"fnn \d+\.\d+\.\d+\n", fnn("--version").stdout)


def test_run(fnn, tmp_path):
    done = fnn("run", XOR, "train.epochs=5")
    assert done.returncode == 0
    assert "test accuracy" in done.stdout
    assert "epoch 5/5" in done.stderr
    (report,) = tmp_path.glob("runs/xor/*/report.html")
    assert f"report: {report.relative_to(tmp_path)}" in done.stdout


def test_run_json(fnn, tmp_path):
    done = fnn("run", XOR, "train.epochs=5", "--json", "--runs", "elsewhere", "--tensorboard")
    told = json.loads(done.stdout)
    assert list((tmp_path / told["run"] / "tensorboard").glob("events.*"))
    assert told.keys() >= {"run", "test_accuracy", "seconds_to_first_step", "seconds"}
    assert (tmp_path / told["run"] / "report.html").exists()
    assert 0 < told["seconds_to_first_step"] < told["seconds"]


def test_plan_json(fnn):
    told = json.loads(fnn("plan", DIGITS, "model.1.dense.features=20", "--json").stdout)
    assert told["parameters"] == 64 * 20 + 20 + 20 * 10 + 10
    assert [layer["output_shape"] for layer in told["layers"]] == [[64], [20], [20], [10]]
    assert told["steps_per_epoch"] == -(-told["train_examples"] // told["batch_size"])


def test_compare_json(fnn):
    told = json.loads(fnn("compare", XOR, "--json").stdout)
    assert {p["path"] for p in told["parameters"]} == {
        "0_dense/w",
        "0_dense/b",
        "2_dense/w",
        "2_dense/b",
    }
    assert told["step_time_us"]["manual"] > 0


def test_verify(fnn):
    done = fnn("verify", "identity", "flatten")
    assert done.returncode == 0
    assert "2 verified, 0 failed" in done.stdout
    told = json.loads(fnn("verify", "identity", "--json").stdout)
    assert told["ok"] is True
    assert told["reports"][0]["errors"].keys() >= {"float64", "float32", "bfloat16"}


def test_verify_finds_a_function_of_the_current_folder_wrong(fnn, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import jax\nf = jax.custom_vjp(lambda x: x * x)\n"
        "f.defvjp(lambda x: (x * x, x), lambda x, dy: (x * dy,))\n"
    )
    done = fnn("verify", "mine:f", "--args", "f32[4]")
    assert done.returncode == 1
    assert "value / factor" in done.stdout


def test_ops(fnn):
    assert "softmax_cross_entropy" in fnn("ops").stdout
    one = fnn("ops", "sigmoid").stdout
    assert "x̄ = y (1 - y) ȳ" in one
    assert "Source: Rumelhart" in one
    told = json.loads(fnn("ops", "dense", "--json").stdout)
    assert told["ops"][0]["arrays"] == ["x", "w", "b"]


def test_a_table_that_is_cut_off_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m fnn ops | head -n 1",
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        shell=True,
    )
    assert "Traceback" not in done.stderr


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
        (("run", str(ROOT / "configs/mnist_784_15_10.yaml")), "data/mnist: no such folder"),
        (("run", DIGITS, "--runs", "/dev/null"), "cannot make the run folder"),
        (("walk",), "No such command 'walk'"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(fnn, tmp_path, arguments, words):
    done = fnn(*arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_a_report(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "run", XOR, "train.epochs=100000", "train.converge=null"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 60
    while not (list(tmp_path.glob("runs/xor/*/metrics.jsonl")) or time.monotonic() > deadline):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "interrupted" in out
    assert list(tmp_path.glob("runs/xor/*/report.html"))


def test_ctrl_c_ends_the_command_wherever_it_is(tmp_path):
    """In the middle of an import, or of a function that C calls, an exception would be lost."""
    code = (
        "import gc, os, signal\n"
        "from fnn.cli import command\n"
        "def collected(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        "def app(**_): gc.callbacks.append(collected); gc.collect(); print('it went on')\n"
        "command.app = app\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "command.main()"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    assert done.stdout == ""
    assert (done.returncode, done.stderr) == (130, "fnn: interrupted\n")


def idx(array):
    """An array of bytes as an IDX file."""
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def test_784_15_10_runs_on_idx_files(fnn, tmp_path):
    """Small files of MNIST's form: a bright column whose place is the class."""
    folder = tmp_path / "data/mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 300), ("t10k", 100)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 40, (count, 28, 28))
        images[np.arange(count), :, 2 * labels + 4] = 255
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    done = fnn("run", str(ROOT / "configs/mnist_784_15_10.yaml"), "train.epochs=30", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["test_accuracy"] > 0.9
    layers = json.loads((tmp_path / told["run"] / "summary.json").read_text())["layers"]
    assert [layer["output_shape"] for layer in layers if layer["parameters"]] == [[15], [10]]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: 9 bytes\nmore"), "memory: RESOURCE_EXHAUSTED: 9 bytes;"),
        (MemoryError("Unable to allocate 9 bytes"), "out of memory: Unable to allocate 9 bytes;"),
        (MemoryError(), "out of memory"),
    ],
)
def test_too_little_memory_is_a_message(monkeypatch, capsys, error, message):
    def fails(**_):
        raise error

    monkeypatch.setattr(command, "app", fails)
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert message in capsys.readouterr().err


def test_a_mistake_of_ours_is_not_a_message(monkeypatch):
    def fails(**_):
        raise RuntimeError("never")

    monkeypatch.setattr(command, "app", fails)
    with pytest.raises(RuntimeError, match="never"):
        command.main()
