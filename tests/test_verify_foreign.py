"""Foreign rules: `fnn.verify` runs on them as they are, and says what is known of them."""

import os
import sys
import warnings
from collections import Counter

import jax
import pytest

import fnn

from .foreign import ROWS
from .foreign_row import Row

SLOW = pytest.mark.skipif(os.environ.get("FNN_SLOW") != "1", reason="slow; FNN_SLOW=1 runs it")


def _marks(row: Row) -> list[pytest.MarkDecorator]:
    pending = [pytest.mark.xfail(reason=row.pending)] if row.pending else []
    return [SLOW, *pending] if row.slow else pending


@pytest.mark.parametrize("row", [pytest.param(r, marks=_marks(r), id=str(r)) for r in ROWS])
def test_verdict(row: Row, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", sys.argv[:1])  # tokamax reads its options from there
    with (
        warnings.catch_warnings(action="ignore"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        pytest.importorskip(row.library)
        report = fnn.verify(row.f, *row.args, definition=row.definition, **row.statics)
    assert {finding.defect for finding in report.findings} == row.expected, report


def test_rows_are_many_and_named_apart():
    assert sum(row.library in ("jax", "optax") and not row.slow for row in ROWS) >= 20
    assert {row.library for row in ROWS} == {"jax", "optax", "flax", "equinox", "tokamax"}
    assert [name for name, count in Counter(map(str, ROWS)).items() if count > 1] == []
