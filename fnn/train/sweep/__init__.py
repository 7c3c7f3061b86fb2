"""Sweeps: one experiment with many values, as many runs in one compiled program."""

from .sweep import Plan as Plan
from .sweep import Ready as Ready
from .sweep import plan_sweep as plan_sweep
from .sweep import read_plan as read_plan
from .sweep import read_results as read_results
from .sweep import sweep as sweep
