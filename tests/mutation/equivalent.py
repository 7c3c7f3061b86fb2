"""The mutants that are no faults: a change that no input, cotangent or transform can show.

A row is (rule, operator, label) and the reason; the label "*" stands for every one. They do not
count among the mutants, and a checker that rejects one is wrong, or the reason is.
"""

EQUIVALENT: dict[tuple[str, str, str], str] = {}
