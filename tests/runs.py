"""Helpers of the tests of training: the command in this process, its files, a stop in mid-run."""

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import cli
from fnn.data import DATASETS
from fnn.layers import LAYERS, Dense, Layer
from fnn.loss import LOSSES
from fnn.ops.geometry import Sizes
from fnn.train.plan import abstract_init
from fnn.train.precision import FLOAT32
from fnn.train.step import init, make_steps, make_update
from fnn.verifier.interpreter import interpreter

ROOT = Path(__file__).parents[1]
EVERY_LAYER = """
model:
  - conv: {features: 4, window: 3, use_bias: false}  # the batch norm would cancel it
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
  - residual: {body: [step]}  # alone it would pass no gradient
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
"""A model for the digits that holds every layer of fnn."""
DIVERGES = """
name: diverges
data: {rings: {points: 100}}
model: [dense: {features: 2}]
loss: squared_error
optimizer: {sgd: {learning_rate: 1.0e+30}}
train: {epochs: 50}
"""


@pytest.fixture(scope="session")
def digits():
    """Six batches of 16 digits and their labels."""
    data = DATASETS["digits"]()
    return jnp.asarray(data.x_train[:96]), jnp.asarray(data.y_train[:96])


@pytest.fixture
def command(monkeypatch, capsys):
    """Return a function that runs `fnn` in this process; it returns exit status, output, errors."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("fnn.runs.process.keep_compiled", lambda config: None)
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
        output, errors = capsys.readouterr()
        return status, output, errors

    return run


def layer(name):
    """Return a layer of the table; each required argument gets a value of its type."""
    values = {int: 2, float: 0.5, Sizes: 2, Sequence[Layer]: [Dense(6)]}
    parameters = inspect.signature(LAYERS[name], eval_str=True).parameters.values()
    required = [p for p in parameters if p.default is p.empty]
    return LAYERS[name](**{p.name: values[p.annotation] for p in required})


def python(*words, cwd=ROOT, **environment):
    """Start Python with these words, with the folder of compiled programs of this process."""
    programs = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | programs | environment,
    )


LOSS = LOSSES["softmax_cross_entropy"]()


def sampled(first, *rest):
    """Return values of a parameter: `make test` uses the first, `make prove` the others."""
    return [first, *(pytest.param(value, marks=pytest.mark.prove) for value in rest)]


def take_steps(model, optimizer, data, batches, *, seed=0, precision=FLOAT32, **options):
    """Return the state after one step per batch of the data, and the losses, by one program."""
    state = init(model, optimizer, data[0].shape, seed, precision)
    update = make_update(model, LOSS, optimizer, precision=precision, **options)
    return make_steps(update)(state, *data, batches)


class Stop:
    """Progress that acts on the `count`th call of one of its methods.

    It sends this process a signal, or raises an exception that ends the run there, like a kill.
    """

    def __init__(self, method, count, action):
        self.method, self.remaining, self.action = method, count, action

    def start(self, *_):
        self._count("start")

    def steps(self, *_):
        self._count("steps")

    def epoch(self, *_):
        self._count("epoch")

    def _count(self, method):
        self.remaining -= method == self.method
        if method == self.method and self.remaining == 0:
            if isinstance(self.action, int):
                os.kill(os.getpid(), self.action)
            else:
                raise self.action


def drawn(model, x_shape, dtype=np.float32):
    """Return parameters and state, drawn by NumPy: JAX would compile one program per shape."""
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


def in_numpy(function, *arguments):
    """Return a function's result, computed in NumPy: compiling takes a hundred times as long."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    run = interpreter(closed)
    return jax.tree.unflatten(jax.tree.structure(shapes), run(jax.tree.leaves(arguments)))


def metrics(folder):
    """Return the rows of a run's metrics.jsonl without their times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def arrays(file):
    """Return the arrays of an .npz file by name."""
    with np.load(file) as archive:
        return dict(archive)
