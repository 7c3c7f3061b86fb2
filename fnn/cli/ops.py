"""The verb that shows the ops: ops."""

from typing import Annotated, Any

import typer

from .command import AsJson, app
from .named_ops import all_ops, find_op
from .show import print_json, print_table


@app.command(epilog="Example: fnn ops softmax_cross_entropy")
def ops(
    name: Annotated[str | None, typer.Argument(help="One op.", metavar="[OP]")] = None,
    as_json: AsJson = False,
) -> None:
    """List the ops, or show one: mathematics, shapes, source."""
    selection = [find_op(name)] if name else list(all_ops().values())
    if as_json:
        print_json({"ops": [_describe(op) for op in selection]})
    elif name:
        (op,) = selection
        print(f"{op.name}{op.signature}\n\n{_describe(op)['doc']}\n\nSource: {op.source}")
    else:
        print_table(
            f"{len(selection)} ops; `fnn ops OP` shows the mathematics of one",
            ("op", "what it does", "source"),
            [(op.name, _describe(op)["doc"].splitlines()[0], op.source) for op in selection],
        )


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
