"""The corpus of mutants is sound, the verifier finds a part of it, and the command that runs it."""

import itertools
import json
import os
import random
from types import SimpleNamespace

import jax
import pytest

from fnn.verifier.defects import DEFECTS

from .mutation import __main__ as command
from .mutation.equivalent import EQUIVALENT
from .mutation.operators import OPERATORS
from .mutation.processes import results
from .mutation.rivals import RIVALS, accepts, draw_arguments, real_part
from .mutation.rules import RULES
from .mutation.summary import Summary
from .mutation.trial import SAMPLE, Trial, carry_out, faulty_trials, labels

NAMES = list(RULES)


# The tables


def test_the_corpus_is_as_large_as_the_documents_say():
    assert len(RULES) >= 103
    assert len(OPERATORS) >= 169
    assert sum(bool(operator.bug) for operator in OPERATORS.values()) >= 51
    for table in (RULES, OPERATORS):
        assert all(name == entry.name for name, entry in table.items())


def test_every_operator_has_known_defects_and_every_defect_has_an_operator():
    for operator in OPERATORS.values():
        assert set() < operator.defects <= set(DEFECTS), operator.name
        assert not operator.bug or operator.bug.startswith("https://"), operator.name
    assert set(DEFECTS) == set().union(*(operator.defects for operator in OPERATORS.values()))


def test_equivalent_mutants_exist_and_have_a_reason():
    for (rule, operator, label), reason in EQUIVALENT.items():
        places = labels(rule, operator)
        assert places if label == "*" else label in places, (rule, operator, label)
        assert len(reason.split()) > 3


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_runs_on_its_own_arguments(name):
    rule = RULES[name]
    with jax.numpy_dtype_promotion("standard"):
        function, arrays = real_part(rule.build(), draw_arguments(rule, "float32", 0))
        assert jax.eval_shape(function, *arrays)


# The verifier on a part of it


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
"""One fault per defect, in a rule that compiles fast: rule, operator and label."""

ELSEWHERE = {
    *("tail", "kink", "special value", "geometry", "size"),
    *("overflow", "leakage", "vmap", "memory"),
}
"""Defects that may show only at other numbers and shapes than those of the arguments."""

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
"""More faults of some of the defects."""


def test_every_defect_has_a_fault():
    assert set(FAULTS) == set(DEFECTS)
    for defect, fault in [*FAULTS.items(), *((d, f) for f, d in MORE.items())]:
        assert defect in OPERATORS[fault.split("/")[1]].defects, fault


def group_by_rule(*values, prove=False):
    """Return parameters that one worker takes with the others of the rule, to share programs."""
    rule = values[0].partition("/")[0]
    marks = [pytest.mark.xdist_group(rule), *([pytest.mark.prove] if prove else [])]
    return pytest.param(*values, marks=marks, id="-".join(values))


@pytest.mark.parametrize(
    ("fault", "defect"),
    [
        *(group_by_rule(fault, defect) for defect, fault in FAULTS.items()),
        *(group_by_rule(*row, prove=True) for row in MORE.items()),
    ],
)
def test_a_fault_is_found_and_named(fault, defect):
    trial = carry_out(Trial(*fault.split("/", 2)), vary=defect in ELSEWHERE)
    assert trial.is_killed, trial.error
    assert trial.is_named, f"{trial.defects}, not {sorted(trial.right_names)}"


CORRECT = [
    *("relu_where", "tanh", "absolute", "relu_jvp", "maximum_last", "where_select"),
    "flash_attention",
]
"""Rules that compile fast, the first in every dtype; `--false-alarms` tries all of them."""


@pytest.mark.parametrize(
    ("rule", "dtype"),
    [
        group_by_rule(*row, prove=row[0] != CORRECT[0])
        for row in itertools.product(CORRECT, command.DTYPES)
    ],
)
def test_a_correct_rule_raises_no_alarm(rule, dtype):
    trial = carry_out(Trial(rule, dtype=dtype))
    assert not trial.is_false_alarm, trial.error + trial.report


def test_an_operator_that_fails_is_a_survivor_by_name(monkeypatch):
    def make(rule):
        raise KeyError("missing")
        yield

    broken = SimpleNamespace(name="broken", defects=frozenset({"term"}), make=make)
    monkeypatch.setitem(OPERATORS, "broken", broken)
    (trial,) = faulty_trials(["tanh"], True, "broken")
    trial = carry_out(trial)
    assert trial.is_survivor
    assert trial.error == "the operator fails: KeyError: 'missing'"


