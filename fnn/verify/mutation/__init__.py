"""How good is the checker? Faults planted in correct rules, and what it says of them.

`python -m fnn.verify.mutation` runs a corpus of rules and fault operators: the share of the
faults that is found and rightly named, the faults that survive, the correct rules that are
wrongly rejected, the time it takes, and how other gradient checkers fare on the same.
"""
