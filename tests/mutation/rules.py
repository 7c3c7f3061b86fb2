"""The corpus of correct rules, by name: hand-written as one finds them in the wild."""

from . import (
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
from .rule import Rule

_FAMILIES = (
    rules_activations,
    rules_losses,
    rules_affine,
    rules_choice,
    rules_norms,
    rules_windows,
    rules_attention,
    rules_recurrent,
    rules_linalg,
    rules_jvp,
)

RULES: dict[str, Rule] = {rule.name: rule for family in _FAMILIES for rule in family.RULES}

if len(RULES) != sum(len(family.RULES) for family in _FAMILIES):
    raise ValueError("two rules of the corpus have one name")
