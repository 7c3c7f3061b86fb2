"""Normalisations and dropouts: what a table over all ops cannot see of them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import fnn
from fnn import ops
from fnn.errors import ShapeError

from .runs import in_numpy


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X = drawn(0, 8, 3, 5) * 2 + 30
SCALE, BIAS, DY, ONES = 1 + 0.3 * drawn(1, 5), drawn(2, 5), drawn(3, 8, 3, 5), np.ones(5, "f")
BATCH_NORMS = (ops.batch_norm, ops.batch_norm_leaky_relu)


def pulled(op, x, dy):
    """The output and its statistics, and the cotangents of x, scale and bias."""
    (y, *statistics), pull = jax.vjp(op, x, SCALE, BIAS)
    return y, *statistics, *pull((dy, ONES, ONES))


@functools.cache
def whole(op):
    return in_numpy(functools.partial(pulled, op), X, DY)


def check(got, op):
    for a, b in zip(got, whole(op), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_a_batch_on_four_devices_is_one_batch():
    """By either rules, both batch norms, with and without the check of what varies."""
    cases = list(itertools.product(BATCH_NORMS, ("manual", "autodiff"), (True, False)))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = P("data"), P(), P()

    def case(op, rules, check_vma, x, dy):
        of_all = functools.partial(op, axis_name="data")
        mapped = jax.shard_map(
            of_all, mesh=mesh, in_specs=specs, out_specs=specs, check_vma=check_vma
        )
        with fnn.rules(rules):
            return pulled(mapped, x, dy)

    # one program, for compiling takes the time
    outputs = jax.jit(lambda x, dy: [case(*c, x, dy) for c in cases])(X, DY)
    for (op, *_), got in zip(cases, outputs, strict=True):
        check(got, op)


@pytest.mark.parametrize("op", BATCH_NORMS, ids=lambda op: op.name)
def test_gradients_inside_a_vmap_see_the_whole_batch(op):
    mapped = functools.partial(pulled, functools.partial(op, axis_name="data"))
    parts = [a.reshape(4, 2, 3, 5) for a in (X, DY)]
    y, mean, var, dx, dscale, dbias = jax.jit(jax.vmap(mapped, axis_name="data"))(*parts)
    got = y.reshape(X.shape), mean[0], var[0], dx.reshape(X.shape), dscale.sum(0), dbias.sum(0)
    check(got, op)


def test_the_statistics_of_a_batch_pass_no_gradient_on():
    for op in BATCH_NORMS:
        dx = jax.grad(lambda x: sum(map(jnp.sum, op(x, SCALE, BIAS)[1:])))  # noqa: B023
        assert not in_numpy(dx, X).any()


def test_a_large_mean_costs_no_digits():
    """E[x²] - E[x]² would have none left in float32."""
    x = drawn(5, 64, 3) + np.float32([[1e4, -1e4, 0.0]])
    want = np.asarray(x, np.float64)
    want = (want - want.mean(0)) / np.sqrt(want.var(0) + 1e-5)

    def three_norms(x):
        return ops.batch_norm(x)[0], ops.layer_norm(x.T).T, ops.instance_norm(x[None])[0]

    for got in jax.jit(three_norms)(x):  # as XLA orders the sums
        np.testing.assert_allclose(got, want, atol=4e-3)  # 2⁻²⁴ of the mean, ten times over


def test_statistics_are_float32_at_least_and_the_output_of_xs_dtype():
    for dtype in ("bfloat16", "float16"):
        x = jax.ShapeDtypeStruct(X.shape, dtype)
        y, mean, var = jax.eval_shape(ops.batch_norm, x, SCALE, BIAS)
        assert (y.dtype, mean.dtype, var.dtype) == (dtype, "float32", "float32")
        with fnn.rules("autodiff"):
            assert jax.eval_shape(ops.layer_norm, x, SCALE, BIAS).dtype == dtype


def test_a_scale_of_0_still_learns_from_the_output_alone():
    def plain(x, scale, bias):
        y, *statistics = ops.batch_norm(x, scale, bias)
        return ops.leaky_relu(y, negative_slope=0.01), *statistics

    def dscale(op, scale):
        return in_numpy(jax.grad(lambda s: jnp.sum(op(X, s, BIAS)[0] * DY)), np.full(5, scale, "f"))

    got, want = dscale(ops.batch_norm_leaky_relu, 0), dscale(plain, 1e-2)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_in_place_batch_norm_keeps_the_output_or_where_that_has_few_digits_the_input():
    for dtype, least, i in (
        ("float32", 1e-2, 0),
        ("bfloat16", 1e-2, 1),
        ("bfloat16", 0.25, 0),
    ):
        x = jnp.asarray(X, dtype)
        (y, *_), saved = ops.batch_norm_leaky_relu.fwd(x, SCALE, BIAS, least_scale=least)
        large = [a for a in jax.tree.leaves(saved) if a.size == x.size]
        assert len(large) == 1
        assert large[0] is (y, x)[i]


def test_local_response_norm_counts_as_the_paper_does():
    x = np.float32([1.0, 2.0, 3.0, 4.0])
    for size, alpha, k, sums in ((3, 0.5, 2.0, [5, 14, 29, 25]), (2, 1.0, 1.0, [1, 5, 13, 25])):
        norm = functools.partial(ops.local_response_norm, size=size, alpha=alpha, beta=1.0, k=k)
        np.testing.assert_allclose(in_numpy(norm, x), x / (k + alpha * np.array(sums)), rtol=1e-6)


KEY = jax.random.key(7)
DROPOUTS = (ops.dropout, ops.channel_dropout, ops.drop_path, ops.alpha_dropout)


def every_dropout(x, rate):
    return in_numpy(lambda x, rate: [op(x, KEY, rate) for op in DROPOUTS], x, np.float32(rate))


SHAPE = (600, 2, 2, 100)
"""One for two tests: drawing is compiled once for each shape, and that takes seconds."""


@pytest.mark.parametrize("op", DROPOUTS, ids=lambda op: op.name)
def test_dropout_keeps_the_key_and_the_rate_and_its_rate_is_the_rate(op):
    x = drawn(8, *SHAPE)

    def by_hand(x):
        y, saved = op.fwd(x, KEY, rate=0.3)
        dx, dkey, drate = op.bwd(saved, jnp.ones_like(x))
        saved_key, saved_rate = jax.tree.leaves(saved)
        assert saved_key is KEY
        assert dkey is None
        return y, saved_rate, dx, drate

    y, saved_rate, dx, drate = in_numpy(by_hand, x)
    assert (saved_rate, drate) == (np.float32(0.3), 0)
    dropped = np.asarray(dx) == 0
    apart = {"channel_dropout": 60_000, "drop_path": 600}.get(op.name, x.size)
    assert abs(dropped.mean() - 0.3) < 4 * np.sqrt(0.21 / apart)
    assert abs(np.mean(y)) < 0.02
    if op is ops.alpha_dropout:
        assert abs(np.var(y) - 1) < 0.02
    else:
        np.testing.assert_array_equal(dropped, y == 0)


def test_what_is_dropped_together():
    _, channels, examples, _ = every_dropout(np.ones(SHAPE, "f"), 0.5)
    for y, axes, example in ((channels, (1, 2), channels[0]), (examples, (1, 2, 3), examples)):
        assert np.ptp(y, axis=axes).max() == 0
        assert set(np.unique(example)) == {0, 2}


def test_a_drawing_depends_on_the_key_alone():
    x = drawn(9, 6, 5)

    def dropped(key, rate):
        return in_numpy(lambda x: jnp.stack([op(x, key, rate=rate) for op in DROPOUTS]), x)

    y = dropped(KEY, 0.5)
    np.testing.assert_array_equal(dropped(jax.random.key_data(KEY), 0.5), y)
    np.testing.assert_array_equal(dropped(KEY, 0.0), [x] * len(DROPOUTS))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(dropped(KEY, 0.5), y)


@pytest.mark.parametrize(
    "ops_of_one_program", [(ops.drop_path,), pytest.param(DROPOUTS, marks=pytest.mark.prove)]
)
def test_many_rates_in_one_program_give_the_bits_of_one_rate(ops_of_one_program):
    """A constant rate lets XLA compute with it beforehand, and round otherwise."""
    x, rates = drawn(9, 20, 3, 6), [0.0, 0.37, 0.95]

    def both(op, x, rate):
        y, pull = jax.vjp(lambda x: op(x, KEY, rate), x)
        return y, *pull(x)

    @jax.jit
    def many(x, rates):
        return [jax.vmap(lambda rate: both(op, x, rate))(rates) for op in ops_of_one_program]  # noqa: B023

    @jax.jit
    def single(x):
        of_rates = [[both(op, x, rate) for rate in rates] for op in ops_of_one_program]
        return [jax.tree.map(lambda *a: jnp.stack(a), *results) for results in of_rates]

    jax.tree.map(np.testing.assert_array_equal, many(x, np.float32(rates)), single(x))


@pytest.mark.parametrize("rate", [-0.1, 1.5, 2, float("nan")])
def test_a_rate_that_is_none_is_refused_or_if_traced_gives_nan(rate):
    x = drawn(0, 2, 3)
    for op in DROPOUTS:
        with pytest.raises(ValueError, match=f"{op.name}: rate must be from 0 to 1, got"):
            op(x, KEY, rate=rate)
    for rules in ("manual", "autodiff"):
        with fnn.rules(rules):
            assert np.isnan(every_dropout(x, rate)).all()


def test_a_rate_of_a_whole_number_has_no_gradient():
    dx = in_numpy(jax.grad(lambda x: sum(op(x, KEY, 0).sum() for op in DROPOUTS)), drawn(0, 2, 3))
    np.testing.assert_array_equal(dx, np.full((2, 3), len(DROPOUTS)))


batch_norm_leaky_relu = functools.partial(ops.batch_norm_leaky_relu, X, SCALE, BIAS)
REFUSED = {
    ShapeError: [
        (lambda: ops.layer_norm(X, SCALE[:4]), "layer_norm: x .8, 3, 5. has 5 channels"),
        (lambda: ops.batch_norm(X, SCALE, BIAS[:1]), "bias has the shape .1,."),
        (lambda: ops.batch_norm_inference(X, SCALE[:2], SCALE), "mean has the shape"),
        (lambda: ops.weight_norm(X, SCALE[:2]), "weight_norm: .* g has the shape"),
        (lambda: ops.group_norm(X, groups=2), "5 channels do not make 2 groups"),
        (lambda: ops.group_norm(X, groups=0), "5 channels do not make 0 groups"),
        (lambda: ops.group_norm(SCALE, groups=1), "expects .batch, ..., channels."),
        (lambda: ops.instance_norm(X[:, 0]), "with places between, got .8, 5."),
        (lambda: ops.rms_norm(jnp.ones(())), "rms_norm: x is one number"),
        (lambda: ops.l2_normalize(X, axis=3), "l2_normalize: there is no axis 3"),
        (lambda: ops.dropout(X, KEY, BIAS), "dropout: expects one rate, of shape .., got .5,"),
        (lambda: ops.channel_dropout(SCALE, KEY, rate=0.5), "channel_dropout: expects"),
        (lambda: ops.drop_path(jnp.ones(()), KEY, rate=0.5), "drop_path: expects"),
    ],
    ValueError: [
        (lambda: ops.layer_norm(X, eps=-1e-5), "layer_norm: eps must not be negative"),
        (lambda: ops.local_response_norm(X, size=0), "local_response_norm: expected size ≥ 1"),
        (lambda: ops.local_response_norm(X, k=0.0), "k 0.0"),
        (
            lambda: batch_norm_leaky_relu(negative_slope=0.0),
            "batch_norm_leaky_relu: negative_slope must be positive, got 0.0",
        ),
        (lambda: batch_norm_leaky_relu(least_scale=0.0), "least_scale must be positive"),
    ],
}


@pytest.mark.parametrize(
    ("error", "call", "words"), [(e, *row) for e, rows in REFUSED.items() for row in rows]
)
def test_what_cannot_be_is_refused_in_words(error, call, words):
    with pytest.raises(error, match=words):
        call()
