"""The command `fnn`: each verb is a few lines that call the library.

Imports are made where they are used, so that `fnn --help` answers at once. A mistake of the
user's is one message on standard error and exit status 2, never a traceback.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from .errors import FnnError, did_you_mean

_START = time.perf_counter()

app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[Path, typer.Argument(help="The experiment: a YAML file.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to it: train.epochs=5", metavar="[KEY=VALUE]..."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def main() -> None:
    """Run the command."""
    try:
        app(prog_name="fnn")
    except FnnError as error:
        print(f"fnn: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("fnn: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"fnn: {error}", file=sys.stderr)
        sys.exit(2)


@app.callback()
def version(
    asked: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Train networks from config files, with every backward pass written by hand."""
    if asked:
        from importlib import metadata

        print(f"fnn {metadata.version('fnn')}")
        raise typer.Exit


@app.command(epilog="Example: fnn run configs/digits_mlp.yaml train.epochs=5 seed=1")
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Train an experiment; leave a run folder with its report."""
    from .config import load
    from .progress import progress
    from .report import write_report
    from .train import folder, prepare, train

    ready = prepare(load(config, overrides or ()))
    where = folder.create(runs, ready.config.name)
    with progress() as shown:
        summary = train(ready, where, shown, _START)
    report = write_report(where)
    seconds = time.perf_counter() - _START
    if as_json:
        keys = ("status", "test_accuracy", "test_loss", "epochs", "steps", "seconds_to_first_step")
        _print_json({"run": str(where), **{key: summary[key] for key in keys}, "seconds": seconds})
    else:
        print(
            f"{summary['name']}: test accuracy {summary['test_accuracy']:.2%} "
            f"after {summary['epochs']} epochs ({summary['status']}), "
            f"first step after {summary['seconds_to_first_step']:.1f} s, {seconds:.1f} s in all\n"
            f"report: {report}"
        )
    if summary["status"] == "diverged":
        raise FnnError(
            f"the training loss is no longer finite (epoch {summary['epochs']}); "
            f"lower the learning rate; what was done is in {where}"
        )
    if summary["status"] == "interrupted":
        sys.exit(130)


@app.command(epilog="Example: fnn compare configs/digits_mlp.yaml --json")
def compare(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Compare hand-written rules and jax.grad on an experiment."""
    import jax.numpy as jnp

    from .config import load
    from .train import compare as run_comparison
    from .train import prepare

    ready = prepare(load(config, overrides or ()))
    data = (jnp.asarray(ready.data.x_train), jnp.asarray(ready.data.y_train))
    found = run_comparison(
        *(ready.model, ready.loss, ready.optimizer, *data), ready.batch_size, ready.config.seed
    )
    if as_json:
        _print_json({"name": ready.config.name, **found})
        return
    _print_table(
        f"{ready.config.name}: gradients by hand against jax.grad, one batch",
        ("parameter", "shape", "largest relative difference"),
        [
            (p["path"], _shape(p["shape"]), f"{p['max_relative_difference']:.1e}")
            for p in found["parameters"]
        ],
    )
    times, temporary = found["step_time_us"], found["temp_bytes"]
    _print_table(
        "one training step; above 1 the hand-written rules win",
        ("", "by hand", "autodiff", "autodiff / by hand"),
        [
            ("µs", *(f"{times[g]:,.1f}" for g in times), f"{found['step_time_ratio']:.2f}"),
            (
                "temporary bytes",
                *("–" if temporary[g] is None else f"{temporary[g]:,}" for g in temporary),
                "–" if found["temp_ratio"] is None else f"{found['temp_ratio']:.2f}",
            ),
        ],
    )
    print(f"the losses differ by {found['loss_relative_difference']:.1e} relative")


