"""The corpus of faults, by name."""

import importlib

from .operator import OPERATORS as OPERATORS

GROUPS = ("value", "domain", "cotangent", "types", "numerics", "transforms", "bugs", "bugs_arrays")

for group in GROUPS:  # each registers its operators
    importlib.import_module(f"{__package__}.operators_{group}")
