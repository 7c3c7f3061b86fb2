"""Faults in some places only: tails, kinks, special values, other shapes, empty rows."""

import jax
import jax.numpy as jnp

from .operator import (
    Leaf,
    Mutants,
    differentiable,
    exchange,
    leaves,
    on_cotangents,
    operator,
    pick,
    total,
)
from .rule import Rule
from .surgery import surgery


def reaches(leaf: Leaf, value: float) -> bool:
    """Tell whether an argument may take a value, so that a fault there is a fault."""
    if leaf.domain == "positive":
        return value > 0
    if isinstance(leaf.domain, tuple):
        return leaf.domain[0] <= value <= leaf.domain[1]
    return leaf.domain in (None, "real")


def nudged(ct, dy):
    """Return a cotangent plus the sum of the cotangents of the value: never the same."""
    return ct + total(dy).astype(ct.dtype)


def at(rule: Rule, value: float) -> Mutants:
    """Yield the rule with a wrong cotangent where an argument is exactly `value`."""
    yield from on_cotangents(
        rule,
        lambda ct, x, dy: jnp.where(x == value, nudged(ct, dy), ct),
        lambda leaf: reaches(leaf, value),
        inputs=True,
    )


# Tails


@operator("tail")
def lose_tail(rule: Rule) -> Mutants:
    """The cotangent is zero where |x| is above 10."""
    yield from on_cotangents(
        rule,
        lambda ct, x, dy: jnp.where(jnp.abs(x) > 10, 0, ct),
        lambda leaf: reaches(leaf, 100.0),
        inputs=True,
    )


@operator("tail", bug="https://github.com/pytorch/pytorch/issues/55587")
def early_threshold(rule: Rule) -> Mutants:
    """From |x| = 5 on, an asymptote that is not reached yet: one per cent off.

    After https://github.com/pytorch/pytorch/issues/55587, where the forward and the backward pass
    of softplus went over to their asymptotes at different thresholds.
    """
    yield from on_cotangents(
        rule,
        lambda ct, x, dy: jnp.where(jnp.abs(x) > 5, 1.01 * ct, ct),
        lambda leaf: reaches(leaf, 50.0),
        inputs=True,
    )


@operator("tail", "overflow")
def lose_far_tail(rule: Rule) -> Mutants:
    """The cotangent is wrong where |x| is above 1000."""
    yield from on_cotangents(
        rule,
        lambda ct, x, dy: jnp.where(jnp.abs(x) > 1e3, nudged(ct, dy), ct),
        lambda leaf: reaches(leaf, 1e4),
        inputs=True,
    )


@operator("tail", "special value")
def flush_small(rule: Rule) -> Mutants:
    """The cotangent is wrong where |x| is below a thousandth, but not zero."""
    yield from on_cotangents(
        rule,
        lambda ct, x, dy: jnp.where((jnp.abs(x) < 1e-3) & (x != 0), nudged(ct, dy), ct),
        lambda leaf: reaches(leaf, 1e-4),
        inputs=True,
    )


@operator("tail", "term", "element")
def negative_half(rule: Rule) -> Mutants:
    """The cotangent is half as large where x is negative."""
    yield from on_cotangents(
        rule,
        lambda ct, x, dy: jnp.where(x < 0, 0.5 * ct, ct),
        lambda leaf: reaches(leaf, -1.0) and not jnp.issubdtype(leaf.dtype, jnp.complexfloating),
        inputs=True,
    )


# Kinks, ties and special values


@operator("special value", "kink")
def at_zero(rule: Rule) -> Mutants:
    """The cotangent is wrong where the argument is exactly 0."""
    yield from at(rule, 0.0)


@operator("special value", "kink")
def at_one(rule: Rule) -> Mutants:
    """The cotangent is wrong where the argument is exactly 1."""
    yield from at(rule, 1.0)


