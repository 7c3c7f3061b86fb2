"""A slice of the mutation corpus, the sanity of its tables, and the command that runs it all."""

import itertools
import json
import sys

import jax
import pytest

from fnn.errors import FnnError
from fnn.verify.defects import DEFECTS
from fnn.verify.mutation import __main__ as command
from fnn.verify.mutation import jobs
from fnn.verify.mutation.corpus import Corpus, load
from fnn.verify.mutation.page import verdict
from fnn.verify.mutation.rivals import RIVALS, accepts, drawn, real_part
from fnn.verify.mutation.summary import summarise
from fnn.verify.mutation.trial import CleanTrial, Trial, try_clean, try_mutant

from .mutation.equivalent import EQUIVALENT
from .mutation.operators import OPERATORS
from .mutation.rules import RULES

CORPUS = Corpus(RULES, OPERATORS, EQUIVALENT)
NAMES = list(RULES)
UNPLANTED: set[str] = set()
"""Defects that no operator plants."""


# The tables


def test_the_corpus_is_large_enough():
    assert len(RULES) >= 40
    assert len(OPERATORS) >= 40
    assert all(name == rule.name for name, rule in RULES.items())
    assert all(name == operator.name for name, operator in OPERATORS.items())


def test_every_operator_makes_known_defects_and_every_defect_is_made():
    for operator in OPERATORS.values():
        assert operator.defects
        assert operator.defects <= set(DEFECTS), operator.name
        assert not operator.bug or operator.bug.startswith("https://"), operator.name
    made = set().union(*(operator.defects for operator in OPERATORS.values()))
    assert set(DEFECTS) - made == UNPLANTED
    assert sum(bool(operator.bug) for operator in OPERATORS.values()) >= 5


def test_equivalent_mutants_exist_and_say_why():
    for (rule, operator, label), reason in EQUIVALENT.items():
        labels = [mutant.label for mutant in CORPUS.mutants(rule, operator)]
        assert labels if label == "*" else label in labels, (rule, operator, label)
        assert len(reason.split()) > 3


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_can_be_called_on_what_it_says(name):
    rule = RULES[name]
    with jax.numpy_dtype_promotion("standard"):
        function, arrays = real_part(rule.build(), drawn(rule, "float32", 0))
        assert jax.eval_shape(function, *arrays)


# The checker on a part of it


PLANTED = {
    "relu_where": "negate double at_zero clip_to_one add_tiny ignore_upstream",
    "tanh": """
        lose_tail one_billionth drop_tiny always_float32 complex_for_real weak_cotangent extra_axis
        bare_cotangent forward_scaled forward_dtype half_cotangent bfloat16_residuals
        noise_while_tracing every_other_call wrong_when_eager mixed_batch stopped_residuals
        bulky_residuals square_and_root empty_raises
    """,
    "multiply_column": "roll transpose wrong_middle lose_last forget_sum touch_other_rows",
    "dense": "one_too_few other_parity",
    "batch_norm": "ignore_output",
    "embedding": "zeros_for_integers",
    "masked_mean": "mean_of_nothing",
}
"""Faults of every kind, each on a rule that compiles soon."""


@pytest.mark.parametrize(
    ("rule", "name"), [(rule, name) for rule, names in PLANTED.items() for name in names.split()]
)
def test_a_fault_is_found_and_named(rule, name):
    mutant = next(iter(CORPUS.mutants(rule, name)))
    # Most faults show on the arguments as they are given, which takes a third of the time.
    trial = try_mutant(mutant, vary=False)
    if not trial.named:
        trial = try_mutant(mutant)
    assert trial.killed, f"{trial.name} survives: {trial.error}"
    assert trial.mentioned, f"{trial.name}: {trial.found}, not {sorted(trial.expected)}"


@pytest.mark.parametrize("number", range(4))
def test_a_correct_rule_raises_no_alarm(number):
    """A rule in each dtype; `--false-alarms` tries all of them."""
    rule = ("softmax", "absolute", "maximum_last", "multiply_column")[number]
    trial = try_clean(RULES[rule], command.DTYPES[number], seed=number)
    assert not trial.alarm, "\n".join([trial.error, *trial.findings])


# The other checkers


@pytest.mark.parametrize("checker", RIVALS)
def test_another_checker_accepts_a_correct_rule_and_rejects_a_wrong_one(checker):
    rule = next(r for r in RULES.values() if r.bwd and not r.nondiff_argnums)
    wrong = rule.replace(bwd=lambda *args: jax.tree.map(lambda ct: -ct, rule.bwd(*args)))
    assert accepts(checker, rule, "float64", seed=0)
    assert not accepts(checker, wrong, "float64", seed=0)


# The command


def trial(rule="tanh", operator="sign", label="x", equivalent="", found=("sign",)):
    return Trial(rule, operator, label, "value", frozenset({"sign"}), equivalent, found)


