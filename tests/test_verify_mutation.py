"""A slice of the mutation corpus, the sanity of its tables, and the command that runs it all."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace

import jax
import pytest

from fnn.errors import FnnError
from fnn.verify.defects import DEFECTS
from fnn.verify.mutation import __main__ as command
from fnn.verify.mutation import jobs
from fnn.verify.mutation.corpus import SAMPLE, Corpus, load
from fnn.verify.mutation.page import verdict
from fnn.verify.mutation.rivals import RIVALS, accepts, drawn, real_part
from fnn.verify.mutation.summary import summarise
from fnn.verify.mutation.trial import CleanTrial, Trial, try_clean, try_mutant

from .mutation.equivalent import EQUIVALENT
from .mutation.operators import OPERATORS
from .mutation.rules import RULES

CORPUS = Corpus(RULES, OPERATORS, EQUIVALENT)
NAMES = list(RULES)
BUILT: dict[str, Callable] = {}
"""Rules put together: what was compiled for them serves again."""


# The tables


def test_the_corpus_is_as_large_as_the_documents_say():
    assert len(RULES) >= 103
    assert len(OPERATORS) >= 169
    assert sum(bool(operator.bug) for operator in OPERATORS.values()) >= 51
    for table in (RULES, OPERATORS):
        assert all(name == one.name for name, one in table.items())


def test_every_operator_makes_known_defects_and_every_defect_is_made():
    for operator in OPERATORS.values():
        assert set() < operator.defects <= set(DEFECTS), operator.name
        assert not operator.bug or operator.bug.startswith("https://"), operator.name
    made = set().union(*(operator.defects for operator in OPERATORS.values()))
    assert set(DEFECTS) == made


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


OF_RELU = (
    {"sign": "negate/0", "factor": "one_billionth/0", "term": "spread/0"}
    | {"element": "wrong_middle/0", "order": "roll/0", "tail": "early_threshold/0"}
    | {"kink": "at_ties/0", "special value": "at_a_number/0", "geometry": "other_parity/0"}
    | {"size": "axis_of_one/0", "not linear": "square/dy", "affine": "add_tiny/0"}
    | {"scale-dependent": "scale_down/dy", "dtype": "always_bfloat16/0"}
    | {"complex": "complex_for_real/0", "weak type": "weak_cotangent/0"}
    | {"structure": "bare_cotangent/only", "forward value": "forward_scaled/y0"}
    | {"forward type": "forward_dtype/y0", "rounding": "half_upstream/dy"}
    | {"overflow": "square_and_root/0", "leakage": "touch_other_rows/0"}
    | {"nondeterminism": "noise_while_tracing/0", "jit": "wrong_when_eager/0"}
    | {"vmap": "averaged_batch/0", "remat": "ordered_effect/count", "scan": "weak_forward/y0"}
    | {"x64": "default_dtype/0", "devices": "wrong_when_split/0", "memory": "one_hot_product/0"}
    | {"fails": "stashed_residuals/residuals", "second order": "stopped_cotangent/0"}
)
FAULTS = {defect: f"relu_where/{fault}" for defect, fault in OF_RELU.items()} | {
    "cancellation": "logsumexp/large_detour/0",
    "unperturbed": "where_select/all_or_nothing/arguments",
    "integer slot": "where_select/integers_for_integers/0",
    "tracer": "where_select/nondiff_array/0",
    "residuals": "tanh/bulky_residuals/residuals",
    "broadcast": "subtract_row/average_copies/0:reduce_sum",
    "ignored output": "maximum_last/ignore_output/y0",
    "nan": "safe_sqrt/root_of_negatives/rule",
}
"""A fault of every defect, in a rule that compiles soon: rule, operator and label."""

ELSEWHERE = {
    *("tail", "kink", "special value", "geometry", "size"),
    *("overflow", "leakage", "vmap", "memory"),
}
"""Defects that only other numbers and shapes than those given may show."""

OF_TANH = (
    {"double/0": "factor", "lose_summand/0:sub[0]": "term", "at_zero/0": "special value"}
    | {"lose_remainder/0": "geometry", "empty_raises/0": "size"}
    | {"drop_tiny/dy": "scale-dependent", "complex_for_real/0": "complex"}
    | {"bare_cotangent/only": "structure", "forget_sum/0": "structure"}
    | {"forward_scaled/y0": "forward value", "bfloat16_residuals/bfloat16": "rounding"}
    | {"large_detour/0": "cancellation", "noise_while_tracing/0": "nondeterminism"}
    | {"stopped_residuals/residuals": "second order"}
)
MORE = {f"tanh/{fault}": defect for fault, defect in OF_TANH.items()} | {
    "relu_where/lose_last/0": "element",
    "relu_where/hide_nan/dy": "not linear",
    "turn/conjugate/0": "complex",
    "multiply_column/all_or_nothing/arguments": "unperturbed",
}
"""More faults of some of the defects; the command tries all."""


def test_every_defect_is_planted():
    assert set(FAULTS) == set(DEFECTS)
    for defect, fault in [*FAULTS.items(), *((d, f) for f, d in MORE.items())]:
        assert defect in OPERATORS[fault.split("/")[1]].defects, fault


def of_a_rule(*values, prove=False):
    """Test values that one worker takes with the others of the rule: they share its programs."""
    rule = values[0].partition("/")[0]
    marks = [pytest.mark.xdist_group(rule), *([pytest.mark.prove] if prove else [])]
    return pytest.param(*values, marks=marks, id="-".join(values))


@pytest.mark.parametrize(
    ("fault", "defect"),
    [
        *(of_a_rule(fault, defect) for defect, fault in FAULTS.items()),
        *(of_a_rule(*row, prove=True) for row in MORE.items()),
    ],
)
def test_a_fault_is_found_and_named(fault, defect):
    rule, operator, label = fault.split("/")
    mutant = next(m for m in CORPUS.mutants(rule, operator) if m.label == label)
    trial = try_mutant(mutant, vary=defect in ELSEWHERE)
    assert trial.killed, f"{trial.name} survives: {trial.error}"
    assert trial.named, f"{trial.name}: {trial.found}, not {sorted(trial.expected)}"


SOUND = [
    *("relu_where", "tanh", "absolute", "relu_jvp", "maximum_last", "where_select"),
    "flash_attention",
]
"""Rules that compile soon, the first in every dtype; `--false-alarms` tries all of them."""


@pytest.mark.parametrize(
    ("rule", "dtype"),
    [of_a_rule(*row, prove=row[0] != SOUND[0]) for row in itertools.product(SOUND, command.DTYPES)],
)
def test_a_correct_rule_raises_no_alarm(rule, dtype):
    trial = try_clean(RULES[rule], dtype, function=BUILT.setdefault(rule, RULES[rule].build()))
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
    assert summarise([trial(equivalent="no change at all", found=())], [])["ok"]
    alarm = CleanTrial("tanh", "float32", 0, error="it fell")
    wrong = [trial(found=()), trial(found=("term", "sign")), trial(equivalent="no change at all")]
    for bad in (*(([one], []) for one in wrong), ([trial()], [alarm])):
        assert not summarise(*bad)["ok"], bad


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
    whole = jobs.Plan("tests.mutation", tuple(NAMES[:4]), tuple(OPERATORS)[:4], ("float16",), 2)
    plans = [dataclasses.replace(whole, part=k, parts=3) for k in range(3)]
    parts = [made(plan, monkeypatch) for plan in plans]
    whole = made(whole, monkeypatch)
    assert sorted(itertools.chain(*parts)) == whole
    assert all(parts)


def test_a_sample_is_small_and_always_the_same():
    chosen = CORPUS.sample(NAMES, "negate")
    assert len({rule for rule, _ in chosen}) == len(chosen) == SAMPLE
    assert chosen == CORPUS.sample(NAMES[::-1], "negate")
    for rule, label in chosen:
        assert label in [m.label for m in CORPUS.mutants(rule, "negate")]
    assert CORPUS.sample(NAMES, "softplus_at_zero") == [("softplus", "rule")]
    assert CORPUS.sample(["tanh"], "softplus_at_zero") == []


def test_a_sample_tries_one_mutant_of_a_rule(monkeypatch):
    names = "tests.mutation", tuple(NAMES), ("double", "negate")
    plans = [jobs.Plan(*names, part=k, parts=3, sample=True) for k in range(3)]
    tried = [trial for plan in plans for trial in made(plan, monkeypatch) if "Trial" in trial]
    assert len(tried) == 2 * SAMPLE


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


@pytest.mark.parametrize("timed", [False, pytest.param(True, marks=pytest.mark.prove)])
def test_the_command_prints_and_writes_its_summary(timed, monkeypatch, capsys, tmp_path):
    if not timed:  # a correct rule is verified twice, from cold
        monkeypatch.setattr(jobs, "try_clean", lambda rule, *run: CleanTrial(rule.name, *run[:2]))
    file = tmp_path / "found.json"
    call = ["--rules", NAMES[0], "--operators", "bare_cotangent", "--jobs", "1", "--compare"]
    monkeypatch.setattr(sys, "argv", ["mutation", *call, "--json", str(file)])
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

    broken = SimpleNamespace(name="broken", defects=frozenset({"term"}), make=make)
    worker.corpus = Corpus(RULES, {"broken": broken}, {})
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
        yield label, rule.replace(bwd=lambda *call, last=last: last(3) and rule.bwd(*call)[0])

OPERATORS = {"bare": SimpleNamespace(name="bare", defects=frozenset({"structure"}), make=make)}
"""


def test_a_mutant_that_ends_its_process_is_a_survivor_by_name(monkeypatch, tmp_path):
    folder = tmp_path / "deadly"
    folder.mkdir()
    for part in ("__init__", "rules", "operators", "equivalent"):
        (folder / f"{part}.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    plan = jobs.Plan("deadly", ("tanh",), ("bare",))
    (done,) = jobs.carry_out(plan, [jobs.Task("tanh", "bare")], jobs=2)
    found = {t.label: t.found for t in done}
    assert found == {"first": ("structure",), "deadly": (), "last": ("structure",)}
    assert "exit code 3" in done[1].error


def test_the_default_corpus_is_this_one():
    assert load("tests.mutation").rules is RULES
    with pytest.raises(FnnError, match=r"no\.such"):
        load("no.such")
