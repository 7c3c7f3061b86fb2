"""The installed XLA must not miscompile what training compiles (jax-ml/jax#39103).

A matrix product is reduced over its few rows. In jax 0.10 XLA:CPU passes both to YNNPACK as one
kernel. It processes 32768 columns at a time and reads wrong columns in the last, shorter block.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import ops

ROWS, COLUMNS, SHARED = 3, 33_000, 3
TOLERANCE = 16 * SHARED * ROWS * float(jnp.finfo(jnp.float32).eps)
"""Relative to the largest entry; a wrong column is off by about that entry itself."""

pytestmark = pytest.mark.core


@pytest.fixture
def factors():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, SHARED)).astype(np.float32) for n in (ROWS, COLUMNS)]


def assert_same_columns(actual, expected):
    error = np.abs(np.asarray(actual, np.float64) - expected)
    wrong = np.flatnonzero(error > TOLERANCE * np.abs(expected).max())
    assert not wrong.size, f"{wrong.size} columns are wrong, the first is {wrong[0]}"


REDUCTIONS = {
    "sum": lambda z: z.sum(0),
    "max": lambda z: z.max(0),
    "sum of squares": lambda z: (z * z).sum(0),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_product_reduced_over_its_rows(factors, reduction):
    (a, b), reduce = factors, REDUCTIONS[reduction]
    expected = reduce(a.astype(np.float64) @ b.astype(np.float64).T)
    assert_same_columns(jax.jit(lambda a, b: reduce(a @ b.T))(a, b), expected)


def test_the_gradient_of_a_bias_before_a_dense_layer(factors):
    dy, w = factors
    x, bias = np.ones((ROWS, COLUMNS), np.float32), np.zeros(COLUMNS, np.float32)

    @jax.jit
    def bias_gradient(bias, x, w, dy):
        _, pull = jax.vjp(lambda bias: ops.dense(ops.layer_norm(x, None, bias), w), bias)
        return pull(dy)[0]

    expected = (dy.astype(np.float64) @ w.astype(np.float64).T).sum(0)
    assert_same_columns(bias_gradient(bias, x, w, dy), expected)