def test_the_bars_decide():
    good = summarise([trial()], [CleanTrial("tanh", "float32", 0, seconds=(2.0, 1.0))])
    assert good["ok"]
    assert good["seconds"]["rules"]["tanh"] == {"cold": 2.0, "warm": 1.0}
    assert not summarise([trial(found=())], [])["ok"]
    assert not summarise([trial(found=("term", "sign"))], [])["ok"]
    assert not summarise([trial()], [CleanTrial("tanh", "float32", 0, error="it fell")])["ok"]
    assert not summarise([trial(equivalent="no change at all")], [])["ok"]
    assert summarise([trial(equivalent="no change at all", found=())], [])["ok"]


def test_a_share_is_not_rounded_up_to_the_whole():
    almost = [trial(label=str(i)) for i in range(9999)] + [trial(found=(), label="last")]
    found = summarise(almost, [])
    assert found["survivors"] == [{"mutant": "tanh/sign/last", "error": ""}]
    assert "10,000 mutants" in verdict(found)
    assert "99.9 % killed" in verdict(found)
    assert verdict(found).endswith("ok")


def made(plan, monkeypatch):
    """The names of what a plan tries, without trying it."""
    monkeypatch.setattr(
        jobs, "try_mutant", lambda m, *_: trial(m.clean.name, m.operator.name, m.label)
    )
    monkeypatch.setattr(jobs, "try_clean", lambda rule, dtype, seed, *_: (rule.name, dtype, seed))
    done = jobs.carry_out(plan, jobs.tasks(plan), jobs=1)
    return sorted(str(t) for some in done for t in some)


def test_the_slices_are_the_whole(monkeypatch):
    names = "tests.mutation", tuple(NAMES[:4]), tuple(OPERATORS)[:4]
    plans = [jobs.Plan(*names, ("float16",), 2, part=k, parts=3) for k in range(3)]
    parts = [made(plan, monkeypatch) for plan in plans]
    whole = made(jobs.Plan(*names, ("float16",), 2), monkeypatch)
    assert sorted(itertools.chain(*parts)) == whole
    assert all(parts)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["no.such"], "'no.such' cannot be imported"),
        (["--rules", "no_such"], "there is no rule 'no_such'"),
        (["--operators", "no_such"], "there is no operator 'no_such'"),
        (["--slice", "3/2"], "expected K/N"),
        (["--json", "no/such/found.json"], "there is no folder no/such"),
    ],
)
def test_a_wrong_call_is_told_in_a_line(args, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mutation", *args])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


def test_the_command_prints_and_writes_its_summary(monkeypatch, capsys, tmp_path):
    rule, operator = NAMES[0], next(iter(OPERATORS))
    file = tmp_path / "found.json"
    call = ["mutation", "--rules", rule, "--operators", operator, "--jobs", "1", "--compare"]
    monkeypatch.setattr(sys, "argv", [*call, "--json", str(file)])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    found = json.loads(file.read_text())
    printed = capsys.readouterr().out
    assert found["mutants"] == found["killed"] > 0, printed
    assert stopped.value.code == 0, printed
    assert "mutants by operator" in printed
    assert "jax check_grads float64" in printed
    assert printed.splitlines()[-1] == verdict(found)


def test_an_operator_that_fails_is_a_survivor_by_name():
    worker = jobs.Worker(jobs.Plan("tests.mutation", (), ()))

    def make(rule):
        raise KeyError("missing")
        yield

    class Broken:
        name = "broken"
        defects = frozenset({"term"})

    Broken.make = staticmethod(make)
    worker.corpus = Corpus(RULES, {"broken": Broken()}, {})
    ((only, run),) = worker.trials(jobs.Task(NAMES[0], "broken"))
    assert only == run()
    assert not only.killed
    assert only.error == "not made: KeyError: 'missing'"


DEADLY = """
import os
from types import SimpleNamespace
from tests.mutation.rules import RULES as ALL

RULES = {"tanh": ALL["tanh"]}
EQUIVALENT = {}

def make(rule):
    for label, last in (("first", id), ("deadly", os._exit), ("last", id)):
        yield label, rule.replace(bwd=lambda *call, last=last: last(3) and (-rule.bwd(*call)[0],))

OPERATORS = {"negate": SimpleNamespace(name="negate", defects=frozenset({"sign"}), make=make)}
"""


def test_a_mutant_that_ends_its_process_is_a_survivor_by_name(monkeypatch, tmp_path):
    folder = tmp_path / "deadly"
    folder.mkdir()
    for part in ("__init__", "rules", "operators", "equivalent"):
        (folder / f"{part}.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    plan = jobs.Plan("deadly", ("tanh",), ("negate",))
    some = jobs.carry_out(plan, jobs.tasks(plan), jobs=2)
    done = [t for trials in some for t in trials if isinstance(t, Trial)]
    assert [t.label for t in done] == ["first", "deadly", "last"]
    assert [t.found for t in done] == [("sign",), (), ("sign",)]
    assert "exit code 3" in done[1].error


def test_the_default_corpus_is_this_one():
    assert load("tests.mutation").rules is RULES
    with pytest.raises(FnnError, match=r"no\.such"):
        load("no.such")
