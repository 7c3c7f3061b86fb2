"""Several devices: the same numbers as one, little communication, and what cannot be split."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from fnn import ops
from fnn.config import dump, parse
from fnn.errors import ConfigError
from fnn.runs.prepare import prepare
from fnn.train import init, make_steps, make_update, order
from fnn.train.mesh import Placement, make_mesh, place

from .runs import sampled

MLP = "[flatten, dense: {features: 64}, relu, dense: {features: 10}]"
CNN = (
    "[conv: {features: 4, window: 3, use_bias: false}, batch_norm, relu, dropout: {rate: 0.2}, "
    "flatten, dense: {features: 10}]"
)
EIGHT = "mesh: {data: 8}"
FSDP = "mesh: {data: 4, model: 2}\nsharding: {'*': fsdp}"
TENSOR = """
mesh: {data: 4, model: 2}
sharding:
  "1_dense/w": [null, model]
  "1_dense/b": [model]
  "3_dense/w": [model, null]
"""
COLLECTIVES = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def experiment(devices="", model=MLP):
    text = f"""
name: devices
data: digits
model: {model}
loss: softmax_cross_entropy
optimizer: {{adam: {{learning_rate: 1.0e-3}}}}
train: {{epochs: 1, batch_size: 32}}
"""
    return prepare(parse(text + devices, "devices.yaml"))


@functools.cache
def trained(devices, count, size=32, model=MLP):
    """The loss of each of `count` steps, the state after them, and the compiled program."""
    run = experiment(devices, model)
    placement = place(run.config, run.model, run.x_shape)
    data = placement.resident(run.data.x_train), placement.resident(run.data.y_train)
    state, losses = placement.init(run.init), []
    layout = placement.layout(state)
    steps = make_steps(make_update(run.model, run.loss, run.optimizer), placement, state)
    orders = [np.asarray(order(0, epoch, len(data[0]))) for epoch in range(1 + count * 32 // 1000)]
    batches = np.concatenate(orders)[: count * size].reshape(count, 1, size)
    program = steps.lower(state, *data, batches[0]).compile()
    for batch in batches:
        state, loss = program(state, *data, batch)
        losses.append(float(loss[0]))
    assert jax.tree.map(lambda a: a.sharding, state) == layout
    return np.array(losses), placement.whole(state._replace(key=None)), program.as_text()


def collectives(program):
    """Each collective's name, and the arrays it exchanges."""
    operations = re.findall(rf"= (\(.*?\)|\S+) ({COLLECTIVES})(?:-start)?\(", program)
    return [(name, re.findall(r"\w+\[[0-9,]*\]", kind)) for kind, name in operations]


# The same numbers


@pytest.mark.core
@pytest.mark.parametrize("count", sampled(20, 100))
@pytest.mark.parametrize("devices", [EIGHT, FSDP, TENSOR], ids=["data", "fsdp", "tensor"])
def test_steps_on_8_devices_have_one_devices_losses(devices, count):
    (losses, state, _), (want, alone, _) = trained(devices, count), trained("", count)
    np.testing.assert_allclose(losses, want, rtol=1e-6)
    chex.assert_trees_all_close(state.params, alone.params, rtol=1e-3, atol=1e-5)
    assert losses[-1] < (0.7 if count == 100 else 1) * losses[0]


def test_batch_norm_and_dropout_are_those_of_the_whole_batch():
    losses, state, _ = trained("", 10, model=CNN)
    split, split_state, program = trained("mesh: {data: 4}", 10, model=CNN)
    np.testing.assert_allclose(split, losses, rtol=1e-6)
    chex.assert_trees_all_close(split_state.layers, state.layers, rtol=1e-5)
    assert {name for name, _ in collectives(program)} == {"all-reduce"}


def test_a_last_batch_that_does_not_divide_is_computed_whole():
    split, _, program = trained(EIGHT, 3, size=29)
    np.testing.assert_allclose(split, trained("", 3, size=29)[0], rtol=1e-6)
    assert collectives(program) == []


# Little communication


@pytest.mark.core
def test_data_parallel_exchanges_each_gradient_once_and_the_loss():
    _, state, program = trained(EIGHT, 20)
    operations = collectives(program)
    assert {name for name, _ in operations} == {"all-reduce"}
    shapes = sorted(shape for _, arrays in operations for shape in arrays)
    sizes = [",".join(map(str, p.shape)) for p in jax.tree.leaves(state.params)]
    assert shapes == sorted(f"f32[{size}]" for size in [*sizes, ""])
    assert collectives(trained("", 20)[2]) == []


def test_fsdp_collects_parameters_and_never_the_batch():
    operations = collectives(trained(FSDP, 20)[2])
    gathered = [array for name, arrays in operations if name == "all-gather" for array in arrays]
    assert sorted(gathered) == ["f32[64,10]", "f32[64,64]", "f32[64]"]


