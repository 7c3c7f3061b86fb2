"""The corpus: correct rules, operators that put a fault in, and the mutants that are no faults.

A corpus is a package with three modules: `rules` (`RULES`, by name), `operators` (`OPERATORS`, by
name) and `equivalent` (`EQUIVALENT`, the reason by rule, operator and label; "*" for any label).
"""

import importlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...errors import FnnError, did_you_mean
from ..defects import DEFECTS

VAGUE = frozenset({"sign", "factor", "term", "element", "nan", "fails"})
"""Defects that faults of any group may show themselves as."""
SAMPLE = 8
"""The rules that a sample puts one kind of fault into, at most."""

UNMADE = "?"
"""The label of what an operator fails to make."""


class Rule(Protocol):
    """A function with a rule of its own, in pieces; `args` are given in float32."""

    name: str
    args: tuple[Any, ...]
    primal: Callable[..., Any]
    jvp: Callable[..., Any] | None
    definition: Callable[..., Any] | None
    nondiff_argnums: tuple[int, ...]

    def build(self) -> Callable[..., Any]:
        """Put the pieces together."""
        ...

    def cast(self, dtype: str) -> tuple[Any, ...]:
        """Return the arguments in another dtype."""
        ...


class Operator(Protocol):
    """A kind of fault: the defects it may rightly be called, and how it is put into a rule."""

    name: str
    defects: frozenset[str]
    make: Callable[[Any], Iterator[tuple[str, Any]]]


@dataclass(frozen=True)
class Mutant:
    """A correct rule with one fault."""

    clean: Rule
    operator: Operator
    label: str
    rule: Rule

    @property
    def definition(self) -> Callable[..., Any] | None:
        """What the rule is judged by; None: its own body, which the fault has left alone."""
        if self.rule.definition is None and self.rule.primal is not self.clean.primal:
            return self.clean.primal
        return self.rule.definition


@dataclass(frozen=True)
class Corpus:
    """The three tables."""

    rules: Mapping[str, Rule]
    operators: Mapping[str, Operator]
    equivalent: Mapping[tuple[str, str, str], str]

    def mutants(self, rule: str, operator: str) -> Iterator[Mutant]:
        """Put one kind of fault into one rule, everywhere that it fits."""
        clean, fault = self.rules[rule], self.operators[operator]
        for label, mutated in fault.make(clean):
            yield Mutant(clean, fault, label, mutated)

    def sample(self, rules: Sequence[str], operator: str) -> list[tuple[str, str]]:
        """Choose at most eight rules that an operator fits, and the label of one mutant of each.

        The names decide, not chance: the next run tries the same.
        """
        found = []
        for rule in sorted(rules, key=lambda rule: draw(rule, operator)):
            try:
                labels = [mutant.label for mutant in self.mutants(rule, operator)]
            except Exception:  # whoever carries it out meets the error again, and reports it
                labels = [UNMADE]
            if labels:
                found.append((rule, min(labels, key=lambda label: draw(rule, operator, label))))
            if len(found) == SAMPLE:
                break
        return found

    def reason(self, rule: str, operator: str, label: str) -> str:
        """Return why this mutant is no fault; empty for one that is."""
        exact, every = (rule, operator, label), (rule, operator, "*")
        return self.equivalent.get(exact) or self.equivalent.get(every, "")


def draw(*names: object) -> int:
    """Draw a number by lot, always the same for the same names."""
    return zlib.crc32(repr(names).encode())


def load(name: str) -> Corpus:
    """Import a corpus by the name of its package."""
    try:
        rules, operators, equivalent = (
            importlib.import_module(f"{name}.{part}")
            for part in ("rules", "operators", "equivalent")
        )
    except ImportError as error:
        raise FnnError(
            f"the corpus {name!r} cannot be imported: {error}; run this from the repository's "
            "root, or name a package with the modules rules, operators and equivalent"
        ) from error
    return Corpus(rules.RULES, operators.OPERATORS, equivalent.EQUIVALENT)


def chosen(what: str, names: Sequence[str] | None, table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names asked for, or all of a table's."""
    for name in names or ():
        if name not in table:
            raise FnnError(f"there is no {what} {name!r}{did_you_mean(name, table)}")
    return tuple(table if names is None else names)


def group(operator: Operator) -> str:
    """Return the group that most of an operator's telling defects belong to, the last of equals."""
    telling = (operator.defects - VAGUE) or operator.defects
    groups = [defect.group for name, defect in reversed(DEFECTS.items()) if name in telling]
    return max(groups, key=groups.count)