@operator("special value", "kink")
def at_minus_one(rule: Rule) -> Mutants:
    """The cotangent is wrong where the argument is exactly -1."""
    yield from at(rule, -1.0)


@operator("special value", "kink")
def at_two(rule: Rule) -> Mutants:
    """The cotangent is wrong where the argument is exactly 2."""
    yield from at(rule, 2.0)


@operator("special value", "kink")
def at_a_number(rule: Rule) -> Mutants:
    """The cotangent is wrong where the argument is exactly 5/16, a threshold of the rule's own."""
    yield from at(rule, 0.3125)


@operator("kink", "special value")
def at_ties(rule: Rule) -> Mutants:
    """The cotangent is wrong where two neighbours along the last axis are equal."""
    yield from on_cotangents(
        rule,
        lambda ct, x, dy: (
            jnp.where(x == jnp.roll(x, 1, axis=-1), nudged(ct, dy), ct) if x.shape[-1] > 1 else ct
        ),
        lambda leaf: leaf.shape[-1:] > (1,) and leaf.domain not in ("spd", "symmetric"),
        inputs=True,
    )


COMPARISONS = {"gt": jax.lax.ge, "ge": jax.lax.gt, "lt": jax.lax.le, "le": jax.lax.lt}


def _compares(integers):
    def test(equation, smooth):
        if equation.primitive.name not in COMPARISONS:
            return False
        return jnp.issubdtype(equation.invars[0].aval.dtype, jnp.integer) == integers

    return test


def _other_side(equation, inputs):
    return [COMPARISONS[equation.primitive.name](*inputs)]


@operator("kink", "special value", "element", "term", "overflow")
def other_side_of_kink(rule: Rule) -> Mutants:
    """A comparison of the derivative rule counts equality to the other side.

    Numbers drawn from a key are left out: they meet their threshold with probability zero.
    """
    if not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves(rule)):
        yield from surgery(rule, _compares(False), _other_side, most=3)


@operator("term", "element", "nan", "special value", "size", "geometry", "leakage")
def mask_off_by_one(rule: Rule) -> Mutants:
    """A comparison of positions in the derivative rule counts equality to the other side."""
    yield from surgery(rule, _compares(True), _other_side, most=3)


# Other shapes


def _reshaping(rule, wrong, of=lambda given: True):
    """Yield the rule with a cotangent that is one per cent off where `wrong(shape, given)`."""
    for leaf in leaves(rule):
        if not leaf.inexact or not leaf.shape or rule.jvp is not None or not of(leaf.shape):
            continue

        def change(ct, x, dy, given=leaf.shape):
            return 1.01 * ct if wrong(ct.shape, given) else ct

        yield from on_cotangents(rule, change, lambda one, leaf=leaf: one.label == leaf.label)


@operator("geometry", "size", "broadcast")
def other_size(rule: Rule) -> Mutants:
    """The cotangent is one per cent off for every shape but the one given."""
    yield from _reshaping(rule, lambda shape, given: shape != given and 0 not in shape)


@operator("geometry", "size")
def other_parity(rule: Rule) -> Mutants:
    """The cotangent is one per cent off where the last axis has the other parity."""
    yield from _reshaping(rule, lambda shape, given: (shape[-1] - given[-1]) % 2 == 1)


@operator("geometry", "element", bug="https://github.com/state-spaces/mamba/pull/537")
def lose_remainder(rule: Rule) -> Mutants:
    """The last axis is done in blocks of 16, and what is left over is forgotten.

    After https://github.com/state-spaces/mamba/pull/537: a backward kernel lost its place behind
    the last whole block of a sequence.
    """

    def change(ct, x, dy):
        whole = ct.shape[-1] // 16 * 16
        return ct.at[..., whole:].set(0) if whole else ct

    if rule.jvp is None:
        yield from on_cotangents(rule, change, lambda leaf: len(leaf.shape) in (1, 2))


