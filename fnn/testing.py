"""An assertion that a backward rule is right, for tests."""

from collections.abc import Callable
from typing import Any

from .verifier import Report, verify


def assert_vjp(
    f: Callable[..., Any],
    *args: Any,
    definition: Callable[..., Any] | None = None,
    vary: bool = True,
    **statics: Any,
) -> Report:
    """Assert that the backward rule of a function is right; arguments as for `fnn.verify`.

        def test_squash():
            assert_vjp(squash, "f32[4,3]", slope=2.0)

    Returns the report, with resolutions and capabilities that a test may check as well.

    Raises AssertionError with all findings, and the errors of `fnn.verify` for a wrong call.
    """
    __tracebackhide__ = True  # pytest shows the line of the test, and not this one
    report = verify(f, *args, definition=definition, vary=vary, **statics)
    report.raise_if_failed()
    return report
