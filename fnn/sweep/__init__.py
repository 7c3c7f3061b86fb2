"""Sweeps: one experiment with many values, as many runs in one compiled program.

axes     the values on the command line     points    the plan, and the points it tries
groups   the runs that share a program      program   many runs in one compiled program
fit      the training of a group, and of the whole sweep in its folder
"""

from .fit import Ready as Ready
from .fit import read_results as read_results
from .fit import sweep as sweep
from .points import Plan as Plan
from .points import plan_sweep as plan_sweep
from .points import read_plan as read_plan
