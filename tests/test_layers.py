"""Layers and initialisers: shapes, fans, and errors that say where."""

import math
import re

import chex
import jax
import jax.numpy as jnp
import pytest

from fnn import ops
from fnn.errors import ShapeError
from fnn.init import INITIALIZERS, Fans, constant, fans_of, he_normal, normal
from fnn.layers import (
    LAYERS,
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    DropPath,
    Flatten,
    MaskedDense,
    MaxPool,
    Residual,
    Serial,
    Upsample,
    scan_1d,
)
from fnn.train.plan import abstract_init

from .runs import drawn

KEY = jax.random.key(0)
MODEL = Serial([Flatten(), Dense(7), Activation(ops.relu), MaskedDense(3, fan_in=2)])


# Initialisers

VARIANCES = {
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he": lambda fan_in, fan_out: 2 / fan_in,
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
}


@pytest.mark.parametrize("name", [n for n in INITIALIZERS if n.split("_")[0] in VARIANCES])
@pytest.mark.parametrize("shape", [(200, 50), (3, 3, 20, 30)])
def test_variance_scaling_has_the_variance_of_its_fans(name, shape):
    receptive = math.prod(shape[:-2])
    want = VARIANCES[name.split("_")[0]](receptive * shape[-2], receptive * shape[-1])
    drawn = INITIALIZERS[name]()(KEY, shape)
    assert drawn.shape == shape
    assert drawn.dtype == jnp.float32
    # The variance of n draws is known to about √(2/n): here 2 %; 10 % is five of these.
    assert abs(float(drawn.var()) / want - 1) < 0.1
    assert abs(float(drawn.mean())) < 5 * math.sqrt(want / drawn.size)
    if name.endswith("uniform"):
        assert float(jnp.abs(drawn).max()) <= math.sqrt(3 * want) * (1 + 1e-6)


def test_a_vector_has_no_fans():
    with pytest.raises(ValueError, match="start a vector with zeros, constant, normal or uniform"):
        he_normal()(KEY, (10,))
    assert fans_of((5, 5, 3, 10)) == Fans(75, 250)


def test_simple_initialisers():
    assert float(jnp.abs(INITIALIZERS["zeros"]()(KEY, (3,))).max()) == 0
    chex.assert_trees_all_equal(constant(value=2.5)(KEY, (2,)), jnp.full(2, 2.5))
    assert abs(float(normal(stddev=3.0)(KEY, (10_000,)).std()) - 3) < 0.1
    drawn = INITIALIZERS["uniform"](scale=2.0)(KEY, (10_000,))
    assert 1.9 < float(drawn.max()) <= 2
    assert -2 <= float(drawn.min()) < -1.9


@pytest.mark.parametrize("shape", [(4, 4), (8, 3), (3, 8)])
def test_orthogonal(shape):
    w = INITIALIZERS["orthogonal"](scale=2.0)(KEY, shape)
    gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
    chex.assert_trees_all_close(gram, 4 * jnp.eye(min(shape)), atol=1e-5)


# Layers


def test_the_textbook_convolution_has_the_textbook_numbers():
    """Ten 5×5 windows over 32×32×3, padded by 2."""
    layer, x_shape = Conv(10, 5, padding=2), (1, 32, 32, 3)
    params, _, y_shape = layer.init(KEY, x_shape)
    assert y_shape == (1, 32, 32, 10)
    assert sum(p.size for p in jax.tree.leaves(params)) == 760
    assert layer.multiply_adds(x_shape, y_shape) == 768_000


