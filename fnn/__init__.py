"""fnn: functional neural networks on JAX, with every backward pass written by hand.

    fnn.ops        functions with a backward rule of their own; `fnn.OPS` is their table
    fnn.op         the decorator that makes one; `fnn.rules` switches to automatic differentiation
    fnn.layers     hyperparameters with init and apply; `Serial` puts them one after the other
    fnn.backprop   the explicit backward pass, every intermediate derivative kept
    fnn.verify     is a backward rule right? `fnn.verify(f, "f32[8,16]")`
    fnn.testing    the same question as an assertion, for pytest
    fnn.bench      is an op fast and small? `fnn.bench.measure(op)`
    fnn.config     experiments as YAML files; fnn.train, fnn.runs, fnn.sweep and fnn.report
                   train and show them

Names are imported when they are first used, so that `fnn --help` need not wait for JAX.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import backprop as backprop
    from . import bench as bench
    from . import config as config
    from . import data as data
    from . import example as example
    from . import init as init
    from . import layers as layers
    from . import loss as loss
    from . import models as models
    from . import ops as ops
    from . import report as report
    from . import runs as runs
    from . import sweep as sweep
    from . import testing as testing
    from . import train as train
    from . import verifier as verifier
    from .custom_op import OPS as OPS
    from .custom_op import op as op
    from .custom_op import rules as rules
    from .verifier import verify as verify

# jax 0.10, the newest for Python 3.11, hands XLA:CPU's reductions to a library that miscompiles
# some of them (jax-ml/jax#39103). XLA reads its flags when JAX first computes something.
_YNN = "--xla_cpu_experimental_ynn_fusion_type"
if sys.version_info < (3, 12) and _YNN not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_YNN}=-reduce".strip()

_MODULES = (
    *("backprop", "bench", "config", "data", "example", "init", "layers", "loss", "models"),
    *("ops", "report", "runs", "sweep", "testing", "train", "verifier"),
)
_FROM_OPS = ("OPS", "op", "rules")


def __getattr__(name: str) -> Any:
    """Import a module, or what belongs to ops, when it is first used."""
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name == "verify":
        return importlib.import_module(".verifier", __name__).verify
    if name in _FROM_OPS:
        importlib.import_module(".ops", __name__)  # fills the table
        return getattr(importlib.import_module(".custom_op", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_FROM_OPS, "verify"})
