"""Layers and initialisers: shapes, fans, and errors that say where."""

import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
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

from .runs import drawn, in_numpy
from .runs import layer as layer_of

KEY = jax.random.key(0)
NORMALS = np.random.default_rng(0).normal(size=100).astype(np.float32)
MODEL = Serial([Flatten(), Dense(7), Activation(ops.relu), MaskedDense(3, fan_in=2)])


# Initialisers

VARIANCES = {
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he": lambda fan_in, fan_out: 2 / fan_in,
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
}
SCALED = [name for name in INITIALIZERS if name.split("_")[0] in VARIANCES]


@functools.cache
def all_drawn(shape):
    """An array by every initialiser, in one program."""
    return jax.jit(lambda: {name: INITIALIZERS[name]()(KEY, shape) for name in SCALED})()


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("shape", [(200, 50), (3, 3, 20, 30)])
def test_variance_scaling_has_the_variance_of_its_fans(name, shape):
    receptive = math.prod(shape[:-2])
    want = VARIANCES[name.split("_")[0]](receptive * shape[-2], receptive * shape[-1])
    drawn = np.asarray(all_drawn(shape)[name])
    assert drawn.shape == shape
    assert drawn.dtype == jnp.float32
    # The variance of n draws is known to about √(2/n): here 2 %; 10 % is five of these.
    assert abs(float(drawn.var()) / want - 1) < 0.1
    assert abs(float(drawn.mean())) < 5 * math.sqrt(want / drawn.size)
    if name.endswith("uniform"):
        assert float(np.abs(drawn).max()) <= math.sqrt(3 * want) * (1 + 1e-6)


def test_a_vector_has_no_fans():
    with pytest.raises(ValueError, match="start a vector with zeros, constant, normal or uniform"):
        he_normal()(KEY, (10,))
    assert fans_of((5, 5, 3, 10)) == Fans(75, 250)


def test_simple_initialisers():
    uniform = INITIALIZERS["uniform"](scale=2.0)
    makers = INITIALIZERS["zeros"](), constant(value=2.5), normal(stddev=3.0), uniform
    shapes = (3,), (2,), (10_000,), (10_000,)
    arrays = jax.jit(lambda: [make(KEY, shape) for make, shape in zip(makers, shapes)])()
    zeros, halves, normals, uniforms = map(np.asarray, arrays)
    np.testing.assert_array_equal(zeros, np.zeros(3))
    np.testing.assert_array_equal(halves, np.full(2, 2.5))
    assert abs(float(normals.std()) - 3) < 0.1
    assert 1.9 < float(uniforms.max()) <= 2
    assert -2 <= float(uniforms.min()) < -1.9


def test_orthogonal():
    shapes = [(4, 4), (8, 3), (3, 8)]
    several = jax.jit(lambda: [INITIALIZERS["orthogonal"](scale=2.0)(KEY, s) for s in shapes])()
    for shape, w in zip(shapes, map(np.asarray, several), strict=True):
        assert w.shape == shape
        gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
        chex.assert_trees_all_close(gram, 4 * np.eye(min(shape), dtype="f"), atol=1e-5)


# Layers


def test_the_textbook_convolution_has_the_textbook_numbers():
    """Ten 5×5 windows over 32×32×3, padded by 2."""
    layer, x_shape = Conv(10, 5, padding=2), (1, 32, 32, 3)
    params, _, y_shape = abstract_init(layer, x_shape)
    assert y_shape == (1, 32, 32, 10)
    assert sum(p.size for p in jax.tree.leaves(params)) == 760
    assert layer.multiply_adds(x_shape, y_shape) == 768_000


