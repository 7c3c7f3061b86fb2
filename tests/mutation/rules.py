"""The corpus of correct rules, by name: hand-written as one finds them in the wild."""

import importlib

from .rule import RULES as RULES

FAMILIES = (
    *("activations", "losses", "affine", "choice", "norms"),
    *("windows", "attention", "recurrent", "linalg", "jvp"),
)

for family in FAMILIES:  # each registers its rules
    importlib.import_module(f"{__package__}.rules_{family}")
