"""The command itself: its entry, its `--version`, and the arguments that several verbs share.

A mistake of the user gives one message on standard error and exit status 2, never a traceback.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import FnnError

START = time.perf_counter()
"""The time at which the command started, approximately."""

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
    typer.Argument(help="Changes to the config: train.epochs=5", metavar="[KEY=VALUE]..."),
]
RunFolder = Annotated[
    Path,
    typer.Argument(
        help="A run folder, or the folder of an experiment: its newest run.", metavar="RUN"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def main() -> None:
    """Run the command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored
        signal.signal(signal.SIGINT, _interrupt)
    try:
        app(prog_name="fnn")
    except FnnError as error:
        print(f"fnn: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except (MemoryError, RuntimeError) as error:  # JAX's own error is a RuntimeError
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(
            f"fnn: out of memory: {str(error).splitlines()[0] if str(error) else 'no more'}; "
            "try a smaller train.batch_size, or a smaller model",
            file=sys.stderr,
        )
        sys.exit(2)
    except OSError as error:  # a full disk, a folder without write permission
        print(f"fnn: {error}", file=sys.stderr)
        sys.exit(2)


def _interrupt(number: int, frame: object) -> None:
    """Exit at once, with the cursor of the terminal visible.

    An exception could be raised inside a callback from C, where it is lost.
    """
    del frame
    show_cursor = b"\x1b[?25h" if sys.stderr.isatty() else b""
    os.write(sys.stderr.fileno(), show_cursor + b"fnn: interrupted\n")
    os._exit(128 + number)


def ask_for_devices(count: int) -> None:
    """Make JAX present the CPU as `count` devices; call this before JAX starts.

    A number of devices already set in the environment takes precedence.
    """
    flag, flags = "--xla_force_host_platform_device_count", os.environ.get("XLA_FLAGS", "")
    if flag not in flags and "JAX_NUM_CPU_DEVICES" not in os.environ:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}={count}".strip()


@app.callback()
def version(
    show: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Train networks from config files, with every backward pass written by hand."""
    if show:
        from importlib import metadata

        print(f"fnn {metadata.version('fnn')}")
        raise typer.Exit