USES = {  # beside what a layer requires
    "conv": {"features": 5, "window": 3, "stride": (1, 2), "padding": "SAME"},
    "avg_pool": {"window": 3, "stride": 2, "padding": 1},
    "unfold": {"window": (3, 2), "stride": 2},
    "upsample": {"scale": (3, 1), "method": "linear"},
    "residual": {"body": [Dense(6), BatchNorm()]},
    "conv_transpose": {"features": 4, "window": 3, "stride": 2, "groups": 2},
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_does_what_its_init_says(name):
    layer, x_shape = LAYERS[name](**USES[name]) if name in USES else layer_of(name), (4, 6, 5, 6)
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
    params, state = jax.jit(lambda: MODEL.init(KEY, (8, 2, 3, 1))[:2])()
    assert abstract_init(MODEL, (8, 2, 3, 1))[2] == (8, 3)
    assert jax.tree.map(jnp.shape, params) == {
        "1_dense": {"w": (6, 7), "b": (7,)},
        "3_masked_dense": {"w": (7, 3), "b": (3,)},
    }
    assert jax.tree.map(jnp.shape, state) == {"3_masked_dense": {"mask": (7, 3)}}
    y, after = jax.jit(MODEL.apply)(params, state, np.ones((5, 2, 3, 1), "f"))
    assert y.shape == (5, 3)
    chex.assert_trees_all_equal(after, state)


def test_batch_norm_keeps_running_statistics_without_their_bias():
    layer, x = BatchNorm(momentum=0.75), 3 * NORMALS[:40].reshape(5, 2, 4) + 1
    params = {"scale": np.ones(4, "f"), "bias": np.zeros(4, "f")}
    state = {"mean": np.zeros(4, "f"), "var": np.ones(4, "f")}

    def twice(x):
        initial = layer.init(KEY, x.shape)[:2]
        y, after = layer.apply(params, state, x, train=True)
        return initial, y, after, layer.apply(params, after, x)

    initial, y, after, (fixed, same) = in_numpy(twice, x)
    chex.assert_trees_all_equal(initial, (params, state))
    rows = x.reshape(10, 4)
    want = {"mean": 0.25 * rows.mean(0), "var": 0.75 + 0.25 * rows.var(0, ddof=1)}
    chex.assert_trees_all_close(after, want, rtol=1e-5)
    chex.assert_trees_all_close(y.mean((0, 1)), np.zeros(4, "f"), atol=1e-6)
    centred = (x - after["mean"]) * after["var"] ** -0.5
    chex.assert_trees_all_close(fixed, centred, rtol=1e-4)
    chex.assert_trees_all_equal(same, after)


def test_under_vmap_every_member_has_its_own_statistics():
    layer, x = BatchNorm(), NORMALS[:60].reshape(3, 5, 4)
    halves = BatchNorm(axis_name="halves")

    @jax.jit
    def every_way(x):
        params, state, _ = layer.init(KEY, (5, 4))

        def train(x, layer=layer):
            return layer.apply(params, state, x, train=True)

        parts = x[0, :4].reshape(2, 2, 4)
        split = jax.vmap(lambda x: train(x, halves), axis_name="halves")(parts)
        return [train(member) for member in x], jax.vmap(train)(x), split, train(x[0, :4])

    singly, mapped, (y, after), (whole, want) = every_way(x)
    stacked = jax.tree.map(lambda *a: np.stack(a), *singly)
    chex.assert_trees_all_close(mapped, stacked, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(y.reshape(4, 4), whole, rtol=1e-5, atol=1e-6)
    after = jax.tree.map(lambda a: np.asarray(a)[1], after)
    chex.assert_trees_all_close(after, want, rtol=1e-5, atol=1e-6)


def test_dropout_draws_anew_for_each_layer_and_key_and_only_to_train():
    model, x = Serial([Dropout(0.5), Residual([Dropout(0.5)])]), np.ones((4, 64), "f")
    train = jax.jit(lambda key: model.apply({}, {}, x, key=key, train=True)[0])
    y, again, other = map(np.asarray, (train(KEY), train(KEY), train(jax.random.key(1))))
    np.testing.assert_array_equal(y, again)
    assert set(y.ravel().tolist()) == {0.0, 2.0, 6.0}, "the second mask is not the first"
    assert np.any(y != other)
    np.testing.assert_array_equal(model.apply({}, {}, x)[0], 2 * x)
    same = jnp.ones((4, 5))
    for layer in (Dropout(0.0), DropPath(0)):  # they draw nothing
        assert layer.apply({}, {}, same, train=True)[0] is same, "and needs no key"


def test_rates_and_momentum_are_numbers_of_one_program():
    """A sweep maps over them: each member learns as a layer of its own."""
    x = NORMALS[:30].reshape(6, 5)

    def train(rate, momentum):
        model = Serial([BatchNorm(momentum=momentum), Dropout(rate), Residual([DropPath(rate)])])
        params, state, _ = model.init(KEY, x.shape)
        return model.apply(params, state, x, key=KEY, train=True)

    pairs = [(0.0, 0.9), (0.3, 0.99), (0.5, 1.0)]
    several = jax.jit(jax.vmap(train))(*np.float32(pairs).T)
    singly = in_numpy(lambda: [train(*pair) for pair in pairs])
    for i, alone in enumerate(singly):
        member = jax.tree.map(lambda a, i=i: np.asarray(a)[i], several)
        chex.assert_trees_all_close(member, alone, rtol=1e-5, atol=1e-6)


def test_a_scanning_network_is_a_convolution_and_finds_a_pattern_anywhere():
    scan = scan_1d(window=3, body=[Dense(5), Activation(ops.tanh)], stride=2)
    x = NORMALS[:88].reshape(2, 11, 4)
    params, state = drawn(scan, x.shape)
    word = np.zeros((1, 11, 4), "f")
    word[:, 2:5] = x[:1, :3]

    @jax.jit
    def both(params, x, word):
        w, b = (params["1_dense"][name] for name in ("w", "b"))
        places = jnp.tanh(ops.conv(x, w.reshape(3, 4, 5), b, stride=2))
        pair = [scan.apply(params, state, a)[0] for a in (word, jnp.roll(word, 4, 1))]
        return scan.apply(params, state, x)[0], places.max(1), *pair

    y, want, first, later = both(params, x, word)
    chex.assert_trees_all_close(y, want, rtol=1e-5)
    chex.assert_trees_all_close(first, later)


def test_each_unit_of_a_masked_layer_sees_fan_in_inputs_and_no_other():
    layer = MaskedDense(50, fan_in=4, w_init=he_normal())
    x = np.ones((2, 30), "f")

    @jax.jit
    def start(key):
        params, state, _ = layer.init(key, (1, 30))
        return params, state, jax.grad(lambda p: layer.apply(p, state, x)[0].sum())(params)

    (params, state, gradient), (again, same, _) = map(
        jax.device_get, (start(KEY), start(jax.random.key(7)))
    )
    assert set(state["mask"].sum(0).tolist()) == {4}
    assert not np.all(state["mask"] == state["mask"][:, :1])
    chex.assert_trees_all_equal(params["w"], np.where(state["mask"], params["w"], np.float32(0)))
    assert abs(float(params["w"][state["mask"]].var()) / (2 / 4) - 1) < 0.5
    chex.assert_trees_all_equal(same, state)
    assert np.any(again["w"] != params["w"])
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


CUTS = "conv_transpose: output_padding 1 must be less than the stride 1"
HALVES = "the body makes (2, 5, 8) of (2, 9, 8), the shortcut (2, 9, 8); give a shortcut"
IN_BODY = [Dense(4), Residual([Dense(4), Conv(2, 3)])]


@pytest.mark.parametrize(
    ("layers", "x_shape", "words"),
    [
        (MODEL.layers, (8, 3, 0), "model.1 dense: expects (batch, ..., in"),
        (NESTED, (8, 4), "model.1.0 masked_dense: fan_in 5 is more than the 2 inputs there are"),
        ([Conv(8, 5)], (2, 4, 9, 3), "model.0 conv: the window 5×5 is larger than the input 4×9"),
        ([Conv(8, 3, groups=2)], (2, 9, 3), "conv: 2 groups do not divide 3 inputs"),
        ([Conv(8, 3, padding=-1)], (2, 9, 3), "conv: padding must be 'SAME', 'VALID', a whole num"),
        ([Conv(8, 3)], (2, 9), "conv: expects (batch, 1 to 3 axes"),
        ([ConvTranspose(8, 3, output_padding=1)], (2, 9, 3), CUTS),
        ([ConvTranspose(8, 3, padding=3)], (2, 2, 3), "conv_transpose: padding 3 cuts off all"),
        ([MaxPool(5)], (2, 4, 9, 3), "model.0 max_pool: the window 5×5 is larger than the input"),
        ([Upsample(0)], (2, 9, 3), "upsample: scale must be whole"),
        (IN_BODY, (2, 9), "model.1.body.1 conv: expects (batch, 1 to 3 axes"),
        ([Residual([Conv(8, 3, stride=2, padding=1)])], (2, 9, 8), HALVES),
    ],
)
def test_an_input_that_does_not_fit_is_refused_with_its_layer(layers, x_shape, words):
    with pytest.raises(ValueError, match=re.escape(words)):  # a ShapeError is one
        abstract_init(Serial(layers), x_shape)


def test_an_array_that_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=re.escape("model.1 dense: expects (..., 6), got (8, 5)")):
        MODEL.apply(*drawn(MODEL, (8, 6)), np.ones((8, 5)))
    words = re.escape("dense: expects (..., 6), got (8, 3, 2); add flatten before it")
    with pytest.raises(ShapeError, match=words):
        Dense(2).apply({"w": np.ones((6, 2))}, {}, np.ones((8, 3, 2)))
    with pytest.raises(ValueError, match="dropout: draws when it trains; give apply a key"):
        Dropout(0.5).apply({}, {}, np.ones((2, 3)), train=True)
