"""Is an op fast and small, against automatic differentiation? `fnn.bench.measure(op)` says."""

from .row import Row as Row
from .row import measure as measure