USES = {
    "dense": ({"features": 5}, (4, 6)),
    "masked_dense": ({"features": 5, "fan_in": 2}, (4, 6)),
    "conv": ({"features": 5, "window": 3, "stride": (1, 2), "padding": "SAME"}, (4, 6, 5, 2)),
    "max_pool": ({"window": 2}, (4, 6, 5, 2)),
    "avg_pool": ({"window": 3, "stride": 2, "padding": 1}, (4, 6, 5, 2)),
    "global_avg_pool": ({}, (4, 6, 5, 2)),
    "global_max_pool": ({}, (4, 6, 5, 2)),
    "global_softmax_pool": ({}, (4, 6, 5, 2)),
    "unfold": ({"window": (3, 2), "stride": 2}, (4, 6, 5, 2)),
    "upsample": ({"scale": (3, 1), "method": "linear"}, (4, 6, 5, 2)),
    "group_norm": ({"groups": 2}, (4, 6, 4)),
    "dropout": ({"rate": 0.5}, (4, 6)),
    "channel_dropout": ({"rate": 0.5}, (4, 6)),
    "alpha_dropout": ({"rate": 0.5}, (4, 6)),
    "drop_path": ({"rate": 0.5}, (4, 6)),
    "residual": ({"body": [Dense(6), BatchNorm()]}, (4, 6)),
    "scan_1d": ({"window": 3, "body": [Dense(5)]}, (4, 8, 2)),
    "conv_transpose": ({"features": 4, "window": 3, "stride": 2, "groups": 2}, (4, 3, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_does_what_its_init_says(name):
    arguments, x_shape = USES.get(name, ({}, (4, 6)))
    layer = LAYERS[name](**arguments)
    params, state, y_shape = abstract_init(layer, x_shape)
    x = jax.ShapeDtypeStruct(x_shape, jnp.float32)

    def apply(params, state, x):
        y, after = layer.apply(params, state, x)
        pairs = zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True)
        assert all(one is other for one, other in pairs)
        return y, layer.apply(params, state, x, key=KEY, train=True)

    y, (trained, after) = jax.eval_shape(apply, params, state, x)
    assert y.shape == trained.shape == y_shape
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert layer.name == name
    assert hash(layer) == hash(layer)


def test_serial_names_parameters_by_place_and_layer():
    params, state, y_shape = MODEL.init(KEY, (8, 2, 3, 1))
    assert jax.tree.map(jnp.shape, params) == {
        "1_dense": {"w": (6, 7), "b": (7,)},
        "3_masked_dense": {"w": (7, 3), "b": (3,)},
    }
    assert jax.tree.map(jnp.shape, state) == {"3_masked_dense": {"mask": (7, 3)}}
    assert y_shape == (8, 3)
    y, after = jax.jit(MODEL.apply)(params, state, jnp.ones((5, 2, 3, 1)))
    assert y.shape == (5, 3)
    chex.assert_trees_all_equal(after, state)


def test_batch_norm_keeps_running_statistics_without_their_bias():
    layer, x = BatchNorm(momentum=0.75), 3 * jax.random.normal(KEY, (5, 2, 4)) + 1
    params, state, _ = layer.init(KEY, x.shape)
    y, after = layer.apply(params, state, x, train=True)
    rows = x.reshape(10, 4)
    want = {"mean": 0.25 * rows.mean(0), "var": 0.75 + 0.25 * rows.var(0, ddof=1)}
    chex.assert_trees_all_close(after, want, rtol=1e-5)
    chex.assert_trees_all_close(y.mean((0, 1)), jnp.zeros(4), atol=1e-6)
    fixed, same = layer.apply(params, after, x)
    centred = (x - after["mean"][None, None]) * after["var"][None, None] ** -0.5
    chex.assert_trees_all_close(fixed, centred, rtol=1e-4)
    chex.assert_trees_all_equal(same, after)


def test_under_vmap_every_member_has_its_own_statistics():
    layer, x = BatchNorm(), jax.random.normal(KEY, (3, 5, 4))
    params, state, _ = layer.init(KEY, (5, 4))

    def train(x):
        return layer.apply(params, state, x, train=True)

    singly = [train(member) for member in x]
    chex.assert_trees_all_close(
        jax.vmap(train)(x), jax.tree.map(lambda *a: jnp.stack(a), *singly), rtol=1e-5, atol=1e-6
    )
    halves = BatchNorm(axis_name="halves")
    y, after = jax.vmap(lambda x: halves.apply(params, state, x, train=True), axis_name="halves")(
        x[0, :4].reshape(2, 2, 4)
    )
    whole, want = layer.apply(params, state, x[0, :4], train=True)
    chex.assert_trees_all_close(y.reshape(4, 4), whole, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(jax.tree.map(lambda a: a[1], after), want, rtol=1e-5, atol=1e-6)


def test_dropout_draws_anew_for_each_layer_and_key_and_only_to_train():
    model, x = Serial([Dropout(0.5), Residual([Dropout(0.5)])]), jnp.ones((4, 64))
    y, _ = model.apply({}, {}, x, key=KEY, train=True)
    again, _ = model.apply({}, {}, x, key=KEY, train=True)
    other, _ = model.apply({}, {}, x, key=jax.random.key(1), train=True)
    chex.assert_trees_all_equal(y, again)
    assert set(y.ravel().tolist()) == {0.0, 2.0, 6.0}, "the second mask is not the first"
    assert bool(jnp.any(y != other))
    chex.assert_trees_all_equal(model.apply({}, {}, x)[0], 2 * x)


def test_rates_and_momentum_are_numbers_of_one_program():
    """A sweep maps over them: each member learns as a layer of its own."""
    x = jax.random.normal(KEY, (6, 5))

    def train(rate, momentum):
        model = Serial([BatchNorm(momentum=momentum), Dropout(rate), Residual([DropPath(rate)])])
        params, state, _ = model.init(KEY, x.shape)
        return model.apply(params, state, x, key=KEY, train=True)

    pairs = [(0.0, 0.9), (0.3, 0.99), (0.5, 1.0)]
    several = jax.jit(jax.vmap(train))(*jnp.asarray(pairs).T)
    for i, pair in enumerate(pairs):
        member = jax.tree.map(lambda a, i=i: a[i], several)
        chex.assert_trees_all_close(member, train(*pair), rtol=1e-5, atol=1e-6)


def test_a_dropout_of_rate_0_draws_nothing():
    x = jnp.ones((4, 5))
    for layer in (Dropout(0.0), DropPath(0)):
        assert layer.apply({}, {}, x, train=True)[0] is x, "and needs no key"


def test_a_scanning_network_is_a_convolution_and_finds_a_pattern_anywhere():
    scan = scan_1d(window=3, body=[Dense(5), Activation(ops.tanh)], stride=2)
    x = jax.random.normal(KEY, (2, 11, 4))
    params, state, _ = scan.init(KEY, x.shape)
    w, b = (params["1_dense"][name] for name in ("w", "b"))
    places = jnp.tanh(ops.conv(x, w.reshape(3, 4, 5), b, stride=2))
    y, _ = scan.apply(params, state, x)
    chex.assert_trees_all_close(y, places.max(1), rtol=1e-5)
    word = jnp.zeros((1, 11, 4)).at[:, 2:5].set(x[:1, :3])
    later = jnp.roll(word, 4, 1)
    chex.assert_trees_all_close(*(scan.apply(params, state, a)[0] for a in (word, later)))


def test_each_unit_of_a_masked_layer_sees_fan_in_inputs_and_no_other():
    layer = MaskedDense(50, fan_in=4, w_init=he_normal())
    params, state, _ = layer.init(KEY, (1, 30))
    assert set(state["mask"].sum(0).tolist()) == {4}
    assert not bool(jnp.all(state["mask"] == state["mask"][:, :1]))
    chex.assert_trees_all_equal(params["w"], jnp.where(state["mask"], params["w"], 0))
    assert abs(float(params["w"][state["mask"]].var()) / (2 / 4) - 1) < 0.5
    again, same, _ = layer.init(jax.random.key(7), (1, 30))
    chex.assert_trees_all_equal(same, state)
    assert bool(jnp.any(again["w"] != params["w"]))
    gradient = jax.grad(lambda p: layer.apply(p, state, jnp.ones((2, 30)))[0].sum())(params)
    chex.assert_trees_all_equal(gradient["w"] != 0, state["mask"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dense(0), "features must be at least 1, got 0"),
        (lambda: MaskedDense(2, fan_in=0), "fan_in must be at least 1, got 0"),
        (lambda: LAYERS["relu"](slope=1), "relu has no argument 'slope'"),
        (lambda: Conv(0, 3), "conv: features must be at least 1, got 0"),
        (lambda: DropPath(2), "drop_path: rate must be from 0 to 1, got 2"),
        (lambda: BatchNorm(momentum=2), "momentum must be from 0 to 1, got 2"),
    ],
)
def test_a_hyperparameter_that_cannot_be_is_refused(make, words):
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        make()


NESTED = [Serial([Dense(2)]), Serial([MaskedDense(3, fan_in=5)])]


@pytest.mark.parametrize(
    ("layers", "x_shape", "words"),
    [
        (MODEL.layers, (8, 3, 0), "model.1 dense: expects (batch, ..., in"),
        (NESTED, (8, 4), "model.1.0 masked_dense: fan_in 5 is more than the 2 inputs there are"),
        ([Conv(8, 5)], (2, 4, 9, 3), "model.0 conv: the window 5×5 is larger than the input 4×9"),
        ([Conv(8, 3, groups=2)], (2, 9, 3), "conv: 2 groups do not divide 3 inputs"),
        ([Conv(8, 3, padding=-1)], (2, 9, 3), "conv: padding must be 'SAME', 'VALID', a whole num"),
        ([Conv(8, 3)], (2, 9), "conv: expects (batch, 1 to 3 axes"),
        (
            [ConvTranspose(8, 3, output_padding=1)],
            (2, 9, 3),
            "conv_transpose: output_padding 1 must be less than the stride 1",
        ),
        ([ConvTranspose(8, 3, padding=3)], (2, 2, 3), "conv_transpose: padding 3 cuts off all"),
        ([MaxPool(5)], (2, 4, 9, 3), "model.0 max_pool: the window 5×5 is larger than the input"),
        ([Upsample(0)], (2, 9, 3), "upsample: scale must be whole"),
        (
            [Dense(4), Residual([Dense(4), Conv(2, 3)])],
            (2, 9),
            "model.1.body.1 conv: expects (batch, 1 to 3 axes",
        ),
        (
            [Residual([Conv(8, 3, stride=2, padding=1)])],
            (2, 9, 8),
            "the body makes (2, 5, 8) of (2, 9, 8), the shortcut (2, 9, 8); give a shortcut",
        ),
    ],
)
def test_an_input_that_does_not_fit_is_refused_with_its_layer(layers, x_shape, words):
    with pytest.raises(ValueError, match=re.escape(words)):  # a ShapeError is one
        abstract_init(Serial(layers), x_shape)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: MODEL.apply(*drawn(MODEL, (8, 6)), jnp.ones((8, 5))),
            ShapeError,
            "model.1 dense: expects (..., 6), got (8, 5)",
        ),
        (
            lambda: Dense(2).apply({"w": jnp.ones((6, 2))}, {}, jnp.ones((8, 3, 2))),
            ShapeError,
            "dense: expects (..., 6), got (8, 3, 2); add flatten before it",
        ),
        (
            lambda: Dropout(0.5).apply({}, {}, jnp.ones((2, 3)), train=True),
            ValueError,
            "dropout: draws when it trains; give apply a key",
        ),
    ],
)
def test_an_array_that_does_not_fit_is_refused(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call()
