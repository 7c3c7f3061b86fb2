"""Rules on a mesh with explicit axes, where the layout of every array is part of its type.

Most of JAX's operations say where their result lives. Some do not: a convolution that sums over
the batch, a scatter, a loop over examples. There each device computes with its own examples.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..cotangent import on_explicit_mesh


def layout(x: Any) -> NamedSharding | None:
    """Where x lives, for `out_sharding=`; None where that is no part of its type."""
    kind = jax.typeof(x)
    return kind.sharding if on_explicit_mesh(kind) else None


def by_example(function: Callable[..., Any], *x: Any, shared: tuple[Any, ...] = ()) -> Any:
    """Call `function(*x, *shared)`, which makes something of each example of x (batch, ...).

    On an explicit mesh each device has its own examples and all shared arrays.
    """
    return _on_each_device(function, x, shared, add_up=False)


def over_examples(function: Callable[..., Any], *x: Any) -> Any:
    """Call `function(*x)`, which sums over the examples of x (batch, ...).

    On an explicit mesh each device sums over its own, and then they all do.
    """
    return _on_each_device(function, x, (), add_up=True)


def _on_each_device(function, x, shared, *, add_up):
    place = layout(x[0])
    if place is None:
        return function(*x, *shared)
    batch = place.spec[0]
    specs = (P(batch),) * len(x) + (P(),) * len(shared)
    arrays = [
        jax.sharding.reshard(a, NamedSharding(place.mesh, spec))
        for a, spec in zip((*x, *shared), specs, strict=True)
    ]

    def local(*arrays):
        y = function(*arrays)
        return jax.lax.psum(y, batch) if add_up and batch else y

    out = P() if add_up else P(batch)
    return jax.shard_map(local, mesh=place.mesh, in_specs=specs, out_specs=out)(*arrays)
