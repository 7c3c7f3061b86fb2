"""What the tests of training share: the command in this process, a run's rows, a stop on the way.

`from .runs import uncompared as uncompared` leaves out of a whole file what every run ends with,
the comparison with automatic differentiation, which takes longer than such small runs.
"""

import json
import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import cli
from fnn.data import DATASETS
from fnn.train.plan import abstract_init

EVERY_LAYER = """
model:
  - conv: {features: 4, window: 3, use_bias: false}  # which a batch norm would take away
  - batch_norm
  - max_pool: {window: 2}
  - upsample: {scale: 2}
  - conv_transpose: {features: 4, window: 3, stride: 2}
  - avg_pool: {window: 2}
  - residual: {body: [identity, layer_norm, {drop_path: {rate: 0.1}}]}
  - group_norm: {groups: 2}
  - local_response_norm
  - dropout: {rate: 0.1}
  - channel_dropout: {rate: 0.1}
  - alpha_dropout: {rate: 0.1}
  - residual: {body: [step]}  # which alone would pass no gradient
  - sigmoid
  - tanh
  - relu
  - leaky_relu
  - softplus
  - unfold: {window: 2}
  - residual:
      body: [residual: {body: [global_avg_pool], shortcut: [global_max_pool]}]
      shortcut:
        - residual:
            body: [global_softmax_pool]
            shortcut: [scan_1d: {window: 2, body: [dense: {features: 16}]}]
  - flatten
  - log_softmax
  - masked_dense: {features: 4, fan_in: 2}
  - softmax
  - dense: {features: 10}
"""
"""A model for the digits in which every layer stands once."""


@pytest.fixture(scope="module", autouse=True)
def uncompared():
    """No run of this file is compared with automatic differentiation at its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fnn.train.loop.compare_run", lambda run: {})
        yield


@pytest.fixture(scope="session")
def digits():
    """Six batches of 16 digits and their labels."""
    data = DATASETS["digits"]()
    return jnp.asarray(data.x_train[:96]), jnp.asarray(data.y_train[:96])


@pytest.fixture
def command(monkeypatch, capsys):
    """The command `fnn` in this process: its exit status, its output and its errors."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("fnn.train.compiled.keep_compiled", lambda config: None)
    before = signal.getsignal(signal.SIGINT)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["fnn", *map(str, words)])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
        finally:
            signal.signal(signal.SIGINT, before)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


class Stop:
    """Progress that acts on the `count`th call of one of its methods.

    It sends this process a signal, or raises what would end it there as a kill does.
    """

    def __init__(self, method, count, action):
        self.method, self.left, self.action = method, count, action

    def start(self, *_):
        self._count("start")

    def steps(self, *_):
        self._count("steps")

    def epoch(self, *_):
        self._count("epoch")

    def _count(self, method):
        self.left -= method == self.method
        if method == self.method and self.left == 0:
            if isinstance(self.action, int):
                os.kill(os.getpid(), self.action)
            else:
                raise self.action


def drawn(model, x_shape, dtype=np.float32):
    """Parameters and state for a model, drawn by NumPy: JAX compiles a program for each shape."""
    rng = np.random.default_rng(0)

    def draw(path, like):
        if like.dtype == bool:
            return rng.random(like.shape) < 0.5
        if path[-1].key in ("scale", "mean", "var"):
            return np.ones(like.shape, dtype)
        fan_in = np.prod(like.shape[:-1])
        return (rng.normal(size=like.shape) * np.sqrt(2 / fan_in)).astype(dtype)

    params, state, _ = abstract_init(model, x_shape)
    return jax.tree_util.tree_map_with_path(draw, (params, state))


def metrics(folder):
    """The rows of a run's metrics.jsonl, but for the time that they took."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def arrays(file):
    """The arrays of an .npz file by name."""
    with np.load(file) as archive:
        return dict(archive)
