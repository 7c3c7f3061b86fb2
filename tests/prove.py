"""Prove everything, and keep a record of which op was proven, from which sources, on which jax.

    python -m tests.prove                  # all ops, then all that takes long: hours
    python -m tests.prove --changed        # the ops that differ from the record, and nothing else
    python -m tests.prove relu conv        # these ops
    python -m tests.prove --changed --drawn 1 --check    # as CI does: the record stays as it is

An op is proven whole: its examples together, with all questions, then every one by itself, in
float64, float32 and bfloat16, through all transforms; a fault of 10⁻⁶ in every term of every
example's rules, there and back; and the op on meshes. An entry is written as soon as an op is
proven, so a stopped run continues where it was. An entry counts only for the sources and versions
that it names.
"""

import argparse
import ast
import hashlib
import importlib.metadata
import io
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
import tokenize
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests" / "proven.json"
EACH: dict[str, Any] = {
    "dtypes": ("float32", "bfloat16"),
    "skip": ("jit", "cost", "devices"),
}
"""How each example is verified by itself: these questions are asked of all examples together."""
BASIS = (
    "fnn/custom_op.py",
    "fnn/example.py",
    "tests/faults.py",
    "tests/prove.py",
    "tests/test_ops_meshes.py",
)
"""What every op's proof depends on, with the verifier and all that these import."""
LONG = {
    "tests marked prove": ("pytest", "-q", "-n", "2", "-m", "prove"),
    "mutation corpus": ("tests.mutation",),
    "correct rules": ("tests.mutation", "--operators", "--false-alarms"),
    "planted faults": ("tests.power",),
    "kills": ("tests.kills", "--kills", "200"),
    "mutated configs": ("tests.fuzz_configs", "--examples", "10000"),
}
"""What else `make prove` runs: modules with their arguments."""


# The sources that a proof depends on


@cache
def imports(path: Path) -> frozenset[Path]:
    """Return the files of this project that a file imports."""
    package = ".".join(path.relative_to(ROOT).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *filter(None, [node.module])]) if node.level else node.module
            names.update([base or "", *(f"{base}.{alias.name}" for alias in node.names)])
    files = (
        ROOT / name.replace(".", "/") for name in names if name.split(".")[0] in ("fnn", "tests")
    )
    return frozenset(
        f for p in files for f in (p.with_suffix(".py"), p / "__init__.py") if f.exists()
    )


def closure(paths: Iterable[Path]) -> set[Path]:
    """Return files and all that they import, but for the package's own front doors."""
    doors = {ROOT / "fnn" / "__init__.py", ROOT / "fnn" / "ops" / "__init__.py"}
    waiting, files = list(paths), set()
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.add(path)
            waiting += imports(path) - doors
    return files


def code(path: Path) -> str:
    """Return a file without comments and docstrings, which change nothing that is proven."""
    text = path.read_text()
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        value = getattr(node, "value", None)
        if isinstance(node, ast.Expr) and isinstance(value, ast.Constant):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            lines[first:last] = [""] * (last - first)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def digest(op: Any) -> str:
    """Return a digest of the sources that an op's proof depends on."""
    own = Path(sys.modules[op.__module__].__file__ or "")
    files = closure([own, *(ROOT / name for name in BASIS)])
    others = {ROOT / "fnn" / "ops" / f"{name}.py" for name in _ops_files()} - closure([own])
    files = (files - others) | set((ROOT / "fnn" / "verify").rglob("*.py"))
    summed = hashlib.sha256()
    for path in sorted(files):
        summed.update(f"{path.relative_to(ROOT)}\0{code(path)}\0".encode())
    return summed.hexdigest()[:16]


def _ops_files() -> set[str]:
    return {path.stem for path in (ROOT / "fnn" / "ops").glob("*.py")}


def version() -> str:
    """Return the version of jax, with which records are kept apart."""
    return importlib.metadata.version("jax")


# The record


