"""Faults that a transform shows: jit, vmap, derivatives of derivatives, devices; and costs."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import io_callback
from jax.experimental.custom_partitioning import custom_partitioning

from .operator import (
    Mutants,
    abstract,
    is_inexact,
    leaves,
    map_inexact,
    on_cotangents,
    operator,
    with_residuals,
)
from .rule import Rule


@operator("jit", "factor", "nondeterminism")
def wrong_when_traced(rule: Rule) -> Mutants:
    """Compiled, a cotangent is one per cent off: a branch on whether it is a tracer."""
    yield from on_cotangents(
        rule, lambda ct, x, dy: 1.01 * ct if isinstance(ct, jax.core.Tracer) else ct
    )


@operator("jit", "factor", "nondeterminism")
def wrong_when_eager(rule: Rule) -> Mutants:
    """Run step by step, a cotangent is one per cent off; compiled it is right."""
    if rule.jvp is None:
        yield from on_cotangents(
            rule, lambda ct, x, dy: ct if isinstance(ct, jax.core.Tracer) else 1.01 * ct
        )


# vmap


def _batched_wrongly(wrong):
    """Return the identity with a batching rule of its own: `wrong` of the batch."""

    @jax.custom_batching.custom_vmap
    def identity(ct):
        return ct

    @identity.def_vmap
    def _(size, batched, ct):
        return wrong(ct), batched[0]

    return identity


@operator("vmap", "fails", "second order")
def mixed_batch(rule: Rule) -> Mutants:
    """A batching rule puts the results of a batch in the opposite order."""
    identity = _batched_wrongly(lambda ct: jnp.flip(ct, axis=0))
    if rule.jvp is None:
        yield from on_cotangents(rule, lambda ct, x, dy: identity(ct))


@operator("vmap", "fails", "second order")
def averaged_batch(rule: Rule) -> Mutants:
    """A batching rule mixes a thousandth of the batch's mean into its members."""

    def wrong(ct):
        return ct + jnp.broadcast_to(1e-3 * jnp.mean(ct, axis=0, keepdims=True), ct.shape)

    identity = _batched_wrongly(wrong)
    if rule.jvp is None:
        yield from on_cotangents(rule, lambda ct, x, dy: identity(ct))


@operator("vmap", "geometry", "factor", "size", "jit")
def batch_of_a_tracer(rule: Rule) -> Mutants:
    """A mapped cotangent is divided by the length of the axis it is mapped over."""

    def change(ct, x, dy):
        mapped = type(ct).__name__ == "BatchTracer"
        return ct / ct.val.shape[0] if mapped and ct.batch_dim == 0 else ct

    if rule.jvp is None:
        yield from on_cotangents(rule, change)


# Derivatives of derivatives


def _has_float_residuals(rule):
    if rule.jvp is not None or rule.symbolic_zeros:
        return False
    return any(map(is_inexact, jax.tree.leaves(abstract(rule.fwd, rule)[1])))


@operator("second order")
def stopped_residuals(rule: Rule) -> Mutants:
    """No derivative goes through the residuals."""
    if _has_float_residuals(rule):
        yield "residuals", with_residuals(rule, jax.lax.stop_gradient)


@operator("second order")
def scaled_second_order(rule: Rule) -> Mutants:
    """The derivative of the backward rule with respect to its residuals is half of the right."""
    half = lambda a: 0.5 * a + jax.lax.stop_gradient(0.5 * a)  # noqa: E731
    if _has_float_residuals(rule):
        yield "residuals", with_residuals(rule, half)


@operator("second order", "fails", bug="https://github.com/tensorflow/tensorflow/issues/7403")
def stopped_cotangent(rule: Rule) -> Mutants:
    """No derivative goes through a cotangent that is returned.

    After https://github.com/tensorflow/tensorflow/issues/7403: a loss whose gradient came out of
    the forward pass, and counted as a constant from there on.
    """
    if rule.jvp is None:
        yield from on_cotangents(
            rule, lambda ct, x, dy: jax.lax.stop_gradient(ct), lambda leaf: leaf.inexact
        )


# remat, scan, devices


@operator("remat", "fails", "scan", "vmap", "second order")
def ordered_effect(rule: Rule) -> Mutants:
    """The forward rule counts its calls on the host, in order."""

    def fwd(*args):
        io_callback(lambda: None, None, ordered=True)
        return rule.fwd(*args)

    if rule.jvp is None:
        yield "count", rule.replace(fwd=fwd)


