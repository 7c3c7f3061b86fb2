"""Pooling: conventions and errors that the table of ops cannot see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import ops
from fnn.errors import ShapeError

KEY = jax.random.key(0)


def image(*space, channels=2):
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, *space, channels)), "float32")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ops.max_pool(image(4, 4), window=5), "max_pool: the window 5×5 is larger"),
        (lambda: ops.max_pool(image(4, 4), window=2, padding=2), "meets padding alone"),
        (lambda: ops.avg_pool(image(1), window=2, padding=2, dilation=3), "meets padding alone"),
        (lambda: ops.global_max_pool(image(0)), "nothing in an empty space"),
        (lambda: ops.adaptive_avg_pool(image(0), output=1), "nothing in an empty space"),
        (lambda: ops.max_unpool(image(2), jnp.zeros((2, 2, 2), int), space=(4, 4)), "2 axes"),
        (lambda: ops.max_unpool(image(2), jnp.zeros((2, 3, 2), int), space=(4,)), "must match"),
        (
            lambda: ops.fractional_max_pool(image(3), KEY, output=4),
            r"output \(4,\) is larger than the input",
        ),
    ],
)
def test_a_geometry_that_cannot_be_is_refused_by_name(call, words):
    with pytest.raises(ShapeError, match=words):
        call()


def test_a_norm_has_a_finite_power_of_at_least_1():
    for p in (0.5, float("inf")):
        with pytest.raises(ValueError, match="lp_pool: p must be"):
            ops.lp_pool(image(4), p=p, window=2)


def test_the_first_of_equals_wins_and_a_nan_wins_over_numbers():
    x = jnp.asarray([1.0, 1.0, np.inf, np.nan, -np.inf, -np.inf, 2.0], "float32")
    for op in (ops.max_pool, ops.max_pool_with_indices):
        y, pull = jax.vjp(lambda x, op=op: op(x[None, :, None], window=2, padding=((0, 1),)), x)
        dy = jnp.asarray([1.0, 2.0, 3.0, 4.0], "float32")[None, :, None]
        if op is ops.max_pool_with_indices:
            assert y[1][0, :, 0].tolist() == [0, 3, 4, 6]
            dy = (dy, np.zeros(y[1].shape, jax.dtypes.float0))
        assert pull(dy)[0].tolist() == [1.0, 0.0, 0.0, 2.0, 3.0, 0.0, 4.0]


def test_unpooling_undoes_pooling_where_windows_do_not_overlap():
    x = jnp.abs(image(6, 4))
    y, indices = ops.max_pool_with_indices(x, window=2)
    back = ops.max_unpool(y, indices, space=(6, 4))
    assert (ops.max_pool(back, window=2) == y).all()
    assert (jnp.where(back != 0, x, 0) == back).all()


@pytest.mark.parametrize("overlapping", [False, True])
def test_random_regions_cover_all_and_differ_in_size_by_one(overlapping):
    x = jnp.arange(10.0)[None, :, None]
    keys = jax.random.split(KEY, 20)
    pool = functools.partial(ops.fractional_max_pool, output=7, overlapping=overlapping)
    draws = jax.jit(jax.vmap(pool, (None, 0)))(x, keys)[:, 0, :, 0]
    assert (draws[:, -1] == 9).all()
    assert set(np.unique(np.diff(draws))) <= ({1, 2} if not overlapping else {0, 1, 2})
    assert len(np.unique(draws, axis=0)) > 3


def test_more_than_255_taps():
    x = image(257, channels=1)
    gradient = jax.jit(jax.grad(lambda x: ops.max_pool(x, window=257).sum()))(x)
    assert (gradient[:, :, 0] == jnp.where(x == x.max(1, keepdims=True), 1, 0)[:, :, 0]).all()
