"""Faults in what is made of the cotangent of the value: linearity, scale, outputs, zeros."""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .operator import (
    Mutants,
    differentiable,
    faulty_cotangent,
    is_inexact,
    is_none,
    leaves,
    map_inexact,
    on_cotangents,
    operator,
    output,
    register,
    total,
    with_bwd,
    with_dy,
)
from .rule import Rule


def faulty_upstream(*defects: str, when=lambda rule: True):
    """Register a fault in what the rule is given: the decorated change of each cotangent."""

    def decorate(change):
        def make(rule):
            if rule.jvp is None and when(rule):
                yield "dy", with_dy(rule, change)

        register(change.__name__, defects, make, change.__doc__)

    return decorate


def real_clip(dy, limit):
    """Clip the real and imaginary parts of an array to ±limit."""
    if jnp.iscomplexobj(dy):
        return jax.lax.complex(jnp.clip(dy.real, -limit, limit), jnp.clip(dy.imag, -limit, limit))
    return jnp.clip(dy, -limit, limit)


@faulty_upstream("not linear", "scale-dependent")
def clip_to_one(dy):
    """The cotangent is clipped to ±1."""
    return real_clip(dy, 1.0)


@faulty_upstream("not linear", "scale-dependent")
def clip_to_million(dy):
    """The cotangent is clipped to a million, which no ordinary test reaches."""
    return real_clip(dy, min(1e6, float(jnp.finfo(dy.dtype).max)))


@faulty_upstream("not linear", "nan", "scale-dependent", "leakage")
def hide_nan(dy):
    """NaNs of the cotangent are set to zero, so that trouble passes unseen."""
    return jnp.nan_to_num(dy)


@faulty_upstream("not linear", "scale-dependent")
def drop_tiny(dy):
    """Cotangents below 1e-6 are set to zero."""
    return jnp.where(jnp.abs(dy) < 1e-6, 0, dy)


@faulty_upstream("not linear", "scale-dependent")
def square(dy):
    """The cotangent is squared, its sign kept."""
    return dy * jnp.abs(dy).astype(dy.dtype)


@faulty_upstream("not linear", "scale-dependent", "sign", "term")
def magnitude(dy):
    """The sign of the cotangent is lost."""
    return jnp.abs(dy).astype(dy.dtype)


@faulty_upstream("not linear", "scale-dependent")
def squash(dy):
    """The cotangent passes through a hyperbolic tangent."""
    return jnp.tanh(dy)


@faulty_upstream("not linear", "scale-dependent")
def normalise(dy):
    """Cotangents longer than 100 are shortened to 100: clipping by norm, inside the rule."""
    length = jnp.sqrt(jnp.sum(jnp.square(jnp.abs(dy)))).astype(dy.dtype)
    return jnp.where(jnp.abs(length) > 100, dy * (100 / length), dy)


@faulty_cotangent("affine", tangents=False)
def add_thousandth(ct, at):
    """A thousandth is added to a cotangent."""
    return ct + 1e-3


@faulty_cotangent("affine", tangents=False)
def add_tiny(ct, at):
    """The smallest safe number is added to a cotangent, against division by zero perhaps."""
    return ct + 1e-30


@faulty_upstream("affine", "not linear")
def ignore_upstream(dy):
    """The cotangent is taken to be one, whatever comes after.

    Rebuilt from https://github.com/chainer/chainer/issues/1175, where the gradient of a loss was
    the same however the loss was scaled.
    """
    return jnp.ones_like(dy)


def _has_rows(rule):
    return any(a.shape[:1] > (1,) and is_inexact(a) for a in jax.tree.leaves(output(rule)))


@faulty_upstream(*("term", "order", "element", "broadcast", "leakage", "factor"), when=_has_rows)
def first_upstream(dy):
    """Every row is given the cotangent of the first.

    Rebuilt from https://github.com/linkedin/Liger-Kernel/issues/968, where a loss without a
    reduction multiplied all rows by the first entry of the upstream gradient.
    """
    return jnp.broadcast_to(dy[:1], dy.shape) if dy.shape and dy.shape[0] else dy


@operator("scale-dependent", "rounding", "overflow", "not linear", tangents=False)
def scale_down(rule: Rule) -> Mutants:
    """The rule divides by a large power of two and multiplies again: small cotangents vanish."""
    yield "dy", _scaled(rule, -0.7)


@operator("overflow", "scale-dependent", "nan", tangents=False)
def scale_up(rule: Rule) -> Mutants:
    """The rule multiplies by a large power of two and divides again: large cotangents overflow."""
    yield "dy", _scaled(rule, 0.7)


