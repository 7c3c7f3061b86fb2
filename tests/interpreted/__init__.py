"""Small programs that together use every primitive of `fnn.verifier.interpreter`."""

from . import arrays, control, elements, sums  # noqa: F401 (they fill the table)
from .control import LEFT_TO_XLA as LEFT_TO_XLA
from .table import SECTIONS as SECTIONS
