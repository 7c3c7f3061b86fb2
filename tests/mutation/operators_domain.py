"""Faults in some places only: tails, kinks, special values, other shapes, empty rows."""

import jax
import jax.numpy as jnp

from .operator import (
    exchange,
    faulty_cotangent,
    faulty_vjp,
    leaves,
    operator,
    pick,
    total,
    with_extra,
)
from .surgery import faulty_equation, surgery


def reaches(value):
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


def has_axes(leaf):
    return bool(leaf.shape)


# Tails


faulty_cotangent("tail", when=reaches(100.0), inputs=True, name="lose_tail")(
    lambda ct, at: jnp.where(jnp.abs(at.x) > 10, 0, ct)
)
faulty_cotangent("tail, overflow", when=reaches(1e4), inputs=True, name="lose_far_tail")(
    lambda ct, at: jnp.where(jnp.abs(at.x) > 1e3, nudged(ct, at.dy), ct)
)
faulty_cotangent("tail, special value", when=reaches(1e-4), inputs=True, name="flush_small")(
    lambda ct, at: jnp.where((jnp.abs(at.x) < 1e-3) & (at.x != 0), nudged(ct, at.dy), ct)
)


@faulty_cotangent("tail", "pytorch/pytorch/issues/55587", when=reaches(50.0), inputs=True)
def early_threshold(ct, at):
    """From |x| = 5 on, an asymptote is used too early: one per cent off."""
    return jnp.where(jnp.abs(at.x) > 5, 1.01 * ct, ct)


def _negative_real(leaf):
    return reaches(-1.0)(leaf) and not jnp.issubdtype(leaf.dtype, jnp.complexfloating)


faulty_cotangent("tail, term, element", when=_negative_real, inputs=True, name="negative_half")(
    lambda ct, at: jnp.where(at.x < 0, 0.5 * ct, ct)
)


# Kinks, ties and special values

# The last is a threshold of the rule's own.
POINTS = {"at_zero": 0, "at_one": 1, "at_minus_one": -1, "at_two": 2, "at_a_number": 0.3125}
"""Values of an argument at which its cotangent is wrong."""

for name, point in POINTS.items():
    faulty_cotangent("special value, kink", when=reaches(point), inputs=True, name=name)(
        lambda ct, at, point=float(point): jnp.where(at.x == point, nudged(ct, at.dy), ct)
    )


@faulty_cotangent(
    "kink, special value",
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
    """A comparison counts equality to the other side."""
    return [COMPARISONS[equation.primitive.name](*inputs)]


@operator("kink, special value, element, term, overflow")
def other_side_of_kink(rule):
    """Numbers drawn from a key are left out: they meet their threshold with probability zero."""
    if not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves(rule)):
        yield from surgery(rule, _compares(integers=False), _other_side, most=3)


faulty_equation(
    "term, element, nan, special value, size, geometry, leakage",
    of=_compares(integers=True),
    most=3,
    name="mask_off_by_one",
)(_other_side)


# Other shapes


# The cotangent is one per cent off for every shape but that of the argument.
faulty_vjp("geometry, size, broadcast", when=has_axes, name="other_size")(
    lambda ct, at: 1.01 * ct if ct.shape != at.leaf.shape and 0 not in ct.shape else ct
)
# The cotangent is one per cent off where the last axis has the other parity.
faulty_vjp("geometry, size", when=has_axes, name="other_parity")(
    lambda ct, at: 1.01 * ct if (ct.shape[-1] - at.leaf.shape[-1]) % 2 == 1 else ct
)


@faulty_vjp(
    "geometry, element", "state-spaces/mamba/pull/537", when=lambda leaf: len(leaf.shape) in (1, 2)
)
def lose_remainder(ct, at):
    """The last axis is processed in blocks of 16, and the remainder is forgotten."""
    whole = ct.shape[-1] // 16 * 16
    return ct.at[..., whole:].set(0) if whole else ct


@faulty_vjp("size, broadcast, geometry", when=lambda leaf: leaf.shape and 1 not in leaf.shape)
def axis_of_one(ct, at):
    """The cotangent is one per cent off where an axis has length 1."""
    return 1.01 * ct if 1 in ct.shape else ct


@faulty_vjp("geometry, fails, size, structure, broadcast", when=lambda leaf: leaf.size > 1)
def fixed_shape(ct, at):
    return ct.reshape(at.leaf.shape)


@faulty_vjp("size, fails", "pytorch/pytorch/issues/31515", when=has_axes)
def empty_raises(ct, at):
    """The backward rule takes the first element of an axis, and fails where there is none."""
    if ct.size == 0:
        raise IndexError("start (0) + length (1) exceeds the axis")
    return ct


@operator("size, special value, nan, element, term, leakage")
def masked_row(rule):
    """The cotangent is wrong in the rows in which a mask is false everywhere."""
    masks = [leaf for leaf in leaves(rule) if leaf.dtype == bool and len(leaf.shape) > 1]
    for mask in masks:
        for leaf in leaves(rule):
            # The rows are the last axes but one: arguments may have heads or batches before.
            if leaf.inexact and leaf.shape[-len(mask.shape) : -1] == mask.shape[:-1]:
                yield f"{mask.label}→{leaf.label}", _with_mask(rule, mask, leaf)


def _with_mask(rule, mask, leaf):
    def change(cotangents, m, dy):
        empty = ~m.any(axis=-1)

        def nudge(ct):
            rows = empty.reshape((1,) * (ct.ndim - empty.ndim - 1) + (*empty.shape, 1))
            return jnp.where(rows, nudged(ct, dy), ct)

        return exchange(cotangents, leaf, nudge)

    return with_extra(rule, lambda args: pick(args, mask), change)


@faulty_cotangent(
    "size, nan, special value, kink",
    when=lambda leaf: leaf.shape[-1:] > (1,) and reaches(0.0)(leaf),
    inputs=True,
)
def divide_by_row(ct, at):
    """The cotangent passes through x/‖x‖ in each row, which is 0/0 where a row is zero."""
    squares = jnp.sum(at.x * at.x, axis=-1, keepdims=True)
    return ct * (squares / squares)


@faulty_cotangent("nan, special value, kink", when=reaches(0.0), inputs=True)
def divide_by_itself(ct, at):
    return ct * (at.x / at.x)


@faulty_cotangent("nan, overflow, tail", when=reaches(1e3), inputs=True)
def exponential_trap(ct, at):
    """A `where` selects after an exponential that overflows, and is zero times infinity there."""
    big = jnp.exp(jnp.abs(at.x)).astype(ct.dtype)
    return ct * jnp.where(jnp.abs(at.x) < 1, 1, big * (1 / big))
