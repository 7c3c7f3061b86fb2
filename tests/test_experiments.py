"""Studies run and write their result, and their claim can hold or fail."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from fnn.data.bundled import digits
from fnn.errors import FnnError

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
WINNER, LOSER = "cross-entropy", "squared error"


@pytest.fixture
def studies(monkeypatch):
    """Return a function that imports an experiment by name, with its helpers on the path."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module


@pytest.fixture
def losses(studies):
    return studies("squared_error_vs_cross_entropy")


def curves(*epochs_to_target, final):
    """Return 6 test accuracies per run; each reaches 98 % at its epoch and ends at `final`."""
    accuracy = np.full((len(epochs_to_target), 6), 0.5)
    for run, first in zip(accuracy, epochs_to_target, strict=True):
        run[first - 1 :] = 0.98
    accuracy[:, -1] = final
    return accuracy


FAST, SLOW = curves(2, 2, 3, 2, 2, final=0.99), curves(4, 4, 5, 4, 4, final=0.97)


@pytest.mark.parametrize(
    ("ours", "theirs", "holds"),
    [
        (FAST, SLOW, [True, True]),
        (SLOW, FAST, [False, False]),
        (FAST, FAST, [False, False]),  # a tie is not a win
        (curves(2, 2, 3, 2, 2, final=0.97), curves(4, 4, 5, 4, 4, final=0.99), [True, False]),
        (curves(2, 2, 2, 5, 5, final=0.99), curves(4, 4, 4, 4, 4, final=0.98), [False, True]),
    ],
    ids=["wins", "loses", "a tie", "only faster", "faster in the median but in 3 of 5 seeds"],
)
def test_the_claim_holds_where_cross_entropy_wins_both_ways(studies, losses, ours, theirs, holds):
    parts = losses.judge_claim({WINNER: ours, LOSER: theirs})
    assert [part.holds for part in parts] == holds
    assert studies("study").verdict(parts) == ("holds" if all(holds) else "fails")
    if all(holds):
        assert [part.wins for part in parts] == [5, 5]


def test_a_run_that_never_reaches_the_target_counts_one_epoch_more(losses):
    accuracy = np.array([[0.1, 0.2, 0.3], [0.1, 0.98, 0.5]])
    assert losses.epochs_to_target(accuracy) == [4, 2]


def test_the_arms_differ_in_loss_and_rate_alone(losses):
    ours, theirs = (set(arm.overrides) for arm in losses.ARMS)
    assert {text.partition("=")[0] for text in ours ^ theirs} <= {"loss", losses.RATE}


def test_a_quarter_of_the_training_split_is_held_out_and_nothing_of_the_test_split(studies):
    data = digits()
    split = studies("study").held_out(data)
    assert len(split.x_train) + len(split.x_test) == len(data.x_train)
    assert len(split.x_test) / len(data.x_train) == pytest.approx(0.25, abs=0.01)
    ours = {x.tobytes() for x in (*split.x_train, *split.x_test)}
    assert ours == {x.tobytes() for x in data.x_train}


def test_the_study_runs_and_writes_its_result(losses, tmp_path, capsys):
    out = tmp_path / "study"
    losses.main(["--seeds", "1", "--out", str(out), "train.epochs=2"])
    result = json.loads((out / "result.json").read_text())
    assert result["claim"] == losses.CLAIM
    assert result["verdict"] in ("holds", "fails")
    assert [len(part["values"][WINNER]) for part in result["parts"]] == [1, 1]
    assert len(list(out.glob("runs/*/*/metrics.jsonl"))) == 2
    assert all((out / f"figure.{kind}").stat().st_size > 0 for kind in ("svg", "png"))
    text = (out / "result.md").read_text()
    assert f"**Verdict: {result['verdict']}.**" in text
    assert text in capsys.readouterr().out


def test_choosing_tries_every_rate_on_held_out_examples(studies, losses, capsys, monkeypatch):
    def run_arm(config, arm, seeds, runs, *, overrides, data):
        assert data is studies("study").held_out
        return [[{"test_accuracy": 0.5}, {"test_accuracy": 0.7}]] * seeds

    monkeypatch.setattr(losses, "run_arm", run_arm)
    losses.main(["--choose", "--seeds", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(losses.RATES)
    assert lines[0] == (
        "cross-entropy, rate 0.001: held-out accuracy 0.6000 over all epochs, 0.7000 after the last"
    )


@pytest.mark.parametrize("status", ["diverged", "interrupted"])
def test_a_run_that_is_cut_short_ends_the_study(studies, losses, tmp_path, monkeypatch, status):
    study = studies("study")
    monkeypatch.setattr(study, "train", lambda run, folder: {"status": status})
    with pytest.raises(FnnError, match=f"the run ended as {status}; a study needs every epoch"):
        study.run_arm(losses.CONFIG, losses.ARMS[0], 1, tmp_path)
