"""Every op on a batch split over devices returns what one device does, forward and backward.

On a mesh with explicit axes layouts are part of the types; under shard_map each device runs the
rules on its own part.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fnn.custom_op import OPS
from fnn.example import example, normal
from fnn.ops import correlation
from fnn.verifier.programs import start

from .faults import NAMES

pytestmark = pytest.mark.core

ALL_HAVE = {"w", "b", "mask", "scale", "bias", "mean", "var", "v", "g", "key", "rate"}
"""Arguments that all examples share, so they are not split; `weight_norm` has no others."""
DRAW = {"dropout", "channel_dropout", "drop_path", "alpha_dropout"}
"""Ops that draw. Under shard_map each device draws for its own part: the same, with one key."""
TAKE_STATISTICS = {"batch_norm", "batch_norm_leaky_relu"}
"""Ops that need the axis name under shard_map; without it each part has its own statistics."""

MORE = (
    ("conv", example(x=normal(2, 9, 3), w=normal(4, 3, 2), stride=3)),
    ("conv", example(x=normal(2, 4, 5, 2), w=normal(1, 1, 2, 3), b=normal(3), stride=2)),
    ("conv", example(x=normal(2, 7, 6, 4), w=normal(3, 3, 2, 6), stride=2, groups=2)),
    ("conv", example(x=normal(2, 6, 5, 3), w=normal(3, 2, 1, 6), padding=1, groups=3)),
    ("conv_transpose", example(x=normal(2, 3, 4, 4), w=normal(3, 3, 2, 6), stride=2, groups=2)),
    ("avg_pool", example(x=normal(2, 5, 6, 2), window=(3, 2), stride=1, padding="SAME")),
    ("max_pool", example(x=normal(2, 3, 3, 1), window=2, stride=1, padding=1)),
    ("max_pool_with_indices", example(x=normal(2, 3, 3, 1), window=2, stride=1, padding=1)),
)
"""Examples that take another path through an op than its first example does."""

CASES = [(name, OPS[name].examples[0]) for name in NAMES] + list(MORE)
IDS = [f"{name}-{i}" for i, (name, _) in enumerate(CASES)]


class SplitCall:
    """An op on twice the batch of an example, to be split over two devices."""

    def __init__(self, name, recipe):
        self.op = OPS[name]
        first, self.statics = self.op.bind(**recipe.draw(0, np.float32))
        second, _ = self.op.bind(**recipe.draw(1, np.float32))
        self.split = [a not in ALL_HAVE for a in self.op.arguments]
        pairs = zip(first, second, self.split)
        self.arrays = [jnp.concatenate([a, b]) if split else a for a, b, split in pairs]
        self.places = [i for i, a in enumerate(self.arrays) if is_float(a)]
        types = jax.eval_shape(self.run, *self.arrays)
        rng = np.random.default_rng(0)
        self.dys = jax.tree.map(lambda y: cotangent(y, rng), types)
        rows = len(self.arrays[0])
        batch = any(self.split)
        self.y_specs = jax.tree.map(lambda y: spec(batch and y.shape[:1] == (rows,)), types)
        self.specs = tuple(map(spec, self.split))

    def run(self, *arrays, **more):
        return self.op(*arrays, **(self.statics | more))

    def both_ways(self, function, arrays, dys):
        """Return the outputs, and the cotangents of the floating-point arrays."""

        def of_floats(*floats):
            by_place = dict(zip(self.places, floats))
            return function(*(by_place.get(i, a) for i, a in enumerate(arrays)))

        y, pull = jax.vjp(of_floats, *(arrays[i] for i in self.places))
        return jax.tree.leaves(y), pull(dys)

    def compiled(self, function, arrays, dys):
        function = functools.partial(self.both_ways, function)
        return start(function, arrays, dys).result()(arrays, dys)

    def on_one_device(self, function=None):
        return self.compiled(function or self.run, self.arrays, self.dys)


def is_float(a):
    return a is not None and jnp.issubdtype(a.dtype, jnp.floating)


def spec(split):
    return P("data") if split else P()


def cotangent(y, rng):
    if not is_float(y):
        return np.zeros(y.shape, jax.dtypes.float0)
    return jnp.asarray(rng.normal(size=y.shape), y.dtype)


def assert_same(actual, expected):
    """Compare to the rounding of float32 sums in another order."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        size = float(np.max(np.abs(b), initial=0))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * size)


def mesh_of(kind, **axes):
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(kind,) * len(axes))


def place(tree, specs, mesh):
    def put(a, where):
        there = a is not None and a.dtype != jax.dtypes.float0
        return jax.device_put(a, NamedSharding(mesh, where)) if there else a

    return jax.tree.map(put, tree, specs, is_leaf=lambda a: a is None)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_split_over_devices(case):
    check_split(case, shard_map=case[0] in TAKE_STATISTICS | DRAW | {"conv", "dense", "max_pool"})


def check_split(case, shard_map=True):
    """Compare an op on an explicit mesh, and optionally under shard_map, with one device.

    Under shard_map most ops run as on one device, on fewer examples; `make prove` tests them all.
    """
    name, _ = case
    call = SplitCall(*case)
    one_device = call.on_one_device()
    check_on_an_explicit_mesh(call, one_device)
    if not shard_map:
        return

    run = call.run
    if name in TAKE_STATISTICS:
        run = functools.partial(call.run, axis_name="data")
    if name in DRAW:
        one_device = call.on_one_device(
            lambda x, *more: jnp.concatenate([call.run(part, *more) for part in jnp.split(x, 2)])
        )
    mesh = mesh_of(AxisType.Auto, data=2)
    per_device = jax.shard_map(run, mesh=mesh, in_specs=call.specs, out_specs=call.y_specs)
    assert_same(call.compiled(per_device, call.arrays, call.dys), one_device)


def check_on_an_explicit_mesh(call, one_device):
    mesh = mesh_of(AxisType.Explicit, data=2)
    with jax.set_mesh(mesh):
        arrays = place(call.arrays, list(call.specs), mesh)
        y, cotangents = call.compiled(call.run, arrays, place(call.dys, call.y_specs, mesh))
        for a, where in zip(y, jax.tree.leaves(call.y_specs), strict=True):
            assert a.sharding.is_equivalent_to(NamedSharding(mesh, where), a.ndim)
        for a, i in zip(cotangents, call.places, strict=True):
            assert a.sharding.is_equivalent_to(arrays[i].sharding, a.ndim)
    assert_same((y, cotangents), one_device)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_whose_weights_are_split_too(groups, monkeypatch):
    """Weights are split by output channel over a second axis; images come in blocks."""
    monkeypatch.setattr(correlation, "CORE_CACHE", 1)
    w, b = normal(3, 3, 4 // groups, 64), normal(64)
    recipe = example(x=normal(8, 4, 4, 4), w=w, b=b, padding="SAME", groups=groups)
    call, mesh = SplitCall("conv", recipe), mesh_of(AxisType.Explicit, data=2, model=2)
    specs = [P("data"), P(None, None, None, "model"), P("model")]
    with jax.set_mesh(mesh):
        arrays = place(call.arrays, specs, mesh)
        dy = place(call.dys, P("data", None, None, "model"), mesh)
        actual = call.compiled(call.run, arrays, dy)
    assert_same(actual, call.on_one_device())