def _devices(a):
    """Return how many devices an array, or what is traced of it, is known to lie on."""
    if isinstance(a, jax.core.Tracer):
        return max(jax.typeof(a).sharding.mesh.size, 1)
    return a.sharding.num_devices if isinstance(a, jax.Array) else 1


def _first(rule, change):
    """Yield the rule with a change to its first cotangent that has an axis."""
    split = [leaf.label for leaf in leaves(rule) if leaf.inexact and leaf.shape]
    if rule.jvp is None and split:
        yield from on_cotangents(rule, change, lambda leaf: leaf.label == split[0])


@operator("devices", "factor")
def wrong_when_split(rule: Rule) -> Mutants:
    """A cotangent that lies on several devices is one per cent off."""
    yield from _first(rule, lambda ct, x, dy: 1.01 * ct if _devices(ct) > 1 else ct)


@operator("devices", "fails", "vmap", "second order")
def partial_on_each_device(rule: Rule) -> Mutants:
    """Each device's part of a cotangent is divided by the number of devices, and never summed."""

    @custom_partitioning
    def share(ct):
        return 1 * ct

    def partition(mesh, arguments, result):
        sharding = result.sharding
        return mesh, lambda ct: ct / mesh.size, sharding, (arguments[0].sharding,)

    share.def_partition(
        partition,
        infer_sharding_from_operands=lambda mesh, arguments, result: arguments[0].sharding,
        sharding_rule="... -> ...",
    )
    yield from _first(rule, lambda ct, x, dy: share(ct))


@operator("fails", "geometry", "size")
def even_sizes_only(rule: Rule) -> Mutants:
    """The backward rule refuses last axes of another parity than the one given."""

    def change(ct, x, dy, given):
        if (ct.shape[-1] - given) % 2:
            raise ValueError("the last axis must be a multiple of the block")
        return ct

    for leaf in leaves(rule) if rule.jvp is None else ():
        if leaf.inexact and leaf.shape:
            yield from on_cotangents(
                rule,
                functools.partial(change, given=leaf.shape[-1]),
                lambda one, leaf=leaf: one.label == leaf.label,
            )


# Cost


@operator("residuals", "memory")
def bulky_residuals(rule: Rule) -> Mutants:
    """Each residual is kept 64 times over."""
    static = len(rule.nondiff_argnums)

    def fwd(*args):
        y, residuals = rule.fwd(*args)
        return y, map_inexact(lambda a: jnp.broadcast_to(a, (64, *a.shape)), residuals)

    def bwd(*call):
        residuals = map_inexact(lambda a: a[0], call[static])
        return rule.bwd(*call[:static], residuals, call[-1])

    if _has_float_residuals(rule):
        yield "residuals", rule.replace(fwd=fwd, bwd=bwd)


@operator("residuals", "memory", "leakage", "nan")
def saved_jacobian(rule: Rule) -> Mutants:
    """An identity matrix as large as the argument is wide is kept for each of its rows."""
    static = len(rule.nondiff_argnums)
    wide = [
        leaf for leaf in leaves(rule) if leaf.inexact and leaf.size > 3 and leaf.tree.num_nodes == 1
    ]
    if rule.jvp is not None or rule.symbolic_zeros or not wide:
        return
    leaf = wide[0]

    def fwd(*args):
        y, residuals = rule.fwd(*args)
        x = [a for n, a in enumerate(args) if n not in rule.nondiff_argnums][leaf.argument]
        return y, (residuals, jnp.eye(x.size, dtype=x.dtype))

    def bwd(*call):
        (residuals, eye), dy = call[static:]
        cotangents = list(rule.bwd(*call[:static], residuals, dy))
        ct = cotangents[leaf.argument]
        cotangents[leaf.argument] = (eye @ ct.reshape(-1)).reshape(ct.shape)
        return tuple(cotangents)

    yield leaf.label, rule.replace(fwd=fwd, bwd=bwd)


@operator("memory", "leakage", "nan")
def one_hot_product(rule: Rule) -> Mutants:
    """A cotangent is multiplied by an identity matrix, as if to pick its elements one by one."""

    def change(ct, x, dy):
        eye = jax.lax.optimization_barrier(jnp.eye(ct.size, dtype=ct.dtype))
        return (eye @ ct.reshape(-1)).reshape(ct.shape)

    if rule.jvp is None:
        yield from on_cotangents(rule, change, lambda leaf: leaf.size > 3)
