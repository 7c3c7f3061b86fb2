"""`fnn.bench.measure(op)` times an op and its memory against automatic differentiation."""

from .row import Row as Row
from .row import measure as measure
