"""What a run amounts to: rates, survivors, false alarms, times; as plain numbers and strings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..defects import DEFECTS
from .rivals import RIVALS
from .trial import COMPARED, CleanTrial, Trial

KILLED = 0.995
"""The share of the mutants that must be found."""
NAMED = 0.95
"""The share of those found that must be called by the right name."""
OURS = "fnn.verify"


def summarise(trials: Sequence[Trial], cleans: Sequence[CleanTrial]) -> dict[str, Any]:
    """Return all that is printed and written; `ok` says whether the bars are met."""
    faults = [t for t in trials if not t.equivalent]
    harmless = [t for t in trials if t.equivalent]
    tried = [c for c in cleans if not c.skipped]
    killed = [t for t in faults if t.killed]
    alarms = [c for c in tried if c.alarm]
    rejected = [t for t in harmless if t.killed or t.error]
    named = sum(t.named for t in killed)
    false_alarms = len(alarms) + len(rejected)
    enough = len(killed) >= KILLED * len(faults) and named >= NAMED * len(killed)
    return {
        "ok": enough and not false_alarms,
        "mutants": len(faults),
        "killed": len(killed),
        "named": named,
        "mentioned": sum(t.mentioned for t in killed),
        "equivalent": len(harmless),
        "clean_runs": len(tried),
        "false_alarms": false_alarms,
        "operators": [
            {"operator": name, **_counts([t for t in faults if t.operator == name])}
            for name in _in_order(t.operator for t in faults)
        ],
        "survivors": [{"mutant": t.name, "error": t.error} for t in faults if not t.killed],
        "misnamed": [
            {"mutant": t.name, "found": _in_order(t.found), "expected": sorted(t.expected)}
            for t in killed
            if not t.named
        ],
        "equivalents": [
            {"mutant": t.name, "reason": t.equivalent, "found": list(t.found), "error": t.error}
            for t in harmless
        ],
        "alarms": [
            {
                "rule": c.rule,
                "dtype": c.dtype,
                "seed": c.seed,
                "findings": list(c.findings) or [c.error],
            }
            for c in alarms
        ],
        "skipped": [
            {"rule": c.rule, "dtype": c.dtype, "seed": c.seed, "reason": c.skipped}
            for c in cleans
            if c.skipped
        ],
        "seconds": _seconds(tried, trials),
        "checkers": _checkers([t for t in faults if t.rivals], [c for c in tried if c.rivals]),
    }


def _counts(trials: Sequence[Trial]) -> dict[str, Any]:
    return {
        "group": trials[0].group,
        "mutants": len(trials),
        "killed": sum(t.killed for t in trials),
        "named": sum(t.named for t in trials),
        "mentioned": sum(t.mentioned for t in trials),
    }


def _seconds(cleans: Sequence[CleanTrial], trials: Sequence[Trial]) -> dict[str, Any]:
    timed = {c.rule: c.seconds for c in cleans if len(c.seconds) == 2}
    times = {
        "cold": [cold for cold, _ in timed.values()],
        "warm": [warm for _, warm in timed.values()],
        "mutant": [t.seconds for t in trials],
    }
    return {
        **{
            name: {"median": float(np.median(some)), "p95": float(np.quantile(some, 0.95))}
            for name, some in times.items()
            if some
        },
        "rules": {rule: {"cold": cold, "warm": warm} for rule, (cold, warm) in timed.items()},
    }


def _checkers(trials: Sequence[Trial], cleans: Sequence[CleanTrial]) -> dict[str, Any] | None:
    """Count by group of defects, and for correct rules by dtype, what every checker rejects."""
    if not trials and not cleans:
        return None
    groups = {g: [t for t in trials if t.group == g] for g in _groups()}
    dtypes = {d: [c for c in cleans if c.dtype == d] for d in _in_order(c.dtype for c in cleans)}
    return {
        "mutants": {g: len(some) for g, some in groups.items() if some},
        "killed": {
            OURS: {g: sum(t.killed for t in some) for g, some in groups.items() if some},
            **{
                f"{name} {dtype}": {
                    g: sum(t.rivals[name, dtype] for t in some)
                    for g, some in groups.items()
                    if some
                }
                for name in RIVALS
                for dtype in COMPARED
            },
        },
        "clean_runs": {d: len(some) for d, some in dtypes.items()},
        "false_alarms": {
            OURS: {d: sum(c.alarm for c in some) for d, some in dtypes.items()},
            **{
                name: {d: sum(c.rivals[name, d] for c in some) for d, some in dtypes.items()}
                for name in RIVALS
            },
        },
    }


def _groups() -> list[str]:
    return _in_order(defect.group for defect in DEFECTS.values())


def _in_order(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