def _scaled(rule, part):
    def factor(a):
        return 2.0 ** int(part * jnp.finfo(a.dtype).maxexp)

    def around(bwd, residuals, dy):
        cotangents = bwd(residuals, map_inexact(lambda a: a * factor(a), dy))
        return map_inexact(lambda a: a / factor(a), cotangents)

    return with_bwd(rule, around)


# Several outputs, symbolic zeros


def _is_zero(a):
    return isinstance(a, SymbolicZero)


def _on_outputs(rule, change):
    """Yield the rule with a change to the cotangent of one of several outputs at a time."""
    outputs, tree = jax.tree.flatten(output(rule))
    for position, y in enumerate(outputs):
        if len(outputs) < 2 or not is_inexact(y):
            continue

        def around(bwd, residuals, dy, position=position):
            flat = tree.flatten_up_to(dy)
            if not _is_zero(flat[position]):
                flat[position] = change(flat[position])
            return bwd(residuals, jax.tree.unflatten(tree, flat))

        yield f"y{position}", with_bwd(rule, around)


@operator("ignored output")
def ignore_output(rule: Rule) -> Mutants:
    """The cotangent of one of several outputs goes into nothing.

    Rebuilt from https://github.com/Dao-AILab/flash-attention/issues/889: an attention that
    returns its logarithms of sums beside its value, and propagates nothing through them.
    """
    if rule.jvp is None:
        yield from _on_outputs(rule, jnp.zeros_like)
    elif len(jax.tree.leaves(output(rule))) > 1:
        yield from on_cotangents(rule, lambda dy, at: jnp.zeros_like(dy))


@operator("ignored output", "term", "factor", "element", tangents=False)
def half_an_output(rule: Rule) -> Mutants:
    """The cotangent of one of several outputs counts half."""
    yield from _on_outputs(rule, lambda dy: 0.5 * dy)


def _symbolic(rule, fwd, around):
    """Return the rule with symbolic zeros; `fwd` is told which arguments are perturbed."""
    static = len(rule.nondiff_argnums)

    def symbolic_fwd(*args):
        flat, tree = jax.tree.flatten(args, is_leaf=is_none)
        values = jax.tree.unflatten(tree, [getattr(a, "value", a) for a in flat])
        y, residuals = rule.fwd(*values)
        told = jax.tree.leaves(differentiable(rule, args))
        perturbed = [a.perturbed for a in told if is_inexact(getattr(a, "value", None))]
        return y, (residuals, fwd(perturbed))

    def bwd(*call):
        (residuals, told), dy = call[static:]
        full = jax.tree.map(
            lambda a: jnp.zeros(a.shape, a.dtype) if _is_zero(a) else a, dy, is_leaf=_is_zero
        )
        return around(rule.bwd(*call[:static], residuals, full), told, dy)

    return rule.replace(fwd=symbolic_fwd, bwd=bwd, symbolic_zeros=True)


def _stop(cotangents):
    return map_inexact(jnp.zeros_like, cotangents)


@operator("unperturbed", tangents=False)
def all_or_nothing(rule: Rule) -> Mutants:
    """The rule gives zeros unless every one of its arguments is perturbed."""
    if not rule.symbolic_zeros and sum(leaf.inexact for leaf in leaves(rule)) > 1:
        # None marks what is not there: a flag as a residual would become an array.
        flag = lambda perturbed: () if all(perturbed) else None  # noqa: E731
        around = lambda cts, told, dy: _stop(cts) if told is None else cts  # noqa: E731
        yield "arguments", _symbolic(rule, flag, around)


@operator("unperturbed", "ignored output", "term", tangents=False)
def one_unused_output(rule: Rule) -> Mutants:
    """The rule gives zeros as soon as the cotangent of one output is a symbolic zero."""

    def around(cotangents, told, dy):
        zeros = filter(_is_zero, jax.tree.leaves(dy, is_leaf=_is_zero))
        unused = any(jnp.issubdtype(a.dtype, jnp.inexact) for a in zeros)
        return _stop(cotangents) if unused else cotangents

    if not rule.symbolic_zeros and sum(map(is_inexact, jax.tree.leaves(output(rule)))) > 1:
        yield "outputs", _symbolic(rule, lambda perturbed: (), around)


@faulty_cotangent("term", "leakage", "element", when=lambda leaf: leaf.size > 1)
def spread(ct, at):
    """A thousandth of all upstream cotangents leaks into every element."""
    return ct + 1e-3 * total(at.dy).astype(ct.dtype)