# The other checkers


@pytest.mark.parametrize("checker", RIVALS)
def test_another_checker_accepts_a_correct_rule_and_rejects_a_wrong_one(checker):
    rule = RULES["tanh"]
    wrong = rule.replace(bwd=lambda *args: jax.tree.map(lambda ct: -ct, rule.bwd(*args)))
    assert accepts(checker, rule, "float64", seed=0)
    assert not accepts(checker, wrong, "float64", seed=0)


# The command


MUTANT = Trial("tanh", "negate", "0", defects=("sign",))
SURVIVOR = Trial("tanh", "negate", "0")
MISNOMER = Trial("tanh", "negate", "0", defects=("term", "sign"))
EQUIVALENT_MUTANT = Trial(*next(iter(EQUIVALENT)))


def test_the_bars_decide():
    correct = Trial("tanh", seconds=(2.0, 1.0))
    for good in ([MUTANT, correct], [EQUIVALENT_MUTANT], [correct]):
        assert Summary(good).ok, good
    alarm = Trial("tanh", error="ValueError")
    rejected = Trial(*next(iter(EQUIVALENT)), defects=("term",))
    for bad in ([SURVIVOR], [MISNOMER], [rejected], [MUTANT, alarm]):
        assert not Summary(bad).ok, bad


def test_a_share_is_not_rounded_up_to_the_whole():
    summary = Summary([MUTANT] * 9999 + [SURVIVOR])
    assert summary.survivors == [SURVIVOR]
    assert "10,000 mutants" in summary.verdict
    assert "99.9 % killed" in summary.verdict
    assert summary.verdict.endswith("ok")


def select(*words):
    """The trials of a command line."""
    return command.select(command.arguments([*words, "--jobs", "1"]))


def test_the_slices_are_the_whole():
    words = ["--rules", *NAMES[:4], "--operators", *list(OPERATORS)[:4], "--all"]
    words += ["--false-alarms", "--dtypes", "float16", "--seeds", "2"]
    parts = [select(*words, "--slice", f"{part}/3") for part in (1, 2, 3)]
    assert sorted(itertools.chain(*parts)) == sorted(select(*words))
    assert all(parts)


def test_a_sample_is_small_and_always_the_same():
    trials = faulty_trials(NAMES, True, "negate")
    assert len({trial.rule for trial in trials}) == len(trials) == SAMPLE
    assert trials == faulty_trials(random.sample(NAMES, len(NAMES)), True, "negate")
    for trial in trials:
        assert trial.label in labels(trial.rule, "negate")
    assert faulty_trials(NAMES, True, "softplus_at_zero") == [
        Trial("softplus", "softplus_at_zero", "rule")
    ]
    assert faulty_trials(["tanh"], True, "softplus_at_zero") == []
    assert sum(bool(t.operator) for t in select("--operators", "double", "negate")) == 2 * SAMPLE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rules", "no_such"], "--rules: there is no 'no_such'"),
        (["--operators", "negat"], "--operators: there is no 'negat'; did you mean 'negate'?"),
        (["--slice", "3/2"], "expected K/N"),
    ],
)
def test_a_wrong_word_is_refused(words, message, capsys):
    with pytest.raises(SystemExit) as error:
        command.arguments(words)
    assert error.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_command_prints_and_writes_its_trials(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(  # a correct rule would be verified twice, from cold
        command,
        "carry_out_in_turn",
        lambda compare, trial: carry_out(trial, compare) if trial.operator else trial,
    )
    file = tmp_path / "trials.json"
    words = ["--rules", "tanh", "--operators", "bare_cotangent", "--jobs", "1", "--compare"]
    status = command.main([*words, "--json", str(file)])
    printed = capsys.readouterr().out
    assert status == 0, printed
    correct, mutant = json.loads(file.read_text())
    assert (correct["operator"], correct["defects"]) == ("", [])
    assert (mutant["operator"], mutant["defects"]) == ("bare_cotangent", ["structure"])
    assert "mutants by operator" in printed
    assert "jax check_grads float64" in printed
    assert printed.splitlines()[-1].endswith("ok")


def die_at_three(number):
    return os._exit(3) if number == 3 else number


def test_an_item_that_ends_its_process_is_the_only_loss():
    numbers = set(results(die_at_three, range(6), 2, lambda number, why: (number, why)))
    assert numbers == {0, 1, 2, (3, "its process died, exit code 3"), 4, 5}
