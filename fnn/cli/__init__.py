"""The command `fnn`: each verb is a few lines that call the library.

Each file contains a family of verbs. To add a file, import it here, at its place in `fnn --help`.
A verb imports heavy modules inside its function, so that `fnn --help` answers at once.
"""

from .command import app, main

# The order is that of `fnn --help`.
# isort: off
from . import experiment
from . import sweep
from . import runs
from . import verify
from . import bench
from . import ops

__all__ = ["app", "bench", "experiment", "main", "ops", "runs", "sweep", "verify"]