@operator("size", "broadcast", "geometry")
def axis_of_one(rule: Rule) -> Mutants:
    """The cotangent is one per cent off where an axis has length 1."""
    yield from _reshaping(rule, lambda shape, given: 1 in shape, lambda given: 1 not in given)


@operator("geometry", "fails", "size", "structure", "broadcast")
def fixed_shape(rule: Rule) -> Mutants:
    """The shape of a cotangent is written down as a number."""
    for leaf in leaves(rule):
        if leaf.inexact and leaf.size > 1 and rule.jvp is None:
            yield from on_cotangents(
                rule,
                lambda ct, x, dy, given=leaf.shape: ct.reshape(given),
                lambda one, leaf=leaf: one.label == leaf.label,
            )


@operator("size", "fails", bug="https://github.com/pytorch/pytorch/issues/31515")
def empty_raises(rule: Rule) -> Mutants:
    """The backward rule takes the first element of an axis, and fails where there is none.

    Rebuilt from https://github.com/pytorch/pytorch/issues/31515, where the gradient of a
    cumulative sum looked into an array of no elements.
    """

    def change(ct, x, dy):
        if ct.size == 0:
            raise IndexError("start (0) + length (1) exceeds the axis")
        return ct

    if rule.jvp is None:
        yield from on_cotangents(rule, change, lambda leaf: bool(leaf.shape))


@operator("size", "special value", "nan", "element", "term", "leakage")
def masked_row(rule: Rule) -> Mutants:
    """The cotangent is wrong in the rows in which a mask is false everywhere."""
    masks = [leaf for leaf in leaves(rule) if leaf.dtype == bool and len(leaf.shape) > 1]
    for mask in masks:
        for leaf in leaves(rule):
            # The rows are the last axes but one: arguments may have heads or batches before.
            if not leaf.inexact or leaf.shape[-len(mask.shape) : -1] != mask.shape[:-1]:
                continue
            yield f"{mask.label}→{leaf.label}", _with_mask(rule, mask, leaf)


def _with_mask(rule, mask, leaf):
    static = len(rule.nondiff_argnums)

    def fwd(*args):
        y, residuals = rule.fwd(*args)
        return y, (residuals, pick(differentiable(rule, args), mask))

    def bwd(*call):
        (residuals, m), dy = call[static:]
        empty = ~m.any(axis=-1)

        def change(ct):
            rows = empty.reshape((1,) * (ct.ndim - empty.ndim - 1) + (*empty.shape, 1))
            return jnp.where(rows, nudged(ct, dy), ct)

        return exchange(rule.bwd(*call[:static], residuals, dy), leaf, change)

    return rule.replace(fwd=fwd, bwd=bwd)


@operator("size", "nan", "special value", "kink")
def divide_by_row(rule: Rule) -> Mutants:
    """The cotangent passes through x/‖x‖ in each row, which is 0/0 where a row is zero."""

    def change(ct, x, dy):
        squares = jnp.sum(x * x, axis=-1, keepdims=True)
        return ct * (squares / squares)

    yield from on_cotangents(
        rule,
        change,
        lambda leaf: leaf.shape[-1:] > (1,) and reaches(leaf, 0.0),
        inputs=True,
    )


@operator("nan", "special value", "kink")
def divide_by_itself(rule: Rule) -> Mutants:
    """The cotangent passes through x/x, which is no number where x is zero."""
    yield from on_cotangents(
        rule, lambda ct, x, dy: ct * (x / x), lambda leaf: reaches(leaf, 0.0), inputs=True
    )


@operator("nan", "overflow", "tail")
def exponential_trap(rule: Rule) -> Mutants:
    """A `where` selects after an exponential that overflows, and is zero times infinity there."""

    def change(ct, x, dy):
        big = jnp.exp(jnp.abs(x)).astype(ct.dtype)
        return ct * jnp.where(jnp.abs(x) < 1, 1, big * (1 / big))

    yield from on_cotangents(rule, change, lambda leaf: reaches(leaf, 1e3), inputs=True)
