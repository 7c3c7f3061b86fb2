"""The explicit backward pass: its names, its shapes, and that it agrees with jax.grad."""

import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn import backprop, ops
from fnn.config import load
from fnn.errors import ShapeError
from fnn.layers import (
    LAYERS,
    Activation,
    BatchNorm,
    Dense,
    Dropout,
    DropPath,
    Flatten,
    Layer,
    MaskedDense,
    Residual,
    Serial,
)
from fnn.loss import LOSSES, Loss

from .runs import EVERY_LAYER, drawn, in_numpy, layer

KEY, X = jax.random.key(0), np.random.default_rng(1).normal(size=(6, 3))
CONFIGS = Path(__file__).parents[1] / "configs"
LARGE = {"alexnet"}  # differentiating it three times takes minutes; its layers are the others'
SHAPES = {  # of one example, the number of classes, and overrides, for each config
    "keyword_mlp": ((40, 1), 2),
    "keyword_scan": ((40, 1), 2),
    "cifar10_resnet": ((8, 8, 3), 10, "model.0.resnet.depth=8"),
    "mnist_lenet5": ((28, 28, 1), 10),
    "digits_2_or_not_2": ((8, 8, 1), 2),
    "digits_cnn": ((8, 8, 1), 10),
    "digits_mlp": ((8, 8, 1), 10),
    "digits_none_of_the_above": ((8, 8, 1), 11),
    "mnist_784_15_10": ((28, 28, 1), 10),
    "spirals": ((2,), 2),
    "xor": ((2,), 2),
}


MODELS = {
    "lecture": Serial([Dense(5), Activation(ops.sigmoid), Dense(4), Activation(ops.sigmoid)]),
    "classifier": Serial([Flatten(), Dense(6), Activation(ops.relu), Dense(4)]),
    "masked": Serial([MaskedDense(5, fan_in=2), Activation(ops.tanh), Dense(4)]),
    "vector activation": Serial([Dense(4), Activation(ops.softmax)]),
    "perceptron": Serial([Dense(5), Activation(ops.step), Dense(4)]),
    "nested": Serial([Serial([Dense(5), Activation(ops.leaky_relu)]), Serial([Dense(4)])]),
    "branches": Serial(
        [Dense(4), Residual([Dense(5), Activation(ops.tanh), Dense(4)], [Dense(4)]), Residual([])]
    ),
    "state and keys": Serial(
        [Dense(4), Residual([BatchNorm(), DropPath(0.3)]), Dropout(0.2), Activation(ops.tanh)]
    ),
    "no activation": Serial([Dense(5), Dense(4)]),
}


def agree(model, loss, x, labels, rules=("manual", "autodiff"), run=in_numpy):
    """The explicit pass and JAX's have the same gradients and next state, in float64."""
    params, state = drawn(model, x.shape, np.float64)

    def D(params):
        y, after = model.apply(params, state, x, key=KEY, train=True)
        return loss(y, labels), after

    def by_jax(params, which):
        with fnn.rules(which):
            return jax.value_and_grad(D, has_aux=True)(params)

    def every_way(params):
        explicit = backprop.value_and_grad(model, loss)(params, state, x, labels, KEY)
        return explicit, [by_jax(params, which) for which in rules]

    explicit, others = run(every_way, params)
    for other in others:
        chex.assert_trees_all_close(explicit, other, rtol=1e-12, atol=1e-12)
    return [np.abs(g).max() for g in jax.tree.leaves(explicit[1])]


@pytest.mark.parametrize("name", MODELS)
def test_gradients_agree(name):
    with jax.enable_x64(True):
        x, labels = X, np.arange(6) % 4
        largest = agree(MODELS[name], LOSSES["softmax_cross_entropy"](), x, labels)
    assert any(largest)


def test_gradients_agree_for_every_layer():
    """Those of EVERY_LAYER in one model, any other of the table by itself."""
    config = load(CONFIGS / "digits_mlp.yaml", [EVERY_LAYER.strip().replace(":", "=", 1)])
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        x = rng.random((3, 8, 8, 1))
        parts = config.build_model(), config.build_loss(), x, np.arange(3)
        largest = agree(*parts, rules=["autodiff"])  # a third way would take as long to compile
        for name in LAYERS.keys() - set(re.findall(r"\w+", EVERY_LAYER)):
            agree(
                Serial([layer(name), Flatten()]), parts[1], rng.random((3, 6, 5, 6)), np.arange(3)
            )
    assert min(largest) > 1e-6


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("outputs", [1, 4])
def test_gradients_agree_for_every_loss(loss, outputs):
    divergence = LOSSES[loss]()
    model = Serial([Dense(outputs), Activation(ops.sigmoid if outputs == 1 else ops.softmax)])
    if outputs == 1 and loss == "softmax_cross_entropy":
        with pytest.raises(ShapeError, match="needs"):
            divergence.check((6, 1), 2)
        return
    with jax.enable_x64(True):
        agree(model, divergence, X, np.arange(6) % max(2, outputs))


