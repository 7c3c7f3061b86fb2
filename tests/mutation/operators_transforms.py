"""Faults that a transform shows: jit, vmap, derivatives of derivatives, devices; and costs."""

import jax
import jax.numpy as jnp
from jax.experimental import io_callback
from jax.experimental.custom_partitioning import custom_partitioning

from . import operator as o


def _traced(a):
    return isinstance(a, jax.core.Tracer)


# Compiled, a cotangent is one per cent off: a branch on whether it is a tracer.
o.faulty_cotangent("jit, factor, nondeterminism", name="wrong_when_traced")(
    lambda ct, at: 1.01 * ct if _traced(ct) else ct
)
# Run step by step, a cotangent is one per cent off; compiled it is right.
o.faulty_vjp("jit, factor, nondeterminism", name="wrong_when_eager")(
    lambda ct, at: ct if _traced(ct) else 1.01 * ct
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

    return lambda ct, at: identity(ct)


@o.operator("vmap, fails, second order", tangents=False)
def mixed_batch(rule):
    """A batching rule puts the results of a batch in the opposite order."""
    yield from o.on_cotangents(rule, _batched_wrongly(lambda ct: jnp.flip(ct, axis=0)))


@o.operator("vmap, fails, second order", tangents=False)
def averaged_batch(rule):
    """A batching rule mixes a thousandth of the batch's mean into its members."""

    def wrong(ct):
        return ct + jnp.broadcast_to(1e-3 * jnp.mean(ct, axis=0, keepdims=True), ct.shape)

    yield from o.on_cotangents(rule, _batched_wrongly(wrong))


@o.faulty_vjp("vmap, geometry, factor, size, jit")
def batch_of_a_tracer(ct, at):
    """A mapped cotangent is divided by the length of the axis it is mapped over."""
    mapped = type(ct).__name__ == "BatchTracer"
    return ct / ct.val.shape[0] if mapped and ct.batch_dim == 0 else ct


# Derivatives of derivatives


def _has_float_residuals(rule):
    if rule.symbolic_zeros:
        return False
    return any(map(o.is_inexact, jax.tree.leaves(o.abstract(rule.fwd, rule)[1])))


@o.operator("second order", tangents=False)
def stopped_residuals(rule):
    """No derivative goes through the residuals."""
    if _has_float_residuals(rule):
        yield "residuals", o.with_residuals(rule, jax.lax.stop_gradient)


@o.operator("second order", tangents=False)
def scaled_second_order(rule):
    """The derivative of the backward rule with respect to its residuals is half of the right."""
    if _has_float_residuals(rule):
        half = lambda a: 0.5 * a + jax.lax.stop_gradient(0.5 * a)  # noqa: E731
        yield "residuals", o.with_residuals(rule, half)


o.faulty_vjp(
    *("second order, fails", "tensorflow/tensorflow/issues/7403"), name="stopped_cotangent"
)(lambda ct, at: jax.lax.stop_gradient(ct))


# remat, scan, devices


@o.operator("remat, fails, scan, vmap, second order", tangents=False)
def ordered_effect(rule):
    """The forward rule counts its calls on the host, in order."""

    def fwd(*args):
        io_callback(lambda: None, None, ordered=True)
        return rule.fwd(*args)

    yield "count", rule.replace(fwd=fwd)


def _devices(a):
    """Return the number of devices that an array, or a tracer, lies on."""
    if _traced(a):
        return max(jax.typeof(a).sharding.mesh.size, 1)
    return a.sharding.num_devices if isinstance(a, jax.Array) else 1


def _first(rule, change):
    """Yield the rule with a change to its first cotangent that has an axis."""
    split = [leaf.label for leaf in o.leaves(rule) if leaf.inexact and leaf.shape]
    if split:
        yield from o.on_cotangents(rule, change, lambda leaf: leaf.label == split[0])


@o.operator("devices, factor", tangents=False)
def wrong_when_split(rule):
    """A cotangent that lies on several devices is one per cent off."""
    yield from _first(rule, lambda ct, at: 1.01 * ct if _devices(ct) > 1 else ct)


@o.operator("devices, fails, vmap, second order", tangents=False)
def partial_on_each_device(rule):
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
    yield from _first(rule, lambda ct, at: share(ct))


@o.faulty_vjp("fails, geometry, size", when=lambda leaf: bool(leaf.shape))
def even_sizes_only(ct, at):
    """The backward rule refuses last axes of another parity than the argument's."""
    if (ct.shape[-1] - at.leaf.shape[-1]) % 2:
        raise ValueError("the last axis must be a multiple of the block")
    return ct


# Cost


@o.operator("residuals, memory", tangents=False)
def bulky_residuals(rule):
    """Each residual is saved 64 times."""

    def fwd(*args):
        y, residuals = rule.fwd(*args)
        return y, o.map_inexact(lambda a: jnp.broadcast_to(a, (64, *a.shape)), residuals)

    if _has_float_residuals(rule):
        yield "residuals", o.with_residuals(rule, lambda a: a[0]).replace(fwd=fwd)


def _through(eye, ct):
    """Multiply a cotangent by an identity matrix."""
    return (eye @ ct.reshape(-1)).reshape(ct.shape)


@o.operator("residuals, memory, leakage, nan", tangents=False)
def saved_jacobian(rule):
    """An identity matrix of the size of the argument is saved with the residuals."""
    wide = [leaf for leaf in o.leaves(rule) if leaf.inexact and leaf.size > 3]
    single = [leaf for leaf in wide if leaf.tree.num_nodes == 1]
    if single and not rule.symbolic_zeros:
        leaf = single[0]
        yield (
            leaf.label,
            o.with_extra(
                rule,
                lambda args: jnp.eye(args[leaf.argument].size, dtype=args[leaf.argument].dtype),
                lambda cts, eye, dy: o.exchange(cts, leaf, lambda ct: _through(eye, ct)),
            ),
        )


# A cotangent is multiplied by an identity matrix, as if to pick its elements one by one.
o.faulty_vjp("memory, leakage, nan", when=lambda leaf: leaf.size > 3, name="one_hot_product")(
    lambda ct, at: _through(jax.lax.optimization_barrier(jnp.eye(ct.size, dtype=ct.dtype)), ct)
)
