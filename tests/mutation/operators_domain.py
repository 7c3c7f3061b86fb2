"""Faults in some places only: tails, kinks, special values, other shapes, empty rows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .operator import (
    Leaf,
    Mutants,
    differentiable,
    exchange,
    faulty_cotangent,
    leaves,
    operator,
    pick,
    total,
)
from .rule import Rule
from .surgery import faulty_equation, surgery


def reaches(value: float) -> Callable[[Leaf], bool]:
    """Return a test for arguments that may take a value, so that a fault there is a fault."""

    def test(leaf):
        if leaf.domain == "positive":
            return value > 0
        if isinstance(leaf.domain, tuple):
            return leaf.domain[0] <= value <= leaf.domain[1]
        return leaf.domain in (None, "real")

    return test


def nudged(ct, dy):
    """Return a cotangent plus the sum of the cotangents of the value: never the same."""
    return ct + total(dy).astype(ct.dtype)


# Tails


@faulty_cotangent("tail", when=reaches(100.0), inputs=True)
def lose_tail(ct, at):
    """The cotangent is zero where |x| is above 10."""
    return jnp.where(jnp.abs(at.x) > 10, 0, ct)


@faulty_cotangent("tail", when=reaches(50.0), inputs=True)
def early_threshold(ct, at):
    """From |x| = 5 on, an asymptote that is not reached yet: one per cent off.

    After https://github.com/pytorch/pytorch/issues/55587, where the forward and the backward pass
    of softplus went over to their asymptotes at different thresholds.
    """
    return jnp.where(jnp.abs(at.x) > 5, 1.01 * ct, ct)


@faulty_cotangent("tail", "overflow", when=reaches(1e4), inputs=True)
def lose_far_tail(ct, at):
    """The cotangent is wrong where |x| is above 1000."""
    return jnp.where(jnp.abs(at.x) > 1e3, nudged(ct, at.dy), ct)


@faulty_cotangent("tail", "special value", when=reaches(1e-4), inputs=True)
def flush_small(ct, at):
    """The cotangent is wrong where |x| is below a thousandth, but not zero."""
    return jnp.where((jnp.abs(at.x) < 1e-3) & (at.x != 0), nudged(ct, at.dy), ct)


def _negative_real(leaf):
    return reaches(-1.0)(leaf) and not jnp.issubdtype(leaf.dtype, jnp.complexfloating)


@faulty_cotangent("tail", "term", "element", when=_negative_real, inputs=True)
def negative_half(ct, at):
    """The cotangent is half as large where x is negative."""
    return jnp.where(at.x < 0, 0.5 * ct, ct)


# Kinks, ties and special values

POINTS = {
    "at_zero": 0.0,
    "at_one": 1.0,
    "at_minus_one": -1.0,
    "at_two": 2.0,
    "at_a_number": 0.3125,  # a threshold of the rule's own
}
"""Values of an argument at which its cotangent is wrong."""

for name, point in POINTS.items():
    faulty_cotangent("special value", "kink", when=reaches(point), inputs=True, name=name)(
        lambda ct, at, point=point: jnp.where(at.x == point, nudged(ct, at.dy), ct)
    )


@faulty_cotangent(
    *("kink", "special value"),
    when=lambda leaf: leaf.shape[-1:] > (1,) and leaf.domain not in ("spd", "symmetric"),
    inputs=True,
)
def at_ties(ct, at):
    """The cotangent is wrong where two neighbours along the last axis are equal."""
    if at.x.shape[-1] < 2:
        return ct
    return jnp.where(at.x == jnp.roll(at.x, 1, axis=-1), nudged(ct, at.dy), ct)


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
        yield from surgery(rule, _compares(integers=False), _other_side, most=3)


@faulty_equation(
    *("term", "element", "nan", "special value", "size", "geometry", "leakage"),
    of=_compares(integers=True),
    most=3,
)
def mask_off_by_one(equation, inputs):
    """A comparison of positions in the derivative rule counts equality to the other side."""
    return _other_side(equation, inputs)


# Other shapes


def _has_axes(leaf):
    return bool(leaf.shape)


@faulty_cotangent("geometry", "size", "broadcast", when=_has_axes, tangents=False)
def other_size(ct, at):
    """The cotangent is one per cent off for every shape but the one given."""
    return 1.01 * ct if ct.shape != at.leaf.shape and 0 not in ct.shape else ct


@faulty_cotangent("geometry", "size", when=_has_axes, tangents=False)
def other_parity(ct, at):
    """The cotangent is one per cent off where the last axis has the other parity."""
    return 1.01 * ct if (ct.shape[-1] - at.leaf.shape[-1]) % 2 == 1 else ct


@faulty_cotangent(
    "geometry", "element", when=lambda leaf: len(leaf.shape) in (1, 2), tangents=False
)
def lose_remainder(ct, at):
    """The last axis is done in blocks of 16, and what is left over is forgotten.

    After https://github.com/state-spaces/mamba/pull/537: a backward kernel lost its place behind
    the last whole block of a sequence.
    """
    whole = ct.shape[-1] // 16 * 16
    return ct.at[..., whole:].set(0) if whole else ct


@faulty_cotangent(
    *("size", "broadcast", "geometry"),
    when=lambda leaf: leaf.shape and 1 not in leaf.shape,
    tangents=False,
)
def axis_of_one(ct, at):
    """The cotangent is one per cent off where an axis has length 1."""
    return 1.01 * ct if 1 in ct.shape else ct


@faulty_cotangent(
    *("geometry", "fails", "size", "structure", "broadcast"),
    when=lambda leaf: leaf.size > 1,
    tangents=False,
)
def fixed_shape(ct, at):
    """The shape of a cotangent is written down as a number."""
    return ct.reshape(at.leaf.shape)


@faulty_cotangent("size", "fails", when=_has_axes, tangents=False)
def empty_raises(ct, at):
    """The backward rule takes the first element of an axis, and fails where there is none.

    Rebuilt from https://github.com/pytorch/pytorch/issues/31515, where the gradient of a
    cumulative sum looked into an array of no elements.
    """
    if ct.size == 0:
        raise IndexError("start (0) + length (1) exceeds the axis")
    return ct


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


@faulty_cotangent(
    *("size", "nan", "special value", "kink"),
    when=lambda leaf: leaf.shape[-1:] > (1,) and reaches(0.0)(leaf),
    inputs=True,
)
def divide_by_row(ct, at):
    """The cotangent passes through x/‖x‖ in each row, which is 0/0 where a row is zero."""
    squares = jnp.sum(at.x * at.x, axis=-1, keepdims=True)
    return ct * (squares / squares)


@faulty_cotangent("nan", "special value", "kink", when=reaches(0.0), inputs=True)
def divide_by_itself(ct, at):
    """The cotangent passes through x/x, which is no number where x is zero."""
    return ct * (at.x / at.x)


@faulty_cotangent("nan", "overflow", "tail", when=reaches(1e3), inputs=True)
def exponential_trap(ct, at):
    """A `where` selects after an exponential that overflows, and is zero times infinity there."""
    big = jnp.exp(jnp.abs(at.x)).astype(ct.dtype)
    return ct * jnp.where(jnp.abs(at.x) < 1, 1, big * (1 / big))