@pytest.mark.prove
@pytest.mark.parametrize("name", sorted({p.stem for p in CONFIGS.glob("*.yaml")} - LARGE))
def test_gradients_agree_for_every_config(name):
    x_shape, classes, *overrides = SHAPES[name]
    config = load(CONFIGS / f"{name}.yaml", overrides)
    with jax.enable_x64(True):
        x = np.random.default_rng(1).random((5, *x_shape))
        parts = config.build_model(), config.build_loss(), x, jnp.arange(5) % classes
        agree(*parts, run=lambda f, *args: jax.jit(f)(*args))


def test_every_array_and_every_derivative_has_its_name():
    model = MODELS["classifier"]
    x, labels, loss = jnp.ones((8, 3)), jnp.arange(8) % 4, LOSSES["softmax_cross_entropy"]()
    params, state = drawn(model, x.shape)
    values, tape = jax.jit(backprop.forward, static_argnums=0)(model, params, state, x)
    shapes = {"x": (8, 3), "y0": (8, 3)}
    shapes |= {"w1": (3, 6), "b1": (6,), "z1": (8, 6), "y1": (8, 6)}
    shapes |= {"w2": (6, 4), "b2": (4,), "z2": (8, 4), "y2": (8, 4)}
    assert {name: value.shape for name, value in values.items()} == shapes
    gradients = jax.jit(backprop.backward)(tape, loss.bwd(loss.fwd(values["y2"], labels)[1]))
    assert gradients.keys() == values.keys()
    chex.assert_trees_all_equal_shapes(gradients, values)


def test_intermediate_derivatives_are_those_of_a_nudge():
    """∂D/∂z_k is what jax.grad finds for a number added to z_k, and so for y_k and x."""
    model, loss = MODELS["lecture"], LOSSES["squared_error"]()

    def both(params, x, labels):
        values, tape = backprop.forward(model, params, state, x)
        gradients = backprop.backward(tape, loss.bwd(loss.fwd(values["y2"], labels)[1]))

        def nudged(nudges):
            y = x + nudges["x"]
            for i in (1, 2):
                layer = params[f"{2 * i - 2}_dense"]
                y = y @ layer["w"] + layer["b"][None] + nudges[f"z{i}"]
                y = jax.nn.sigmoid(y) + nudges[f"y{i}"]
            return loss(y, labels)

        nudges = {name: jnp.zeros_like(values[name]) for name in ("x", "z1", "y1", "z2", "y2")}
        return {name: gradients[name] for name in nudges}, jax.grad(nudged)(nudges)

    with jax.enable_x64(True):
        x, labels = X, np.arange(6) % 4
        params, state = drawn(model, x.shape, np.float64)
        chex.assert_trees_all_close(*in_numpy(both, params, x, labels), rtol=1e-12)


def test_a_layer_that_is_not_one_op_is_refused_by_name():
    class Opaque(Layer):
        name = "opaque"

        def init(self, key, x_shape):
            return {}, {}, x_shape

        def apply(self, params, state, x, *, key=None, train=False):
            return x, state

    with pytest.raises(TypeError, match="opaque is not an OpLayer"):
        backprop.forward(Serial([Opaque()]), {}, {}, jnp.ones((2, 3)))


# Losses: targets and decisions


@pytest.mark.parametrize(
    ("loss", "y", "decisions"),
    [
        ("softmax_cross_entropy", [[0.1, 0.9], [2.0, 1.0]], [1, 0]),
        ("binary_cross_entropy", [[0.4], [0.6]], [0, 1]),
        ("binary_cross_entropy_with_logits", [[-0.1], [0.1]], [0, 1]),
        ("squared_error", [[0.4], [0.6]], [0, 1]),
    ],
)
def test_decisions(loss, y, decisions):
    assert LOSSES[loss]().decide(jnp.asarray(y)).tolist() == decisions


def test_a_loss_is_the_mean_over_examples_of_the_sum_over_outputs():
    y, labels = jnp.asarray([[0.2, 0.7], [0.5, 0.5]]), jnp.asarray([1, 0])
    for divergence in (LOSSES["squared_error"](), LOSSES["binary_cross_entropy"]()):
        each = divergence.per_example(y, labels)
        assert each.shape == (2,)
        chex.assert_trees_all_close(divergence(y, labels), each.mean(), rtol=1e-6)
    assert Loss(ops.squared_error).per_example(y, labels)[0] == pytest.approx(0.065)


@pytest.mark.parametrize(
    ("shape", "classes", "words"),
    [
        ((8, 9), 10, r"ends with shape \(8, 9\).*over 10 classes needs \(8, 10\)"),
        ((8, 4, 4, 10), 10, "put flatten first, and end it with dense: {features: 10}"),
        ((8, 1), 2, r"needs \(8, 2\)"),
    ],
)
def test_a_model_that_ends_wrong_is_told_how_to_end(shape, classes, words):
    with pytest.raises(ShapeError, match=words):
        LOSSES["softmax_cross_entropy"]().check(shape, classes)
