"""How good is the verifier? Faults are planted in correct rules, and its verdicts are counted.

    python -m tests.mutation                              # a sample: one mutant per rule
    python -m tests.mutation --all                        # every fault in every rule: hours
    python -m tests.mutation --compare                    # other checkers on the same
    python -m tests.mutation --operators --false-alarms   # correct rules alone

Every command verifies each correct rule once in float32, and times it.
"""

import argparse
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from fnn.errors import did_you_mean

from .operators import OPERATORS
from .processes import results
from .rules import RULES
from .summary import Summary
from .trial import SAMPLE, TIMED, Trial, carry_out_in_turn, faulty_trials, lot

DTYPES = ("float64", "float32", "bfloat16", "float16")
SILENCE = 60.0
"""Seconds between two lines of progress."""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description="Plant faults in correct rules, and count those that fnn.verify finds.",
        epilog="Exit status 1: too few faults found or rightly named, or a false alarm.",
    )
    add = parser.add_argument
    every = "every mutant, some 14,000 that take hours; otherwise at most one per rule and operator"
    every += f", and {SAMPLE} per operator: some 1,000, the same each time"
    rules = {"type": name_in(RULES), "default": list(RULES), "metavar": "NAME"}
    operators = {"type": name_in(OPERATORS), "default": list(OPERATORS), "metavar": "NAME"}
    add("--rules", nargs="+", **rules, help="only these rules")
    add("--operators", nargs="*", **operators, help="only these faults; without a name, none")
    add("--all", action="store_true", help=every)
    add("--false-alarms", action="store_true", help="try correct rules with every seed and dtype")
    add("--seeds", type=int, default=20, metavar="N", help="their number (default %(default)s)")
    add("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, metavar="DTYPE", help="their dtypes")
    add("--compare", action="store_true", help="try other gradient checkers as well")
    add("--slice", type=one_of, default=(1, 1), metavar="K/N", help="one of N parts of all trials")
    jobs = os.cpu_count() or 1
    add("--jobs", type=int, default=jobs, metavar="N", help="processes (default %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write every trial here as well")
    return parser.parse_args(argv)


def name_in(table: Collection[str]) -> Callable[[str], str]:
    """Return a check that a word of the command line is in a table."""

    def check(name: str) -> str:
        if name not in table:
            raise argparse.ArgumentTypeError(f"there is no {name!r}{did_you_mean(name, table)}")
        return name

    return check


def one_of(text: str) -> tuple[int, int]:
    """Return K and N of "K/N"."""
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected K/N such as 1/10, K from 1 to N")
    return int(part), int(parts)


def select(options: argparse.Namespace) -> list[Trial]:
    """Return the trials that the command line asks for, those of one rule side by side.

    A trial is dealt to a slice by its name, and so stays there as the tables grow.
    """
    runs = dict.fromkeys([TIMED])
    if options.false_alarms:
        runs |= dict.fromkeys(itertools.product(options.dtypes, range(options.seeds)))
    trials = [Trial(rule, dtype=dtype, seed=seed) for rule in options.rules for dtype, seed in runs]
    listing = functools.partial(faulty_trials, options.rules, not options.all)
    for mutants in results(listing, options.operators, options.jobs, _fail):
        trials += mutants
    part, parts = options.slice
    return sorted(trial for trial in trials if lot(*trial.key) % parts == part - 1)


def _fail(operator: str, why: str) -> list[Trial]:
    raise RuntimeError(f"{operator}: {why}")


def show_progress(trials: Iterable[Trial], total: int) -> Iterator[Trial]:
    """Yield the trials; print survivors and false alarms at once, and the count now and then."""
    start = before = time.perf_counter()
    for count, trial in enumerate(trials, 1):
        if trial.is_survivor or trial.is_false_alarm:
            verdict = "survivor" if trial.is_survivor else "false alarm"
            print(f"{verdict}: {trial.name}", file=sys.stderr, flush=True)
        now = time.perf_counter()
        if now - before > SILENCE or count == total:
            print(f"{count}/{total} trials in {now - start:.0f} s", file=sys.stderr, flush=True)
            before = now
        yield trial


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = arguments(argv)
    # Before JAX makes its first array: on one device, a fault in splitting would not show.
    flags = os.environ.get("XLA_FLAGS", "")
    if "host_platform_device_count" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=4"
    trials = select(options)
    work = functools.partial(carry_out_in_turn, options.compare)
    lose = lambda trial, why: replace(trial, error=why)  # noqa: E731
    summary = Summary(list(show_progress(results(work, trials, options.jobs, lose), len(trials))))
    summary.show(options.jobs)
    if options.json:
        options.json.write_text(json.dumps([asdict(t) for t in summary.trials], indent=1) + "\n")
    return 0 if summary.ok else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
