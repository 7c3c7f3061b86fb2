"""Foreign rules: `fnn.verify` runs on them as they are, and says what is known of them."""

import sys
import warnings
from collections import Counter

import jax
import pytest

import fnn

from .foreign import ROWS
from .foreign_row import Row


def _param(row: Row):
    return pytest.param(row, marks=[] if row.quick else [pytest.mark.prove], id=str(row))


@pytest.mark.parametrize("row", [_param(row) for row in ROWS])
def test_verdict(row: Row, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", sys.argv[:1])  # tokamax reads its options from there
    with (
        warnings.catch_warnings(action="ignore"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        pytest.importorskip(row.library)
        report = fnn.verify(row.f, *row.args, definition=row.definition, **row.statics)
    assert {finding.defect for finding in report.findings} == set(
        filter(None, row.expected.split(", "))
    ), report


def test_rows_are_many_and_named_apart():
    libraries = {"jax", "optax", "flax", "equinox", "tokamax"}
    assert sum(row.library in ("jax", "optax") for row in ROWS) >= 20
    assert {row.library for row in ROWS} == {row.library for row in ROWS if row.quick} == libraries
    assert [name for name, count in Counter(map(str, ROWS)).items() if count > 1] == []
