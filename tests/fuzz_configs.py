"""Mutated configs: each is accepted, or refused with one clear message.

    python -m tests.fuzz_configs --examples 10000 --seed 0

Each mutant (see `tests/mutants.py`) is parsed and prepared, as `fnn run` does before it writes
anything. A fault breaks the promise of `judge`; the first fault of each kind is printed with its
mutant. Every 20th mutant, if refused, is also passed to `fnn run`. The exit status is 1 after a
fault. 10 000 mutants take about ten minutes on one core; another `--seed` gives other mutants.
"""

import argparse
import contextlib
import functools
import io
import os
import re
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import sklearn.datasets
from hypothesis import HealthCheck, Phase, assume, given, seed, settings

from fnn import cli
from fnn.config import dump, parse
from fnn.errors import FnnError, printable
from fnn.runs.prepare import prepare

from .mutants import ROOT, SCHEMA, Mutant, mutants

FILE = "mutant.yaml"
SECONDS, BYTES = 10.0, 2**30
"""The limits of one mutant: about a hundred times the need of a shipped config."""
EVERY = 20
SETTINGS = settings(
    database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
SMALL = {  # bounds of the synthetic datasets, which could otherwise have gigabytes
    "fnn.data.synthetic.MAX_POINTS": 20_000,
    "fnn.data.synthetic.MAX_COPIES": 10_000,
    "fnn.data.synthetic.MAX_NUMBERS": 5_000_000,
    "fnn.data.signals.MAX_NUMBERS": 1_000_000,
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = {
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"),
    *("os.chmod", "os.chown", "os.system", "os.exec", "os.posix_spawn", "os.fork"),
    *("subprocess.Popen", "socket.connect", "pickle.find_class", "shutil.rmtree"),
}


class Fault(Exception):
    """A mutant breaks the promise of `judge`."""


class _TooLong(BaseException):
    """Raised by the alarm; no `except Exception` stops it."""


def _is_forbidden(event: str, arguments: tuple) -> bool:
    """Say whether an event writes or starts a program; JAX may write compiled programs."""
    programs = jax.config.jax_compilation_cache_dir
    if programs and str(arguments[0] if arguments else "").startswith(programs):
        return False
    return event in FORBIDDEN or (event == "open" and bool(int(arguments[2] or 0) & WRITES))


@functools.cache
def _watched() -> list[list[str]]:
    """Return a list; the last list in it gets every write and every program started."""
    watched: list[list[str]] = []

    def hook(event: str, arguments: tuple) -> None:
        if watched and _is_forbidden(event, arguments):
            watched[-1].append(f"{event} {arguments[:1]}")

    sys.addaudithook(hook)
    return watched


@contextlib.contextmanager
def nothing_done() -> Iterator[None]:
    """Raise Fault if the body writes anything or starts a program."""
    _watched().append(actions := [])
    try:
        yield
        if actions:
            raise Fault(f"it did {actions[0]}")
    finally:
        _watched().pop()


@contextlib.contextmanager
def within_bounds() -> Iterator[None]:
    """Raise Fault if the body takes too long or too much memory."""

    def ring(number, frame):
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1.0)  # again: a finaliser swallows it
    try:
        yield
    except _TooLong:
        raise Fault(f"more than {SECONDS:g} seconds: {_innermost()}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
    if grown > BYTES:
        raise Fault(f"it took {grown / 2**30:.1f} GiB")


def _innermost() -> str:
    """Return the innermost line of fnn that raised the current exception."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [f for f in frames if "/fnn/" in f.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} in {ours[-1].name}"


@contextlib.contextmanager
def small_data() -> Iterator[None]:
    """Bound the synthetic datasets, and read the bundled one once."""
    with contextlib.ExitStack() as stack:
        for name, bound in SMALL.items():
            stack.enter_context(mock.patch(name, bound))
        digits = functools.cache(sklearn.datasets.load_digits)
        stack.enter_context(mock.patch("sklearn.datasets.load_digits", digits))
        yield


def judge(mutant: Mutant) -> tuple[str, str]:
    """Return the outcome of a mutant, `ok` or the name of the error, and the error's message.

    A mutant must be accepted, and be the same config after dump and parse; or it must be refused
    by an FnnError whose lines each name a place and a key. It must write nothing and stay within
    the limits. Raises Fault otherwise.
    """
    try:
        with within_bounds(), nothing_done(), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            config = parse(mutant.text, FILE, mutant.overrides)
            prepare(config)
    except FnnError as error:
        check_message(str(error), mutant)
        return type(error).__name__, str(error)
    except Fault:
        raise
    except Exception as error:
        raise Fault(f"{type(error).__name__} at {_innermost()}: {str(error)[:300]}") from error
    if parse(dump(config), FILE) != config:
        raise Fault("written out and read back, it is another config")
    return "ok", ""


PLACE = re.compile(r"mutant\.yaml(?::(\d+))?(?: with override .*?)?: (?=[^ ])")
WITHOUT_KEY = re.compile(
    r"not valid YAML|nested too deeply|empty; a config|expected a mapping with the sections|"
    r"a key must be|more than \d+ values|expected key=value"
)
SECTIONS = set(SCHEMA["properties"])


def check_message(message: str, mutant: Mutant) -> None:
    """Raise Fault unless each line of a message is printable and begins with a place and a key.

    The message about invalid YAML has a line and no key.
    """
    if not message.replace("\n", "").isprintable():
        raise Fault(f"unprintable: {message!r:.300}")
    for line in message.split("\n"):
        rest = _without_place(line, mutant)
        key = re.match(r"[^.: ]+(?=[.: ])", rest)
        texts = printable("".join([*SECTIONS, mutant.text, *mutant.overrides]))
        if not ((key and key[0] in texts) or "unknown key" in line or WITHOUT_KEY.search(line)):
            raise Fault(f"no key: {line[:300]}")


def _without_place(line: str, mutant: Mutant) -> str:
    """Return what follows `mutant.yaml:7: ` or `override seed=x: ` in a line of a message."""
    for override in mutant.overrides:
        if line.startswith(f"override {printable(override)}"):
            return line.removeprefix(f"override {printable(override)}").lstrip(": ")
    if line.startswith("... and "):
        return f"{min(SECTIONS)}: "
    written = sorted(map(printable, mutant.overrides), key=len, reverse=True)
    for override in written:  # it may contain anything, also colons
        line = line.replace(f" with override {override}", "").replace(f" {override}:", ":")
    place = PLACE.match(line)
    if place is None:
        raise Fault(f"no place: {line[:300]}")
    if place[1] and int(place[1]) > len(mutant.text.splitlines()) + 1:
        raise Fault(f"no such line: {line[:300]}")
    return line[place.end() :]


def check_command(mutant: Mutant) -> None:
    """Pass a refused mutant to `fnn run`, in this process and folder.

    Raises Fault unless it exits with status 2 and one message, and leaves no file.
    """
    path = Path(FILE)
    path.write_bytes(mutant.text.encode("utf-8", "surrogatepass"))
    stderr, stdout = io.StringIO(), io.StringIO()
    command = mock.patch.object(sys, "argv", ["fnn", "run", FILE, "--", *mutant.overrides])
    status: Any = 0
    try:
        with command, contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(stdout):
            cli.main()
    except SystemExit as end:
        status = end.code
    except Exception as error:
        raise Fault(f"a traceback: {type(error).__name__} at {_innermost()}: {error}") from error
    finally:
        path.unlink()
    message = stderr.getvalue()
    if status != 2 or stdout.getvalue() or not message.startswith("fnn: ") or "Traceb" in message:
        raise Fault(f"the command ended with {status}: {message[:300]}")
    if os.listdir("."):
        raise Fault(f"the command left {os.listdir('.')}")


def main() -> int:
    """Run the mutants and print their outcomes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    faults: set[str] = set()
    distinct: set[Mutant] = set()

    @seed(options.seed)
    @settings(SETTINGS, max_examples=options.examples, phases=[Phase.generate])
    @given(mutants())
    def run(mutant: Mutant) -> None:
        assume(mutant not in distinct)
        distinct.add(mutant)
        try:
            outcome, message = judge(mutant)
            if message and not len(distinct) % EVERY and "\ufeff" not in mutant.text:
                check_command(mutant)
        except Fault as fault:
            outcome = "fault"
            kind = re.sub(r"0x[0-9a-f]+|\d+", "*", str(fault))[:90]
            if kind not in faults:
                faults.add(kind)
                print(f"FAULT {fault}\n{mutant.how} {mutant.overrides}\n{mutant.text[:1500]}")
        outcomes[outcome] += 1

    with tempfile.TemporaryDirectory() as folder, small_data():
        os.chdir(folder)
        run()
        left = os.listdir(folder)
        os.chdir(ROOT)
    print(f"{len(distinct)} mutants, seed {options.seed}: {dict(outcomes.most_common())}")
    print(f"{len(faults)} kinds of faults; left: {left}")
    return int(bool(faults or left))


if __name__ == "__main__":
    sys.exit(main())
