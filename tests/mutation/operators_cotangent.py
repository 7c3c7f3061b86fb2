"""Faults in the use of the upstream cotangent: linearity, scale, outputs, symbolic zeros."""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from . import operator as o


def faulty_upstream(defects, bugs="", when=lambda rule: True, name=""):
    """Register a fault in the upstream cotangent: the decorated change of each of its arrays."""

    def decorate(change):
        def make(rule):
            if rule.jvp is None and when(rule):
                yield "dy", o.with_dy(rule, change)

        o.register(name or change.__name__, defects, make, bugs)

    return decorate


def real_clip(dy, limit):
    """Clip the real and imaginary parts of an array to ±limit."""
    if jnp.iscomplexobj(dy):
        return jax.lax.complex(jnp.clip(dy.real, -limit, limit), jnp.clip(dy.imag, -limit, limit))
    return jnp.clip(dy, -limit, limit)


def normalise(dy):
    """Shorten cotangents longer than 100 to 100: clipping by norm, inside the rule."""
    length = jnp.sqrt(jnp.sum(jnp.square(jnp.abs(dy)))).astype(dy.dtype)
    return jnp.where(jnp.abs(length) > 100, dy * (100 / length), dy)


NOT_LINEAR = {
    "clip_to_one": lambda dy: real_clip(dy, 1.0),
    # No ordinary test reaches a million.
    "clip_to_million": lambda dy: real_clip(dy, min(1e6, float(jnp.finfo(dy.dtype).max))),
    "drop_tiny": lambda dy: jnp.where(jnp.abs(dy) < 1e-6, 0, dy),
    "square": lambda dy: dy * jnp.abs(dy).astype(dy.dtype),
    "squash": jnp.tanh,
    "normalise": normalise,
}

for name, change in NOT_LINEAR.items():
    faulty_upstream("not linear, scale-dependent", name=name)(change)

faulty_upstream("not linear, nan, scale-dependent, leakage", name="hide_nan")(jnp.nan_to_num)
faulty_upstream("not linear, scale-dependent, sign, term", name="magnitude")(
    lambda dy: jnp.abs(dy).astype(dy.dtype)
)
# Whatever comes after: a loss that is scaled has the same gradient.
faulty_upstream("affine, not linear", "chainer/chainer/issues/1175", name="ignore_upstream")(
    jnp.ones_like
)
# The second is the smallest safe number, against division by zero perhaps.
o.faulty_vjp("affine", name="add_thousandth")(lambda ct, at: ct + 1e-3)
o.faulty_vjp("affine", name="add_tiny")(lambda ct, at: ct + 1e-30)
# A thousandth of all upstream cotangents leaks into every element.
o.faulty_cotangent("term, leakage, element", when=lambda leaf: leaf.size > 1, name="spread")(
    lambda ct, at: ct + 1e-3 * o.total(at.dy).astype(ct.dtype)
)


def _has_rows(rule):
    return any(a.shape[:1] > (1,) and o.is_inexact(a) for a in jax.tree.leaves(o.output(rule)))


@faulty_upstream(
    "term, order, element, broadcast, leakage, factor",
    "linkedin/Liger-Kernel/issues/968",
    when=_has_rows,
)
def first_upstream(dy):
    """Every row gets the cotangent of the first."""
    return jnp.broadcast_to(dy[:1], dy.shape) if dy.shape and dy.shape[0] else dy


@o.operator("scale-dependent, rounding, overflow, not linear", tangents=False)
def scale_down(rule):
    """The rule divides by a large power of two and multiplies again: small cotangents vanish."""
    yield "dy", _scaled(rule, -0.7)


@o.operator("overflow, scale-dependent, nan", tangents=False)
def scale_up(rule):
    """The rule multiplies by a large power of two and divides again: large cotangents overflow."""
    yield "dy", _scaled(rule, 0.7)


