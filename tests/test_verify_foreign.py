"""`fnn.verify` runs on unchanged foreign rules and finds their known defects."""

import sys
import warnings
from collections import Counter

import jax
import pytest

import fnn

from .foreign import ROWS
from .foreign_row import Row

PARAMETERS = [pytest.param(r, marks=() if r.quick else pytest.mark.prove, id=str(r)) for r in ROWS]


@pytest.mark.parametrize("row", PARAMETERS)
def test_verdict(row: Row, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", sys.argv[:1])  # tokamax reads its options from argv
    with (
        warnings.catch_warnings(action="ignore"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        pytest.importorskip(row.library)
        report = fnn.verify(row.f, *row.args, definition=row.definition, **row.statics)
    expected = set(filter(None, row.expected.split(", ")))
    assert {finding.defect for finding in report.findings} == expected, report


def test_rows_are_many_with_unique_names():
    libraries = {"jax", "optax", "flax", "equinox", "tokamax"}
    assert sum(row.library in ("jax", "optax") for row in ROWS) >= 20
    assert {row.library for row in ROWS} == {row.library for row in ROWS if row.quick} == libraries
    assert [name for name, count in Counter(map(str, ROWS)).items() if count > 1] == []
