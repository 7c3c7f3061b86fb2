"""`fnn verify`: the words of a command line become functions, arguments and reports."""

import ast
import importlib
import multiprocessing
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..custom_op import OPS, Op
from ..errors import FnnError, did_you_mean
from ..progress import each
from . import words
from .core import run
from .report import Report, dtypes_of
from .subject import signature

if TYPE_CHECKING:
    from rich.table import Table

_MOST_NAMES = 8  # of the modules that could have been meant
_TRUTH = {"true": True, "false": False}


def verify_each(
    functions: Mapping[str, Any],
    args: Sequence[str] = (),
    statics: Sequence[str] = (),
    definition: str | None = None,
    vary: bool = True,
) -> list[Report]:
    """Verify some functions, with a progress bar on standard error if that is a terminal.

    `args` are descriptions of arrays or Python literals, `statics` are texts such as KEY=VALUE,
    and `definition` is `module:function`.

    Raises FnnError for a call that cannot be verified.
    """
    call = [literal(text) for text in args], dict(static(text) for text in statics)
    oracle = load(definition) if definition else None
    if len(functions) != 1 and (args or statics or definition):
        raise FnnError(
            "--args, --static and --definition describe the call of one function; "
            f"name one function, not {len(functions)}"
        )
    own = all(isinstance(f, Op) and f.__module__.startswith("fnn.") for f in functions.values())
    if own and vary and len(functions) > 1:
        return _side_by_side(list(functions))
    return [
        _verify(name, functions[name], *call, oracle, vary) for name in each(functions, "verifying")
    ]


def _side_by_side(names: Sequence[str]) -> list[Report]:
    """Verify fnn's own ops in one process per core."""
    jobs = min(len(names), os.cpu_count() or 1)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            longest_first = sorted(names, key=lambda name: -len(OPS[name].examples))
            running = {name: pool.submit(verify_op, name) for name in longest_first}
            return [running[name].result() for name in each(names, "verifying")]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def verify_op(name: str) -> Report:
    """Verify one of fnn's own ops, in any process."""
    importlib.import_module("fnn.ops")  # it fills the table
    return run(OPS[name])


def _verify(
    name: str,
    function: Callable[..., Any],
    args: Sequence[Any],
    statics: Mapping[str, Any],
    definition: Callable[..., Any] | None,
    vary: bool,
) -> Report:
    if not args and not isinstance(function, Op):
        raise FnnError(
            f'{name}: say what to call it with, such as --args "f32[8,16]" "i32[8] in 0..9"'
            + signature(function)
        )
    try:
        return run(function, args, statics, definition, vary)
    except (TypeError, ValueError) as error:
        raise FnnError(f"{name}: {str(error).removeprefix('verify: ')}") from error


def show(reports: Sequence[Report], duration: float) -> None:
    """Print one report in full, or several as a table with the failed ones in full.

    `duration` is the time of all together, in seconds.
    """
    from rich.console import Console

    if len(reports) == 1:
        print(reports[0])
        return
    Console(width=None if sys.stdout.isatty() else 120).print(table(reports))
    failed = [report for report in reports if not report.ok]
    for report in failed:
        print(f"{report}\n")
    counts = f"{len(reports) - len(failed)} verified, {len(failed)} failed"
    print(f"{counts}, in {words.seconds(duration)}")


def table(reports: Sequence[Report]) -> "Table":
    """Return a table for rich to print, with one row per report."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    costs, dtypes = words.columns(r.cost for r in reports), dtypes_of(reports)
    rows = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    rows.add_column("op", overflow="fold", min_width=12)
    for head in ("", "resolution", *dtypes, *costs, "s"):
        rows.add_column(head, justify="right" if head else "left", no_wrap=True)
    for r in reports:
        rows.add_row(
            Text(r.name, "" if r.ok else "bold"),
            Text("ok", "green") if r.ok else Text("FAILED", "bold red"),
            words.short(r.worst_resolution),
            *(words.short(r.errors.get(dtype)) for dtype in dtypes),
            *(words.ratio(*r.cost[kind]) if kind in r.cost else words.MISSING for kind in costs),
            f"{r.seconds:.1f}",
        )
    return rows


def literal(text: str) -> Any:
    """Return the Python value of a word, or the word itself.

    >>> [literal(word) for word in ("3", "true", "(1, 2)", "f32[8]", "same")]
    [3, True, (1, 2), 'f32[8]', 'same']
    """
    if text in _TRUTH:
        return _TRUTH[text]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, ValueError):
        return text


def static(text: str) -> tuple[str, Any]:
    """Return the name and the value in `eps=1e-5`.

    Raises FnnError if either is missing.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise FnnError(f"--static: expected NAME=VALUE such as eps=1e-5, got {text!r}")
    return name, literal(value)


def load(target: str) -> Callable[..., Any]:
    """Import the function `my_package.my_module:my_op`, also from the current folder.

    Raises FnnError if there is no such module, no such name in it, or no function of that name.
    """
    module, _, path = target.partition(":")
    if module.endswith(".py"):
        dotted = ".".join(Path(module).with_suffix("").parts)
        raise FnnError(
            f"{module} is a file; name the module, as import does: {dotted}:{path or 'function'}"
        )
    if not path or not all(part.isidentifier() for part in module.split(".")):
        raise FnnError(
            f"cannot read {target!r}; write module:function, such as my_package.my_module:my_op"
        )
    value = _import(module)
    for name in path.split("."):
        if not hasattr(value, name):
            public = [n for n in dir(value) if not n.startswith("_")]
            raise FnnError(f"{module} has no {path}{did_you_mean(name, public)}")
        value = getattr(value, name)
    if not callable(value):
        raise FnnError(f"{target} is no function; its type is {type(value).__name__}")
    return value


def _import(module: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module may do anything when it is imported
        absent = (isinstance(error, ModuleNotFoundError) and error.name) or ""
        if absent and f"{module}.".startswith(f"{absent}."):  # and not a module that it imports
            raise FnnError(_no_module(absent)) from error
        raise FnnError(_import_error(module, error)) from error


def _no_module(module: str) -> str:
    """Return an error message with the names of modules that may be meant."""
    parent, _, name = module.rpartition(".")
    inside = list(getattr(sys.modules.get(parent), "__path__", []))
    near = _modules(inside if parent else [os.getcwd()])
    names = ", ".join(near[:_MOST_NAMES]) + (", …" if len(near) > _MOST_NAMES else "")
    hint = did_you_mean(name, near if parent else _modules(None))
    hint = hint or f"; {parent or 'the current folder'} holds {names or 'no modules'}"
    return f"there is no module {module}{hint}"


def _modules(folders: Sequence[str] | None) -> list[str]:
    return sorted({m.name for m in pkgutil.iter_modules(folders) if not m.name.startswith("_")})


def _import_error(module: str, error: BaseException) -> str:
    """Return an error message for an import that raised, with the line in the user's code."""
    if isinstance(error, SyntaxError):
        message, file, line = error.msg, error.filename, error.lineno
    else:
        message = next(iter(str(error).splitlines()), "")
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if Path(f.filename).is_relative_to(os.getcwd())]
        file, line = (own or frames)[-1].filename, (own or frames)[-1].lineno
    return f"{module} cannot be imported: {type(error).__name__}: {message} ({file}, line {line})"
