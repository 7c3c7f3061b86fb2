"""The command: `python -m fnn.verify.mutation`, from the repository's root."""

import argparse
import json
import os
import sys
from pathlib import Path

from ...errors import FnnError
from .corpus import SAMPLE, chosen, load
from .jobs import Plan, carry_out, tasks
from .page import show
from .progress import Progress
from .rivals import require
from .summary import summarise
from .trial import CleanTrial, Trial

DTYPES = ("float64", "float32", "bfloat16", "float16")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fnn.verify.mutation",
        description="Plant faults in correct rules, and see which ones fnn.verify finds.",
        epilog="Exit status 1: too few faults found or rightly named, or a false alarm.",
    )
    add = parser.add_argument
    add("corpus", nargs="?", default="tests.mutation", help="its package (default %(default)s)")
    add("--rules", nargs="+", metavar="NAME", help="these rules alone")
    add("--operators", nargs="*", metavar="NAME", help="these faults alone; no name: none")
    add(
        "--all",
        action="store_true",
        help=f"every mutant, some 14,000 that take hours; else one a rule, and {SAMPLE} rules an "
        "operator at most: some 1,000, the same each time",
    )
    add("--false-alarms", action="store_true", help="try correct rules with every seed and dtype")
    add("--seeds", type=int, default=20, metavar="N", help="how many (default %(default)s)")
    add(
        "--dtypes",
        nargs="+",
        choices=DTYPES,
        default=DTYPES,
        metavar="DTYPE",
        help=", ".join(DTYPES),
    )
    add("--compare", action="store_true", help="give the same to other gradient checkers")
    add("--slice", default="1/1", metavar="K/N", help="one of N equal parts of all trials")
    jobs = os.cpu_count() or 1
    add("--jobs", type=int, default=jobs, metavar="N", help="processes (default %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the summary here as well")
    return parser.parse_args()


def plan(given: argparse.Namespace) -> Plan:
    """Turn the command line into what to run."""
    corpus = load(given.corpus)
    part, slash, parts = given.slice.partition("/")
    if not (slash and part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise FnnError(f"--slice is {given.slice!r}, expected K/N such as 1/10, K from 1 to N")
    if given.json and not given.json.parent.is_dir():
        raise FnnError(f"--json: there is no folder {given.json.parent} to write {given.json} in")
    if given.compare:
        require()
    return Plan(
        given.corpus,
        chosen("rule", given.rules, corpus.rules),
        chosen("operator", given.operators, corpus.operators),
        tuple(given.dtypes) if given.false_alarms else (),
        given.seeds if given.false_alarms else 0,
        given.compare,
        *(int(part) - 1, int(parts)),
        sample=not given.all,
    )


def run(given: argparse.Namespace) -> bool:
    """Carry the command out; return whether all is well."""
    what = plan(given)
    trials: list[Trial] = []
    cleans: list[CleanTrial] = []
    todo = tasks(what)
    with Progress(len(todo)) as progress:
        for done in carry_out(what, todo, given.jobs):
            trials += [t for t in done if isinstance(t, Trial)]
            cleans += [c for c in done if isinstance(c, CleanTrial)]
            progress.step(done)
    found = summarise(
        sorted(trials, key=lambda t: t.name), sorted(cleans, key=lambda c: (c.rule, c.seed))
    )
    show(found, given.jobs)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return found["ok"]


def main() -> None:
    """Run the command: a mistake is one message and exit status 2."""
    # Before JAX makes its first array: on one device, a fault in splitting would not show.
    flags = os.environ.get("XLA_FLAGS", "")
    if "host_platform_device_count" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=4"
    try:
        ok = run(arguments())
    except (FnnError, OSError) as error:
        print(f"fnn.verify.mutation: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("fnn.verify.mutation: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
