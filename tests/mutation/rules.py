"""The corpus of correct rules, by name: hand-written as one finds them in the wild."""

from . import (  # noqa: F401 (they fill the table)
    rules_activations,
    rules_affine,
    rules_attention,
    rules_choice,
    rules_jvp,
    rules_linalg,
    rules_losses,
    rules_norms,
    rules_recurrent,
    rules_windows,
)
from .rule import RULES as RULES
