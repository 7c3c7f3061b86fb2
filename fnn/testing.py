"""Is this backward rule right? as an assertion, for the tests of whoever wrote the rule."""

from collections.abc import Callable
from typing import Any

from .verify import Report, verify, words


def assert_vjp(
    f: Callable[..., Any],
    *args: Any,
    definition: Callable[..., Any] | None = None,
    vary: bool = True,
    **statics: Any,
) -> Report:
    """Assert that the backward rule of a function is right; the arguments are `fnn.verify`'s.

        def test_squash():
            assert_vjp(squash, "f32[4,3]", slope=2.0)

    Returns the report, of which a test may ask more: a resolution, a capability.

    Raises AssertionError with all that was found, and what `fnn.verify` raises for a wrong call.
    """
    __tracebackhide__ = True  # pytest shows the line of the test, and not this one
    report = verify(f, *args, definition=definition, vary=vary, **statics)
    if not report.ok:
        raise AssertionError(words.failure(report))
    return report