@pytest.mark.parametrize("groups", sampled(1, 4, 32))  # dense, grouped, depthwise
def test_a_convolutions_weight_gradient_never_collects_the_batch(groups):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 14, 14, 32)).astype(np.float32)  # many blocks, on one device
    w = rng.normal(size=(3, 3, 32 // groups, 32)).astype(np.float32)

    def gradient(w, x):
        return jax.grad(lambda w: jnp.mean(ops.conv(x, w, groups=groups) ** 2))(w)

    placement = Placement(make_mesh(experiment("mesh: {data: 4}").config))
    arrays = placement.resident(w), placement.resident(x)
    with jax.sharding.use_abstract_mesh(placement.mesh.abstract_mesh):
        split = jax.jit(lambda w, x: gradient(w, placement.spread(x))).lower(*arrays).compile()
    assert {name for name, _ in collectives(split.as_text())} == {"all-reduce"}
    want = jax.jit(gradient)(w, x)
    # Roundings of 9216 terms, of random sign, in another order.
    bound = np.finfo(np.float32).eps * np.sqrt(64 * 12 * 12) * np.abs(want).max()
    np.testing.assert_allclose(split(*arrays), want, rtol=0, atol=bound)


# Where what lives


def test_an_optimisers_moments_lie_as_their_parameters_do():
    state = experiment(TENSOR).initial_state()
    adam = state.optimizer[0]
    for tree in (state.params, adam.mu, adam.nu):
        specs = jax.tree.map(lambda a: a.sharding.spec, tree)
        assert specs["1_dense"] == {"w": P(None, "model"), "b": P("model")}
        assert specs["3_dense"] == {"w": P("model"), "b": P()}
    assert state.params["1_dense"]["w"].addressable_shards[0].data.shape == (64, 32)
    assert adam.count.sharding.spec == state.key.sharding.spec == P()


def test_a_parameter_of_a_like_name_is_not_split():
    """`0_dense/w` ends `2_residual/body/0_dense/w` too, as it does an optimiser's moments."""
    body = "[dense: {features: 8}, relu, dense: {features: 8}]"
    model = f"residual: {{body: {body}}}, dense: {{features: 10}}]"
    model = "[dense: {features: 8}, flatten, dense: {features: 8}, " + model
    run = experiment('mesh: {model: 2}\nsharding: {"0_dense/w": [null, model]}\n', model)
    paths = jax.tree_util.tree_leaves_with_path(run.initial_state().params)
    split = [jax.tree_util.keystr(path) for path, leaf in paths if leaf.sharding.spec != P()]
    assert split == ["['0_dense']['w']"]


def test_what_an_optimiser_keeps_in_another_shape_is_copied():
    run = experiment(FSDP)
    placement = place(run.config, run.model, run.x_shape)
    optimizer = optax.adafactor(min_dim_size_to_factor=8)
    state = jax.eval_shape(lambda: init(run.model, optimizer, run.x_shape, 0))
    layout = placement.layout(state)
    assert layout.params["1_dense"]["w"].spec == P("data")
    factored = jax.tree_util.tree_leaves_with_path((state.optimizer, layout.optimizer))
    shapes = {leaf.shape for _, leaf in factored if hasattr(leaf, "shape")}
    assert {(64,), (1,)} <= shapes  # a factor of the moments, and one that is not needed
    jax.jit(lambda: init(run.model, optimizer, run.x_shape, 0), out_shardings=layout).lower()


def test_streamed_batches_are_split_as_they_arrive():
    run = experiment(TENSOR)
    placement = place(run.config, run.model, run.x_shape)
    assert placement.rows(32).tolist() == list(range(32))  # one process holds all devices
    batches = np.arange(2 * 32 * 3, dtype=np.float32).reshape(2, 32, 3)
    placed = placement.batches(batches, 32)
    assert placed.sharding.spec == P(None, "data")
    assert placed.addressable_shards[0].data.shape == (2, 8, 3)
    np.testing.assert_array_equal(placed, batches)
    assert placement.batches(batches[:, :5], 5).sharding.spec == P()


def test_without_a_mesh_there_is_one_device():
    assert make_mesh(experiment().config).shape == {"data": 1, "model": 1}
    assert make_mesh(experiment("mesh: {data: all, model: 2}").config).shape["data"] == 4


# What cannot be


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (
            "mesh: {data: 8, model: 2}",
            r"8: mesh: data 8 × model 2 takes 16 devices, and there are 8 \(cpu\); .*_DEVICES=16",
        ),
        ("mesh: {data: 5}", r"7: a batch of 32 .* 5 equal parts of mesh.data"),
        (
            "mesh: {model: 4}\nsharding: {'*dense/w': [null, model]}",
            r"9: sharding: '\*dense/w' cannot split 3_dense/w, .*: dimension 1 is 10, no mul",
        ),
        (
            "mesh: {data: 2}\nsharding:\n  '*': replicate\n  '1_dense/b': fsdp\n  '1_dens/w': fsdp",
            r"12: sharding: '1_dens/w' matches no parameter; did you mean '1_dense/w'",
        ),
        (
            "mesh: {data: 2}\nsharding: {'*': [data]}",
            r"cannot split 1_dense/w, of shape \(64, 64\): the rule has 1 axes, one for each dim",
        ),
        ("mesh: {data: 0}", "8: mesh.data: expected a positive integer or 'all', got 0"),
        ("mesh: {rows: 2}", "8: mesh.rows: unknown key 'rows'; known keys: data, model"),
        ("mesh: 4", "8: mesh: expected a mapping with the keys data, model, got 4"),
        ("sharding: {a: fdsp}", "8: sharding.a: expected fsdp, .*; did you mean 'fsdp'"),
        ("sharding: {a: [rows]}", "8: sharding.a: expected data, model or null .*, got 'rows'"),
        ("sharding: {a: [data, data]}", "8: sharding.a: expected 'data' for one dimension at most"),
    ],
)
def test_what_cannot_be_is_said_with_its_line(devices, message):
    with pytest.raises(ConfigError, match=rf"devices.yaml:\d*:?.*{message}"):
        experiment(devices)


def test_the_sections_are_written_out_as_they_were():
    config = experiment(TENSOR).config
    assert config.sharding["1_dense/w"] == (None, "model")
    assert parse(dump(config)) == config
