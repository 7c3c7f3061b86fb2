"""Faults in what is made of the cotangent of the value: linearity, scale, outputs, zeros."""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .operator import (
    Mutants,
    differentiable,
    is_inexact,
    is_none,
    leaves,
    map_inexact,
    on_cotangents,
    operator,
    output,
    total,
    with_bwd,
    with_dy,
)
from .rule import Rule


def each_dy(rule: Rule, change) -> Mutants:
    """Yield the rule with a change to all cotangents that it is given."""
    if rule.jvp is None:
        yield "dy", with_dy(rule, change)


def real_clip(dy, limit):
    """Clip the real and imaginary parts of an array to ±limit."""
    if jnp.iscomplexobj(dy):
        return jax.lax.complex(jnp.clip(dy.real, -limit, limit), jnp.clip(dy.imag, -limit, limit))
    return jnp.clip(dy, -limit, limit)


@operator("not linear", "scale-dependent")
def clip_to_one(rule: Rule) -> Mutants:
    """The cotangent is clipped to ±1."""
    yield from each_dy(rule, lambda dy: real_clip(dy, 1.0))


@operator("not linear", "scale-dependent")
def clip_to_million(rule: Rule) -> Mutants:
    """The cotangent is clipped to a million, which no ordinary test reaches."""
    yield from each_dy(rule, lambda dy: real_clip(dy, min(1e6, float(jnp.finfo(dy.dtype).max))))


@operator("not linear", "nan", "scale-dependent", "leakage")
def hide_nan(rule: Rule) -> Mutants:
    """NaNs of the cotangent are set to zero, so that trouble passes unseen."""
    yield from each_dy(rule, jnp.nan_to_num)


@operator("not linear", "scale-dependent")
def drop_tiny(rule: Rule) -> Mutants:
    """Cotangents below 1e-6 are set to zero."""
    yield from each_dy(rule, lambda dy: jnp.where(jnp.abs(dy) < 1e-6, 0, dy))


@operator("not linear", "scale-dependent")
def square(rule: Rule) -> Mutants:
    """The cotangent is squared, its sign kept."""
    yield from each_dy(rule, lambda dy: dy * jnp.abs(dy).astype(dy.dtype))


@operator("not linear", "scale-dependent", "sign", "term")
def magnitude(rule: Rule) -> Mutants:
    """The sign of the cotangent is lost."""
    yield from each_dy(rule, lambda dy: jnp.abs(dy).astype(dy.dtype))


@operator("not linear", "scale-dependent")
def squash(rule: Rule) -> Mutants:
    """The cotangent passes through a hyperbolic tangent."""
    yield from each_dy(rule, jnp.tanh)


@operator("not linear", "scale-dependent")
def normalise(rule: Rule) -> Mutants:
    """Cotangents longer than 100 are shortened to 100: clipping by norm, inside the rule."""

    def change(dy):
        length = jnp.sqrt(jnp.sum(jnp.square(jnp.abs(dy)))).astype(dy.dtype)
        return jnp.where(jnp.abs(length) > 100, dy * (100 / length), dy)

    yield from each_dy(rule, change)


@operator("affine")
def add_thousandth(rule: Rule) -> Mutants:
    """A thousandth is added to a cotangent."""
    if rule.jvp is None:
        yield from on_cotangents(rule, lambda ct, x, dy: ct + 1e-3)


@operator("affine")
def add_tiny(rule: Rule) -> Mutants:
    """The smallest safe number is added to a cotangent, against division by zero perhaps."""
    if rule.jvp is None:
        yield from on_cotangents(rule, lambda ct, x, dy: ct + 1e-30)


@operator("affine", "not linear", bug="https://github.com/chainer/chainer/issues/1175")
def ignore_upstream(rule: Rule) -> Mutants:
    """The cotangent is taken to be one, whatever comes after.

    Rebuilt from https://github.com/chainer/chainer/issues/1175, where the gradient of a loss was
    the same however the loss was scaled.
    """
    yield from each_dy(rule, jnp.ones_like)


@operator(
    "term",
    "order",
    "element",
    "broadcast",
    "leakage",
    "factor",
    bug="https://github.com/linkedin/Liger-Kernel/issues/968",
)
def first_upstream(rule: Rule) -> Mutants:
    """Every row is given the cotangent of the first.

    Rebuilt from https://github.com/linkedin/Liger-Kernel/issues/968, where a loss without a
    reduction multiplied all rows by the first entry of the upstream gradient.
    """

    def change(dy):
        return jnp.broadcast_to(dy[:1], dy.shape) if dy.shape and dy.shape[0] else dy

    if any(a.shape and a.shape[0] > 1 and is_inexact(a) for a in jax.tree.leaves(output(rule))):
        yield from each_dy(rule, change)


