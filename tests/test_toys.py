"""What somebody adds from outside the package is verified, configured and trained like the rest."""

import json
from pathlib import Path

import pytest

import fnn
from fnn.data import DATASETS
from fnn.layers import LAYERS
from fnn.models import MODELS

from .runs import command as command

CONFIG = """
name: toys
data: quadrants
model: [squashed: {width: 16}, squash, dense: {features: 2}]
loss: softmax_cross_entropy
optimizer: {adam: {learning_rate: 0.05}}
train: {epochs: 40, batch_size: 16}
"""


@pytest.fixture
def toys():
    """The module of toys; the tables are as they were when the test ends."""
    tables = (fnn.OPS, LAYERS, DATASETS, MODELS)
    before = [dict(table) for table in tables]
    from . import toys

    yield toys
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


def test_an_op_a_layer_a_dataset_and_a_model_from_outside_are_trained(toys, command, tmp_path):
    lines = Path(toys.__file__).read_text().splitlines()
    assert len(list(filter(None, lines))) < 40
    assert fnn.verify(toys.squash, vary=False).ok
    (tmp_path / "toys.yaml").write_text(CONFIG)
    status, out, errors = command("run", tmp_path / "toys.yaml", "--json", "--runs", tmp_path)
    assert status == 0, errors
    assert json.loads(out)["test_accuracy"] > 0.9