def read() -> dict[str, dict[str, Any]]:
    """Return the record: by version of jax and by op, what was proven."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def write(record: dict[str, dict[str, Any]]) -> None:
    """Write the record, an op a line, under another name first."""
    lines = [
        f" {json.dumps(jax)}: {{\n"
        + ",\n".join(
            f"  {json.dumps(op)}: {json.dumps(entry)}" for op, entry in sorted(ops.items())
        )
        + "\n }"
        for jax, ops in sorted(record.items())
    ]
    scratch = RECORD.with_suffix(".tmp")
    scratch.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    scratch.replace(RECORD)


def enter(op: str, entry: dict[str, Any] | None) -> None:
    """Enter an op in the record for this version of jax, or take it out."""
    record = read()
    ops = {name: known for name, known in record.get(version(), {}).items() if name != op}
    write(record | {version(): ops | ({op: entry} if entry else {})})


def differing(ops: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """Return the ops whose proof is not on record for these sources."""
    return [name for name, op in ops.items() if known.get(name, {}).get("sources") != digest(op)]


# One op


def prove(name: str) -> tuple[list[str], dict[str, Any]]:
    """Prove an op whole; return what is wrong, and the entry for the record."""
    start = time.perf_counter()
    from fnn.custom_op import OPS
    from fnn.verify.core import run

    from . import test_ops_meshes as meshes
    from .faults import missed_terms

    op, wrong, probes = OPS[name], [], 0
    sources = digest(op)  # before, for a file may change meanwhile
    numbers = [i for i, example in enumerate(op.examples) if "bench" not in example.tags]
    special = [i for i in numbers if op.examples[i].tags & {"kink", "extreme"}]
    alone = [i for i in numbers if i not in special]
    # All together with every question; then each by itself. A kink has no second derivative to be
    # compared, so those come after an ordinary example, of which that is asked.
    for chosen in (None, *([i] for i in alone), [*alone[:1], *special]):
        report = run(op, chosen=chosen, **({} if chosen is None else EACH))
        probes += report.probes
        if not report.ok:
            wrong.append(f"examples {chosen or 'together'}: {report}")
    missed, caught = missed_terms(op)
    wrong += [f"a fault of 1e-6 is not found: {term}" for term in missed]
    for case in meshes.CASES:
        if case[0] == name:
            try:
                meshes.check_split(case)
            except Exception as error:
                wrong.append(f"split over devices: {error}")
    entry = {
        "sources": sources,
        "on": date.today().isoformat(),
        "examples": len(numbers),
        "probes": probes,
        "faults": caught,
        "seconds": round(time.perf_counter() - start),
    }
    return wrong, entry


def proven(names: list[str]) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """Prove ops in as many processes as there are cores; yield each as it is done."""
    jobs = min(len(names), os.cpu_count() or 1)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            running = {pool.submit(prove, name): name for name in names}
            for done in as_completed(running):
                yield running[done], *done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# The command


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.prove", description=__doc__.split("\n")[0]
    )
    parser.add_argument("ops", nargs="*", help="these ops, and nothing else")
    parser.add_argument(
        "--changed", action="store_true", help="only ops that differ from the record"
    )
    parser.add_argument(
        "--drawn", type=int, default=0, metavar="N", help="and N ops drawn at random"
    )
    parser.add_argument("--check", action="store_true", help="leave the record as it is")
    return parser.parse_args()


def main() -> int:
    """Prove what is asked for; return the exit status."""
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    )
    from fnn.custom_op import OPS

    from .faults import NAMES

    options = arguments()
    ops = {name: OPS[name] for name in NAMES}
    if unknown := set(options.ops) - set(ops):
        print(f"there are no ops {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    known = read().get(version(), {})
    changed = differing(ops, known)
    names = options.ops or sorted(changed, key=lambda name: -known.get(name, {}).get("seconds", 0))
    recorded = [name for name in ops if name not in changed]
    drawn = random.sample(recorded, min(options.drawn, len(recorded)))
    print(
        f"jax {version()}: {len(recorded)} of {len(ops)} ops are on record as proven, "
        f"{len(set(ops) - set(known))} have never been; to prove: "
        f"{len(names)}" + (f", and drawn from the record: {', '.join(drawn)}" if drawn else ""),
        flush=True,
    )
    failed = []
    for name, wrong, entry in proven([*names, *drawn]) if names or drawn else ():
        claim = " though the record says that it is proven" if name in drawn and wrong else ""
        verdict = f"FAILED{claim}" if wrong else f"proven: {entry['examples']} examples"
        print(
            f"{name:34} {verdict}, {entry['probes']} probes, {entry['faults']} faults, "
            f"{entry['seconds']} s",
            flush=True,
        )
        print("".join(f"  {text}\n" for text in wrong), end="", flush=True)
        failed += [name] if wrong else []
        if not options.check:
            enter(name, None if wrong else entry)
    if not (options.ops or options.changed or options.check):
        failed += list(_long())
    print(f"{len(failed)} failed: {', '.join(failed)}" if failed else "all proven")
    return 1 if failed else 0


def _long() -> Iterator[str]:
    """Run what takes long; yield what fails."""
    for name, (module, *more) in LONG.items():
        start = time.perf_counter()
        print(f"{name}: python -m {' '.join([module, *more])}", flush=True)
        status = subprocess.run([sys.executable, "-m", module, *more], cwd=ROOT).returncode
        print(
            f"{name:34} {'FAILED' if status else 'passed'}, {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        if status:
            yield name


if __name__ == "__main__":
    sys.exit(main())
