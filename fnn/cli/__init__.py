"""The command `fnn`: each verb is a few lines that call the library.

A family of verbs is a file. To add one, write the file and import it here, at its place in
`fnn --help`. A file imports what is heavy where it uses it, so that `fnn --help` answers at once.
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