@operator("scale-dependent", "rounding", "overflow", "not linear")
def scale_down(rule: Rule) -> Mutants:
    """The rule divides by a large power of two and multiplies again: small cotangents vanish."""
    yield from _scaled(rule, -0.7)


@operator("overflow", "scale-dependent", "nan")
def scale_up(rule: Rule) -> Mutants:
    """The rule multiplies by a large power of two and divides again: large cotangents overflow."""
    yield from _scaled(rule, 0.7)


def _scaled(rule, part):
    def factor(a):
        return 2.0 ** int(part * jnp.finfo(a.dtype).maxexp)

    def around(bwd, residuals, dy):
        cotangents = bwd(residuals, map_inexact(lambda a: a * factor(a), dy))
        return map_inexact(lambda a: a / factor(a), cotangents)

    if rule.jvp is None:
        yield "dy", with_bwd(rule, around)


# Several outputs, symbolic zeros


@operator("ignored output", bug="https://github.com/Dao-AILab/flash-attention/issues/889")
def ignore_output(rule: Rule) -> Mutants:
    """The cotangent of one of several outputs goes into nothing.

    Rebuilt from https://github.com/Dao-AILab/flash-attention/issues/889: an attention that
    returns its logarithms of sums beside its value, and propagates nothing through them.
    """
    outputs, tree = jax.tree.flatten(output(rule))
    if len(outputs) < 2:
        return
    for position, y in enumerate(outputs):
        if not is_inexact(y):
            continue
        if rule.jvp is not None:
            change = lambda ct, x, dy: jnp.zeros_like(ct)  # noqa: E731
            mutants = dict(on_cotangents(rule, change))
            yield f"y{position}", mutants[f"y{position}"]
            continue

        def around(bwd, residuals, dy, position=position):
            flat = tree.flatten_up_to(dy)
            if not isinstance(flat[position], SymbolicZero):
                flat[position] = jnp.zeros_like(flat[position])
            return bwd(residuals, jax.tree.unflatten(tree, flat))

        yield f"y{position}", with_bwd(rule, around)


@operator("ignored output", "term", "factor", "element")
def half_an_output(rule: Rule) -> Mutants:
    """The cotangent of one of several outputs counts half."""
    outputs, tree = jax.tree.flatten(output(rule))
    for position, y in enumerate(outputs):
        if len(outputs) < 2 or not is_inexact(y) or rule.jvp is not None:
            continue

        def around(bwd, residuals, dy, position=position):
            flat = tree.flatten_up_to(dy)
            if not isinstance(flat[position], SymbolicZero):
                flat[position] = 0.5 * flat[position]
            return bwd(residuals, jax.tree.unflatten(tree, flat))

        yield f"y{position}", with_bwd(rule, around)


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
        zeros = lambda a: jnp.zeros(a.shape, a.dtype) if isinstance(a, SymbolicZero) else a  # noqa: E731
        full = jax.tree.map(zeros, dy, is_leaf=lambda a: isinstance(a, SymbolicZero))
        return around(rule.bwd(*call[:static], residuals, full), told, dy)

    return rule.replace(fwd=symbolic_fwd, bwd=bwd, symbolic_zeros=True)


def _stop(cotangents):
    return map_inexact(jnp.zeros_like, cotangents)


@operator("unperturbed")
def all_or_nothing(rule: Rule) -> Mutants:
    """The rule gives zeros unless every one of its arguments is perturbed."""
    if rule.jvp is None and not rule.symbolic_zeros and sum(x.inexact for x in leaves(rule)) > 1:
        # None marks what is not there: a flag as a residual would become an array.
        yield (
            "arguments",
            _symbolic(
                rule,
                lambda perturbed: () if all(perturbed) else None,
                lambda cotangents, told, dy: _stop(cotangents) if told is None else cotangents,
            ),
        )


@operator("unperturbed", "ignored output", "term")
def one_unused_output(rule: Rule) -> Mutants:
    """The rule gives zeros as soon as the cotangent of one output is a symbolic zero."""
    many = sum(map(is_inexact, jax.tree.leaves(output(rule)))) > 1
    if rule.jvp is None and not rule.symbolic_zeros and many:
        unused = lambda dy: any(  # noqa: E731
            isinstance(a, SymbolicZero) and jnp.issubdtype(a.dtype, jnp.inexact)
            for a in jax.tree.leaves(dy, is_leaf=lambda a: isinstance(a, SymbolicZero))
        )
        yield (
            "outputs",
            _symbolic(
                rule,
                lambda perturbed: (),
                lambda cotangents, told, dy: _stop(cotangents) if unused(dy) else cotangents,
            ),
        )


@operator("term", "leakage", "element")
def spread(rule: Rule) -> Mutants:
    """A thousandth of all upstream cotangents leaks into every element."""
    yield from on_cotangents(
        rule, lambda ct, x, dy: ct + 1e-3 * total(dy).astype(ct.dtype), lambda leaf: leaf.size > 1
    )
