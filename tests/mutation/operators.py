"""The corpus of faults, by name."""

from . import (
    operators_bugs,
    operators_bugs_algebra,
    operators_bugs_shapes,
    operators_cotangent,
    operators_domain,
    operators_numerics,
    operators_transforms,
    operators_types,
    operators_value,
)
from .operator import Operator

_GROUPS = (
    operators_value,
    operators_domain,
    operators_cotangent,
    operators_types,
    operators_numerics,
    operators_transforms,
    operators_bugs,
    operators_bugs_algebra,
    operators_bugs_shapes,
)

OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for group in _GROUPS
    for operator in vars(group).values()
    if isinstance(operator, Operator)
}
