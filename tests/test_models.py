"""Named models: the figures that their papers and docstrings give, and that they run."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import ops
from fnn.layers import Activation, Conv, ConvTranspose, MaxPool, Residual, Serial, Upsample
from fnn.models import MODELS
from fnn.train import layer_table

from .runs import drawn, sampled


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_figures_of_its_docstring(name):
    """On images of the size that the docstring names; their whole is seen."""
    text = " ".join(MODELS[name].__doc__.replace(",", "").split())
    x_shape = tuple(map(int, re.search(r"images of (\d+)×(\d+)×(\d+)", text).groups()))
    rows = layer_table(MODELS[name](), (1, *x_shape))
    assert f"{sum(row.parameters for row in rows)} parameters" in text
    assert f"{sum(row.multiply_adds for row in rows)} multiply-adds" in text
    assert rows[-1].receptive_field == x_shape[:2]


SMALL = {
    "lenet5": ((12, 12, 1), {}),
    "small_cnn": ((4, 4, 1), {}),
    "resnet": ((4, 4, 3), {"depth": 8, "width": 4}),
    "mobilenet": ((16, 16, 3), {"width": 0.25}),
}


@pytest.mark.parametrize("name", sampled(*SMALL))  # the others take longer to compile
def test_a_model_trains_on_what_it_has_seen(name):
    """Its outputs have a gradient in every parameter, and a step against it lowers the loss."""
    x_shape, arguments = SMALL[name]
    model = MODELS[name](classes=3, **arguments)
    x = np.random.default_rng(1).normal(size=(6, *x_shape)).astype(np.float32)
    params, state = drawn(model, x.shape)

    @jax.jit
    def step(params):
        def loss(params):
            y, _ = model.apply(params, state, x, key=jax.random.key(0), train=True)
            assert y.shape == (6, 3)
            return jnp.mean(ops.softmax_cross_entropy(y, jnp.arange(6) % 3))

        D, gradients = jax.value_and_grad(loss)(params)
        return D, gradients, jax.tree.map(lambda p, g: p - 0.005 * g, params, gradients)

    D, gradients, params = step(params)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))
    assert float(step(params)[0]) < float(D)


@pytest.mark.parametrize(
    ("maker", "arguments", "words"),
    [
        ("resnet", {"depth": 18}, "depth must be 6 n + 2 (8, 14, 20, 32, 44, 56, …, 1202), got 18"),
        ("resnet", {"depth": 2}, "resnet: depth must be 6 n + 2"),
        ("mobilenet", {"width": 0.01}, "mobilenet: width must be at least 1/32, got 0.01"),
    ],
)
def test_what_makes_no_model_is_refused(maker, arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        MODELS[maker](**arguments)


FIELDS = {
    "windows": (Serial([Conv(2, 3), Conv(2, 3), Conv(2, 3)]), 7),
    "strides": (Serial([Conv(2, 3, stride=2), MaxPool(2), Conv(2, 3)]), 3 + 2 + 2 * 4),
    "holes": (Serial([Conv(2, 3, dilation=4)]), 9),
    "branches": (Serial([Residual([Conv(2, 5, padding=2), Conv(2, 1)]), Conv(2, 3)]), 7),
    "transposed": (Serial([ConvTranspose(2, 4, stride=2), Conv(2, 3)]), 3),
    "upsampled": (Serial([Upsample(2), Activation(ops.tanh), Conv(2, 3)]), 2),
}


@pytest.mark.parametrize("name", FIELDS)
def test_the_receptive_field_is_what_reaches_one_output(name):
    """No input beyond it, from any output, has a gradient; some output has one in all of it."""
    model, size = FIELDS[name]
    x = np.random.default_rng(0).normal(size=(1, 23, 2)).astype(np.float32)
    params, state = drawn(model, x.shape)
    assert layer_table(model, x.shape)[-1].receptive_field == (size,)
    jacobian = jax.jit(jax.jacobian(lambda x: jnp.tanh(model.apply(params, state, x)[0])))(x)
    reached = np.any(np.asarray(jacobian) != 0, (0, 2, 3, 5))  # (outputs, inputs)
    spans = [np.ptp(np.flatnonzero(row)) + 1 for row in reached]
    if name == "strides":  # a pool passes gradient to one input of its window alone
        assert size - 2 <= max(spans) <= size
    else:
        assert max(spans) == size


def test_the_receptive_field_ends_where_the_input_does():
    rows = layer_table(Serial([Conv(2, 9, padding=8), Conv(2, 9)]), (1, 10, 30, 1))
    assert [row.receptive_field for row in rows] == [(9, 9), (10, 17)]
    assert math.prod(rows[-1].output_shape) == 10 * 30 * 2
