"""When training stops by itself: rules over the rows of metrics so far, one row an epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.training import Converge, EarlyStopping
from ..metrics import METRICS

Rows = Sequence[Mapping[str, Any]]


def has_converged(rows: Rows, rule: Converge | None) -> bool:
    """Return whether the training loss changed by less than epsilon over the rule's window."""
    if rule is None or len(rows) <= rule.window:
        return False
    losses = [METRICS["train_loss"].cost(row["train_loss"]) for row in rows[-1 - rule.window :]]
    return abs(losses[-1] - losses[0]) < rule.epsilon


def stops_early(rows: Rows, rule: EarlyStopping | None) -> bool:
    """Return whether the last `patience` epochs brought nothing better than those before them."""
    if rule is None or len(rows) <= rule.patience:
        return False
    costs = [METRICS[rule.metric].cost(row[rule.metric]) for row in rows]
    return not min(costs[-rule.patience :]) < min(costs[: -rule.patience]) - rule.min_delta