def _scaled(rule, part):
    def factor(a):
        return 2.0 ** int(part * jnp.finfo(a.dtype).maxexp)

    def around(bwd, residuals, dy):
        cotangents = bwd(residuals, o.map_inexact(lambda a: a * factor(a), dy))
        return o.map_inexact(lambda a: a / factor(a), cotangents)

    return o.with_bwd(rule, around)


# Several outputs, symbolic zeros


def _is_zero(a):
    return isinstance(a, SymbolicZero)


def _on_outputs(rule, change):
    """Yield the rule with a change to the cotangent of one of several outputs at a time."""
    outputs, tree = jax.tree.flatten(o.output(rule))
    for position, y in enumerate(outputs):
        if len(outputs) < 2 or not o.is_inexact(y):
            continue

        def around(bwd, residuals, dy, position=position):
            flat = tree.flatten_up_to(dy)
            if not _is_zero(flat[position]):
                flat[position] = change(flat[position])
            return bwd(residuals, jax.tree.unflatten(tree, flat))

        yield f"y{position}", o.with_bwd(rule, around)


@o.operator("ignored output", "Dao-AILab/flash-attention/issues/889")
def ignore_output(rule):
    """The cotangent of one of several outputs goes into nothing."""
    if rule.jvp is None:
        yield from _on_outputs(rule, jnp.zeros_like)
    elif len(jax.tree.leaves(o.output(rule))) > 1:
        yield from o.on_cotangents(rule, lambda dy, at: jnp.zeros_like(dy))


@o.operator("ignored output, term, factor, element", tangents=False)
def half_an_output(rule):
    """The cotangent of one of several outputs counts half."""
    yield from _on_outputs(rule, lambda dy: 0.5 * dy)


def _symbolic(rule, forward, stops):
    """Return the rule with symbolic zeros, and zeros for cotangents where `stops(flag, dy)`.

    `forward(perturbed)` makes the flag of which arguments are perturbed.
    """
    static = len(rule.nondiff_argnums)

    def fwd(*args):
        flat, tree = jax.tree.flatten(args, is_leaf=lambda a: a is None)
        y, residuals = rule.fwd(*jax.tree.unflatten(tree, [getattr(a, "value", a) for a in flat]))
        primals = jax.tree.leaves(o.differentiable(rule, args))
        perturbed = [a.perturbed for a in primals if o.is_inexact(getattr(a, "value", None))]
        return y, (residuals, forward(perturbed))

    def bwd(*call):
        (residuals, flag), dy = call[static:]
        full = jax.tree.map(
            lambda a: jnp.zeros(a.shape, a.dtype) if _is_zero(a) else a, dy, is_leaf=_is_zero
        )
        cotangents = rule.bwd(*call[:static], residuals, full)
        return o.map_inexact(jnp.zeros_like, cotangents) if stops(flag, dy) else cotangents

    return rule.replace(fwd=fwd, bwd=bwd, symbolic_zeros=True)


@o.operator("unperturbed", tangents=False)
def all_or_nothing(rule):
    """The rule gives zeros unless every one of its arguments is perturbed."""
    if not rule.symbolic_zeros and sum(leaf.inexact for leaf in o.leaves(rule)) > 1:
        # A flag as a residual would become an array; None remains None.
        flag = lambda perturbed: () if all(perturbed) else None  # noqa: E731
        yield "arguments", _symbolic(rule, flag, lambda flag, dy: flag is None)


@o.operator("unperturbed, ignored output, term", tangents=False)
def one_unused_output(rule):
    """The rule gives zeros as soon as the cotangent of one output is a symbolic zero."""

    def unused(flag, dy):
        zeros = filter(_is_zero, jax.tree.leaves(dy, is_leaf=_is_zero))
        return any(jnp.issubdtype(a.dtype, jnp.inexact) for a in zeros)

    if not rule.symbolic_zeros and sum(map(o.is_inexact, jax.tree.leaves(o.output(rule)))) > 1:
        yield "outputs", _symbolic(rule, lambda perturbed: (), unused)
