"""fnn: functional neural networks on JAX, with every backward pass written by hand."""

from . import ops as ops
from .op import OPS as OPS
from .op import op as op
from .op import rules as rules