@app.command(epilog="Example: fnn plan configs/mnist_784_15_10.yaml")
def plan(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show an experiment's layers and what a step takes."""
    from .config import load
    from .train import layer_table, prepare, step_memory

    ready = prepare(load(config, overrides or ()))
    rows = layer_table(ready.model, ready.x_shape)
    memory = step_memory(
        ready.model, ready.loss, ready.optimizer, ready.x_shape, ready.config.gradient
    )
    steps = -(-len(ready.data.x_train) // ready.batch_size)
    totals = {
        "parameters": sum(row.parameters for row in rows),
        "multiply_adds": sum(row.multiply_adds for row in rows),
        "train_examples": len(ready.data.x_train),
        "test_examples": len(ready.data.x_test),
        "batch_size": ready.batch_size,
        "steps_per_epoch": steps,
        "epochs": ready.config.train.epochs,
        "step_memory_bytes": memory._asdict() if memory else None,
    }
    if as_json:
        layers = [row._asdict() for row in rows]
        x_shape = list(ready.data.x_shape)
        _print_json({"name": ready.config.name, "x_shape": x_shape, "layers": layers, **totals})
        return
    _print_table(
        f"{ready.config.name}: one example, input {_shape(ready.data.x_shape)}",
        ("layer", "", "output", "receptive field", "parameters", "multiply-adds"),
        [
            *((r.path, r.layer, *map(_shape, r[2:4]), *map("{:,}".format, r[4:])) for r in rows),
            ("total", "", "", "", f"{totals['parameters']:,}", f"{totals['multiply_adds']:,}"),
        ],
    )
    print(
        f"{totals['train_examples']} training examples, {totals['test_examples']} for testing; "
        f"batches of {ready.batch_size}: {steps} steps an epoch, {totals['epochs']} epochs"
    )
    if memory:
        print(
            f"a compiled step: {memory.arguments:,} bytes of arguments, {memory.outputs:,} of "
            f"outputs (in the arguments' place where donated), {memory.temporary:,} temporary"
        )


class _SeveralValues(typer.core.TyperCommand):
    """A command whose `--args` and `--static` take every word up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_spread(args)))


def _spread(words: Iterable[str]) -> Iterator[str]:
    """Rewrite `--args A B` as `--args=A --args=B`; a word such as -3 is a value."""
    option, values = "", 0
    for word in words:
        name, equals, _ = word.partition("=")
        if word.startswith("-") and not word.lstrip("-.")[:1].isdigit():
            _check_values(option, values)
            option, values = (name, len(equals)) if name in ("--args", "--static") else ("", 0)
            if word != option:
                yield word
        elif option:
            values += 1
            yield f"{option}={word}"
        else:
            yield word
    _check_values(option, values)


def _check_values(option: str, values: int) -> None:
    if option and not values:
        raise FnnError(f"{option} needs a value; see fnn verify --help")


@app.command(
    cls=_SeveralValues,
    epilog='Example: fnn verify my_package.my_module:my_op --args "f32[8,16]" "f32[16]" '
    "--static eps=1e-5",
)
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Ops, or module:function; all ops by default.", metavar="F"),
    ] = None,
    args: Annotated[
        list[str] | None,
        typer.Option(help="What to call F with: arrays (f32[8,16]), literals.", metavar="A..."),
    ] = None,
    static: Annotated[
        list[str] | None, typer.Option(help="Keyword arguments of F.", metavar="NAME=VALUE...")
    ] = None,
    definition: Annotated[
        str | None,
        typer.Option(help="The same function in plain JAX.", metavar="MODULE:FUNCTION"),
    ] = None,
    no_vary: Annotated[
        bool, typer.Option("--no-vary", help="Draw no other values and shapes.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write the reports as a page.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check backward rules: fnn's, or those of any custom_vjp or custom_jvp.

    Exit with status 1 if one fails.
    """
    _ask_for_devices()
    from .verify import command
    from .verify.page import write_page

    if html and not html.parent.is_dir():
        raise FnnError(f"{html}: there is no folder {html.parent}")
    # Where there are dots and slashes, a module was meant.
    functions = {n: command.load(n) if set(n) & set(":./") else _op(n) for n in names or ()}
    reports = command.verify_each(
        functions or _table(), args or (), static or (), definition, not no_vary
    )
    page = {"page": str(write_page(reports, html))} if html else {}
    ok = all(report.ok for report in reports)
    if as_json:
        _print_json({"ok": ok, "reports": [report.as_json() for report in reports], **page})
    else:
        command.show(reports)
        if html:
            print(f"page: {html}")
    sys.exit(0 if ok else 1)


def _ask_for_devices() -> None:
    """Have JAX show the CPU as two devices, so that splitting over devices is tried.

    It has to be said before JAX starts. Who has set a number of devices keeps it.
    """
    flag, flags = "--xla_force_host_platform_device_count", os.environ.get("XLA_FLAGS", "")
    if flag not in flags and "JAX_NUM_CPU_DEVICES" not in os.environ:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=2".strip()


@app.command(epilog="Example: fnn bench softmax_cross_entropy --dtype bfloat16 --cores 1 --check")
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(help='Ops; by default all with an example tagged "bench".', metavar="[OP]"),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the floating-point arrays.")] = "float32",
    seconds: Annotated[float, typer.Option(help="For timing a row, at most.", min=0.0)] = 3.0,
    cores: Annotated[int, typer.Option(help="Run on so many cores; 0: on all.", min=0)] = 0,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with status 1 if an op misses the bar.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Time the ops' rules against automatic differentiation, and weigh what they keep.

    With --check, exit with status 1 if an op is more than 5 % slower than the fastest form that
    JAX differentiates, or keeps more bytes for the backward pass than the definition does.
    """
    from .bench import command

    chosen = {name: _op(name) for name in names or ()}
    rows, failures = command.measure_each(chosen or _table(), bool(chosen), dtype, seconds, cores)
    if as_json:
        _print_json(command.as_json(rows, failures))
    elif rows:
        command.show(rows)
    for failure in failures:
        print(f"fnn: {failure}", file=sys.stderr)
    sys.exit(2 if failures else int(check and any(row.faults for row in rows)))


@app.command(epilog="Example: fnn ops softmax_cross_entropy")
def ops(
    name: Annotated[str | None, typer.Argument(help="One op.", metavar="[OP]")] = None,
    as_json: AsJson = False,
) -> None:
    """List the ops, or show one: mathematics, shapes, source."""
    chosen = [_op(name)] if name else list(_table().values())
    if as_json:
        _print_json({"ops": [_describe(op) for op in chosen]})
    elif name:
        (op,) = chosen
        print(f"{op.name}{op.signature}\n\n{_describe(op)['doc']}\n\nSource: {op.source}")
    else:
        _print_table(
            f"{len(chosen)} ops; `fnn ops OP` shows one's mathematics",
            ("op", "what it does", "source"),
            [(op.name, _describe(op)["doc"].splitlines()[0], op.source) for op in chosen],
        )


def _table() -> dict[str, Any]:
    import fnn

    return fnn.OPS


def _op(name: str) -> Any:
    table = _table()
    if name not in table:
        raise FnnError(
            f"there is no op {name!r}{did_you_mean(name, table)}; `fnn ops` lists them all"
        )
    return table[name]


def _describe(op: Any) -> dict[str, Any]:
    import inspect

    return {
        "name": op.name,
        "signature": f"{op.name}{op.signature}",
        "arrays": list(op.arguments),
        "statics": {name: repr(default) for name, default in op.statics.items()},
        "doc": inspect.getdoc(op.definition),
        "source": op.source,
    }


def _shape(shape: Any) -> str:
    return "×".join(map(str, shape)) or "–"


def _print_json(value: dict[str, Any]) -> None:
    from .train.folder import finite

    print(json.dumps(finite(value), allow_nan=False))


def _print_table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for i, name in enumerate(header):
        numeric = i > 0 and all(row[i][:1].isdigit() or row[i] in ("", "–") for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    print(title)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
