"""Prove all ops, and record which op is proven, for which sources and which version of jax.

    python -m tests.prove                  # all ops, then everything else that is slow: hours
    python -m tests.prove --changed        # the ops that differ from the record, and nothing else
    python -m tests.prove relu conv        # these ops
    python -m tests.prove --changed --drawn 1 --check    # as CI does: the record stays as it is

The proof of an op has three parts. The verifier asks all questions of its examples together, then
of each example alone, in float64, float32 and bfloat16, through all transforms. A fault of 10⁻⁶ is
planted in every term of every example's rule, forward and backward. The op runs on meshes.
Each op is recorded as soon as it is proven, so an interrupted run continues where it stopped. A
record counts only for the sources and the version of jax that it names.
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
"""How each example is verified alone; the questions left out are asked of all together."""
BASIS = (
    "fnn/custom_op.py",
    "fnn/example.py",
    "tests/faults.py",
    "tests/prove.py",
    "tests/test_ops_meshes.py",
)
"""Files that every op's proof depends on, besides the verifier and the files these import."""
LONG = {
    "tests marked prove": ("pytest", "-q", "-n", "2", "-m", "prove"),
    "mutation corpus": ("tests.mutation",),
    "correct rules": ("tests.mutation", "--operators", "--false-alarms"),
    "planted faults": ("tests.power",),
    "kills": ("tests.kills", "--kills", "200"),
    "mutated configs": ("tests.fuzz_configs", "--examples", "10000"),
}
"""Modules that `make prove` runs after the ops, with their arguments."""


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
    """Return files and all that they import, except the `__init__.py` of fnn and of its ops."""
    doors = {ROOT / "fnn" / "__init__.py", ROOT / "fnn" / "ops" / "__init__.py"}
    queue, files = list(paths), set()
    while queue:
        path = queue.pop()
        if path not in files:
            files.add(path)
            queue += imports(path) - doors
    return files


def code(path: Path) -> str:
    """Return a file without comments and docstrings, which no proof depends on."""
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
    others = set((ROOT / "fnn" / "ops").glob("*.py")) - closure([own])
    files = (files - others) | set((ROOT / "fnn" / "verifier").rglob("*.py"))
    sha256 = hashlib.sha256()
    for path in sorted(files):
        sha256.update(f"{path.relative_to(ROOT)}\0{code(path)}\0".encode())
    return sha256.hexdigest()[:16]


def version() -> str:
    """Return the version of jax; each has its own record."""
    return importlib.metadata.version("jax")


# The record


def read() -> dict[str, dict[str, Any]]:
    """Return the record: an entry per version of jax and op."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def write(record: dict[str, dict[str, Any]]) -> None:
    """Write the record, one op per line; a temporary file then replaces it."""
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
    """Enter an op in the record for this version of jax, or remove it."""
    record = read()
    ops = {name: value for name, value in record.get(version(), {}).items() if name != op}
    write(record | {version(): ops | ({op: entry} if entry else {})})


def stale(ops: dict[str, Any], entries: dict[str, Any]) -> list[str]:
    """Return the ops whose proof is not on record for these sources."""
    return [name for name, op in ops.items() if entries.get(name, {}).get("sources") != digest(op)]


# One op


def prove(name: str) -> tuple[list[str], dict[str, Any]]:
    """Prove an op; return what is wrong, and the entry for the record."""
    start = time.perf_counter()
    from fnn.custom_op import OPS
    from fnn.verifier.core import run

    from . import test_ops_meshes as meshes
    from .faults import missed_terms

    op, wrong, probes = OPS[name], [], 0
    sources = digest(op)  # first, since a file may change during the proof
    numbers = [i for i, example in enumerate(op.examples) if "bench" not in example.tags]
    special = [i for i in numbers if op.examples[i].tags & {"kink", "extreme"}]
    alone = [i for i in numbers if i not in special]
    # All together with every question; then each alone. A kink has no second derivative to compare,
    # so kinks run behind one ordinary example, which answers that question.
    for subset in (None, *([i] for i in alone), [*alone[:1], *special]):
        report = run(op, chosen=subset, **({} if subset is None else EACH))
        probes += report.probes
        if not report.ok:
            wrong.append(f"examples {subset or 'together'}: {report}")
    terms, faults = missed_terms(op)
    wrong += [f"a fault of 1e-6 is not found: {term}" for term in terms]
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
        "faults": faults,
        "seconds": round(time.perf_counter() - start),
    }
    return wrong, entry


def proven(names: list[str]) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """Prove ops in as many processes as there are cores; yield the result of each as it ends."""
    jobs = min(len(names), os.cpu_count() or 1)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            futures = {pool.submit(prove, name): name for name in names}
            for future in as_completed(futures):
                yield futures[future], *future.result()
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
    """Run the command; return its exit status."""
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
    entries = read().get(version(), {})
    to_prove = stale(ops, entries)
    names = options.ops or sorted(to_prove, key=lambda n: -entries.get(n, {}).get("seconds", 0))
    valid = [name for name in ops if name not in to_prove]
    again = random.sample(valid, min(options.drawn, len(valid)))
    print(
        f"jax {version()}: {len(valid)} of {len(ops)} ops are on record as proven, "
        f"{len(set(ops) - set(entries))} have no record; to prove: "
        f"{len(names)}" + (f", and drawn from the record: {', '.join(again)}" if again else ""),
        flush=True,
    )
    failures = []
    for name, wrong, entry in proven([*names, *again]) if names or again else ():
        claim = " though the record says that it is proven" if name in again and wrong else ""
        verdict = f"FAILED{claim}" if wrong else f"proven: {entry['examples']} examples"
        print(
            f"{name:34} {verdict}, {entry['probes']} probes, {entry['faults']} faults, "
            f"{entry['seconds']} s",
            flush=True,
        )
        print("".join(f"  {text}\n" for text in wrong), end="", flush=True)
        failures += [name] if wrong else []
        if not options.check:
            enter(name, None if wrong else entry)
    if not (options.ops or options.changed or options.check):
        failures += _long()
    print(f"{len(failures)} failed: {', '.join(failures)}" if failures else "all proven")
    return 1 if failures else 0


def _long() -> Iterator[str]:
    """Run the modules of `LONG`; yield the names of those that fail."""
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
