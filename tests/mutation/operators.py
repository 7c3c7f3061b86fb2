"""The corpus of faults, by name."""

from . import (  # noqa: F401 (they fill the table)
    operators_bugs,
    operators_bugs_arrays,
    operators_cotangent,
    operators_domain,
    operators_numerics,
    operators_transforms,
    operators_types,
    operators_value,
)
from .operator import OPERATORS as OPERATORS
