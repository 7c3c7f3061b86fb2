"""Cotangents as JAX wants them: of the shape and dtype of their primals, on the same devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType


def fit(what: str, primal: Any, cotangent: Any) -> Any:
    """Give a cotangent the shape, dtype and device axes of its primal, or say why it cannot."""
    if primal is None:
        return None
    if not jnp.issubdtype(primal.dtype, jnp.inexact):
        if cotangent is not None:
            raise TypeError(f"{what} must be None, since a {primal.dtype} input has no gradient")
        return None
    if not isinstance(cotangent, jax.Array | np.ndarray | np.generic):
        got = type(cotangent).__name__
        raise TypeError(f"{what} must be an array of shape {primal.shape}, got {got}")
    cotangent = jnp.asarray(cotangent)
    if jnp.iscomplexobj(cotangent) and not jnp.issubdtype(primal.dtype, jnp.complexfloating):
        raise TypeError(f"{what} is {cotangent.dtype}, but its input is real ({primal.dtype})")
    total = _sum_to_shape(what, cotangent, primal.shape).astype(primal.dtype)
    return _match_device_axes(total, primal)


def _sum_to_shape(what: str, cotangent: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sum over the axes along which an input of `shape` was broadcast.

    Broadcasting copies; the derivative of a copy is the sum of the copies' derivatives.
    """
    if cotangent.shape == shape:
        return cotangent
    leading = cotangent.ndim - len(shape)
    aligned = zip(shape, cotangent.shape[max(leading, 0) :], strict=False)
    if leading < 0 or any(n not in (1, m) for n, m in aligned):
        raise ValueError(f"{what} has shape {cotangent.shape}, its input has shape {shape}")
    cotangent = jnp.sum(cotangent, axis=tuple(range(leading)))
    repeats = tuple(i for i, n in enumerate(shape) if n != cotangent.shape[i])
    return jnp.sum(cotangent, axis=repeats, keepdims=True) if repeats else cotangent


def _match_device_axes(cotangent: jax.Array, primal: Any) -> jax.Array:
    """Put a cotangent on the devices where its primal is.

    On an explicit mesh that is a layout. Under shard_map it is the sum over those mesh axes
    along which the primal was the same everywhere: it was broadcast to the devices.
    """
    if on_explicit_mesh(primal) and jax.typeof(cotangent).sharding != primal.sharding:
        cotangent = jax.sharding.reshard(cotangent, primal.sharding)
    have = jax.typeof(cotangent).manual_axis_type.varying
    want = primal.manual_axis_type.varying
    if have - want:
        cotangent = jax.lax.psum(cotangent, tuple(sorted(have - want)))
    if want - have:
        cotangent = jax.lax.pcast(cotangent, tuple(sorted(want - have)), to="varying")
    return cotangent


def contract(a: jax.Array, b: jax.Array, axes: Any, *, like: jax.Array) -> jax.Array:
    """`jnp.tensordot(a, b, axes)`, laid out over the devices as `like` is.

    Backward rules contract over the batch; on an explicit mesh that axis is sharded, and JAX
    asks where the result shall live. A cotangent lives where its primal does.
    """
    kind = jax.typeof(like)
    sharding = kind.sharding if on_explicit_mesh(kind) else None
    return jnp.tensordot(a, b, axes, out_sharding=sharding)


def on_explicit_mesh(kind: Any) -> bool:
    """Whether an array of this type (`jax.typeof(x)`) lies on a mesh with explicit axes."""
    return AxisType.Explicit in kind.sharding.mesh.axis_types
