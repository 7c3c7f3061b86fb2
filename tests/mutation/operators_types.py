"""Faults in types and structure: dtypes, weak types, slots, pytrees, the forward rule, tracers."""

import jax
import jax.numpy as jnp

from .operator import (
    Mutants,
    abstract,
    differentiable,
    is_inexact,
    leaves,
    on_cotangents,
    operator,
    output,
    struct,
    with_bwd,
)
from .rule import Rule


def real(leaf):
    """Tell whether a leaf holds real numbers."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def reverse_only(rule: Rule, change, when=lambda leaf: True) -> Mutants:
    """Yield the rule with a change to a cotangent; tangents have their types checked by JAX."""
    if rule.jvp is None:
        yield from on_cotangents(rule, lambda ct, x, dy: change(ct), when)


# Types of cotangents


@operator("dtype", "fails", "rounding", "x64")
def always_float32(rule: Rule) -> Mutants:
    """A cotangent is float32 whatever its argument is: the type that the sum was done in."""
    yield from reverse_only(rule, lambda ct: ct.astype(jnp.float32), real)


@operator("dtype", "fails", "rounding")
def always_bfloat16(rule: Rule) -> Mutants:
    """A cotangent is bfloat16 whatever its argument is."""
    yield from reverse_only(rule, lambda ct: ct.astype(jnp.bfloat16), real)


@operator("x64", "dtype", "fails")
def default_dtype(rule: Rule) -> Mutants:
    """A cotangent has the default type: float64 as soon as 64-bit types are enabled."""
    yield from reverse_only(rule, lambda ct: ct.astype(jnp.result_type(float)), real)


@operator("complex", "dtype", "fails", bug="https://github.com/pytorch/pytorch/pull/45839")
def complex_for_real(rule: Rule) -> Mutants:
    """A real argument gets a complex cotangent whose imaginary part is zero.

    Rebuilt from https://github.com/pytorch/pytorch/pull/45839: an angle whose gradient was
    complex for real numbers.
    """
    wide = lambda ct: ct if ct.dtype.itemsize > 2 else ct.astype(jnp.float32)  # noqa: E731
    yield from reverse_only(
        rule, lambda ct: jax.lax.complex(wide(ct), jnp.zeros_like(wide(ct))), real
    )


@operator("complex", "term", bug="https://github.com/tensorflow/tensorflow/issues/3348")
def conjugate(rule: Rule) -> Mutants:
    """The cotangent of a complex argument is conjugated, as the gradients of others are.

    After https://github.com/tensorflow/tensorflow/issues/3348: the convention of TensorFlow is
    the conjugate of JAX's, and a rule carried over from the one is wrong in the other.
    """
    yield from reverse_only(rule, jnp.conj, lambda leaf: leaf.inexact and not real(leaf))


@operator("complex", "term", "dtype", "element")
def real_part_only(rule: Rule) -> Mutants:
    """The cotangent of a complex argument has lost its imaginary part."""
    yield from reverse_only(
        rule, lambda ct: ct.real.astype(ct.dtype), lambda leaf: leaf.inexact and not real(leaf)
    )


@operator("weak type", "dtype", "fails", "x64")
def weak_cotangent(rule: Rule) -> Mutants:
    """A cotangent is weakly typed, as what comes of Python's numbers is."""
    yield from reverse_only(rule, lambda ct: jax.lax.convert_element_type(ct, float), real)


# Slots of what has no cotangent, structure


def _slot(rule, leaf, value):
    def around(bwd, residuals, dy):
        cotangents = list(bwd(residuals, dy))
        flat = list(leaf.tree.flatten_up_to(cotangents[leaf.argument]))
        flat[leaf.position] = value(leaf)
        cotangents[leaf.argument] = jax.tree.unflatten(leaf.tree, flat)
        return tuple(cotangents)

    return with_bwd(rule, around)


def _slots(rule, value):
    """Yield the rule with something in the place of the None of a top-level argument."""
    for leaf in leaves(rule) if rule.jvp is None else ():
        if not leaf.inexact and leaf.tree.num_nodes == 1:
            yield leaf.label, _slot(rule, leaf, value)


@operator("integer slot", "fails", bug="https://github.com/jax-ml/jax/pull/7651")
def zeros_for_integers(rule: Rule) -> Mutants:
    """An integer, boolean or key argument gets zeros of float32 for a cotangent.

    After https://github.com/jax-ml/jax/pull/7651 (and the to-do of
    https://github.com/jax-ml/jax/pull/23779), which has what a rule returns there dropped in
    silence.
    """
    yield from _slots(rule, lambda leaf: jnp.zeros(leaf.shape, jnp.float32))


@operator("integer slot", "fails", "dtype")
def integers_for_integers(rule: Rule) -> Mutants:
    """An integer or boolean argument gets ones of its own type for a cotangent."""
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves(rule)):
        return
    yield from _slots(rule, lambda leaf: jnp.ones(leaf.shape, leaf.dtype))


@operator("structure", "fails")
def extra_axis(rule: Rule) -> Mutants:
    """A cotangent has one axis too many, of length 1."""
    yield from reverse_only(rule, lambda ct: ct[None])


@operator("structure", "fails", "term")
def kept_dims(rule: Rule) -> Mutants:
    """A cotangent is summed over its last axis, which is kept: a shape that would broadcast."""
    yield from reverse_only(
        rule,
        lambda ct: jnp.sum(ct, axis=-1, keepdims=True) if ct.shape else ct,
        lambda leaf: leaf.shape[-1:] > (1,),
    )


@operator("structure", "fails", "term", "factor")
def none_for_array(rule: Rule) -> Mutants:
    """None stands where an argument's cotangent belongs, and passes for zero."""
    if rule.jvp is not None:
        return
    for leaf in leaves(rule):
        if leaf.inexact:
            yield leaf.label, _slot(rule, leaf, lambda leaf: None)


@operator("structure", "fails", "term", "factor")
def none_for_tree(rule: Rule) -> Mutants:
    """None stands in the place of a whole pytree of cotangents."""
    if rule.jvp is not None:
        return
    trees = {leaf.argument for leaf in leaves(rule) if leaf.inexact and leaf.tree.num_nodes > 1}
    for argument in sorted(trees):

        def around(bwd, residuals, dy, argument=argument):
            cotangents = list(bwd(residuals, dy))
            cotangents[argument] = None
            return tuple(cotangents)

        yield str(argument), with_bwd(rule, around)


@operator("structure", "fails")
def one_too_few(rule: Rule) -> Mutants:
    """The last argument has no cotangent at all."""
    if rule.jvp is None:
        yield "last", with_bwd(rule, lambda bwd, residuals, dy: tuple(bwd(residuals, dy))[:-1])


@operator("structure", "fails")
def bare_cotangent(rule: Rule) -> Mutants:
    """The only cotangent is returned by itself and not in a tuple."""
    if rule.jvp is None and len(differentiable(rule, rule.args)) == 1:
        yield "only", with_bwd(rule, lambda bwd, residuals, dy: bwd(residuals, dy)[0])


# The forward rule


def forward(rule: Rule, change) -> Mutants:
    """Yield the rule with `change(array)` for one output of its forward rule at a time."""
    outputs, tree = jax.tree.flatten(output(rule))
    for position, y in enumerate(outputs):
        if not is_inexact(y):
            continue

        def faulty(y, position=position):
            flat = tree.flatten_up_to(y)
            flat[position] = change(flat[position])
            return jax.tree.unflatten(tree, flat)

        def fwd(*args, faulty=faulty):
            y, residuals = rule.fwd(*args)
            return faulty(y), residuals

        def jvp(*call, faulty=faulty):
            y, dy = rule.jvp(*call)
            return faulty(y), dy

        mutant = rule.replace(fwd=fwd) if rule.jvp is None else rule.replace(jvp=jvp)
        yield f"y{position}", mutant


@operator("forward value")
def forward_scaled(rule: Rule) -> Mutants:
    """Differentiated, the function's value is 1e-5 too large."""
    yield from forward(rule, lambda y: y * (1 + 1e-5))


@operator("forward value", "tail")
def forward_clipped(rule: Rule) -> Mutants:
    """Differentiated, the function's value is clipped to ±½."""
    clip = lambda y: jnp.clip(y, -0.5, 0.5) if jnp.isrealobj(y) else 0 * y  # noqa: E731
    yield from forward(rule, clip)


@operator("forward value", "order")
def forward_rolled(rule: Rule) -> Mutants:
    """Differentiated, the function's value is shifted by one along its last axis."""
    if any(a.shape[-1:] > (1,) and is_inexact(a) for a in jax.tree.leaves(output(rule))):
        roll = lambda y: jnp.roll(y, 1, axis=-1) if y.shape else 1.5 * y  # noqa: E731
        yield from forward(rule, roll)


@operator("forward value", "rounding")
def forward_rounded(rule: Rule) -> Mutants:
    """Differentiated, the function's value has been through bfloat16."""
    low = lambda y: y.astype(jnp.bfloat16).astype(y.dtype) if jnp.isrealobj(y) else 0 * y  # noqa: E731
    yield from forward(rule, low)


@operator("forward type", "fails", "dtype")
def forward_dtype(rule: Rule) -> Mutants:
    """Differentiated, the function's value has another dtype."""
    other = lambda y: jnp.float32 if y.dtype == jnp.bfloat16 else jnp.bfloat16  # noqa: E731
    yield from forward(rule, lambda y: y.astype(other(y)) if jnp.isrealobj(y) else y.real)


@operator("forward type", "fails", "structure")
def forward_shape(rule: Rule) -> Mutants:
    """Differentiated, the function's value has an axis more."""
    yield from forward(rule, lambda y: y[None])


@operator("forward type", "fails", "structure")
def forward_structure(rule: Rule) -> Mutants:
    """Differentiated, the function's value comes in a list."""
    if rule.jvp is None:

        def fwd(*args):
            y, residuals = rule.fwd(*args)
            return [y], residuals

        yield "y", rule.replace(fwd=fwd)


@operator("weak type", "forward type", "fails", "scan", "x64", "dtype")
def weak_forward(rule: Rule) -> Mutants:
    """Differentiated, the function's value is weakly typed."""
    weak = lambda y: jax.lax.convert_element_type(y, float) if jnp.isrealobj(y) else y  # noqa: E731
    if all(jnp.isrealobj(y) for y in jax.tree.leaves(output(rule)) if is_inexact(y)):
        yield from forward(rule, weak)


# Tracers


@operator(
    "tracer",
    "fails",
    "vmap",
    "jit",
    "scan",
    "remat",
    bug="https://github.com/jax-ml/jax/issues/2912",
)
def nondiff_array(rule: Rule) -> Mutants:
    """An integer or boolean array is among the `nondiff_argnums`.

    Rebuilt from https://github.com/jax-ml/jax/issues/2912 and
    https://github.com/jax-ml/jax/issues/20889: the array is a tracer inside a transform, and the
    backward rule meets it when that transform is over.
    """
    if rule.jvp is not None or rule.symbolic_zeros:
        return
    for number, a in enumerate(rule.args):
        array = struct(a) if not isinstance(a, dict | tuple | list) else None
        dtype = getattr(array, "dtype", None)
        if number in rule.nondiff_argnums or dtype is None or jnp.issubdtype(dtype, jnp.inexact):
            continue
        yield str(number), _moved(rule, number)


def _moved(rule, number):
    numbers = tuple(sorted((*rule.nondiff_argnums, number)))
    before = [n for n in range(len(rule.args)) if n not in rule.nondiff_argnums].index(number)

    def bwd(*call):
        kept = [a for n, a in zip(numbers, call) if n != number]
        cotangents = rule.bwd(*kept, *call[len(numbers) :])
        return (*cotangents[:before], *cotangents[before + 1 :])

    return rule.replace(nondiff_argnums=numbers, bwd=bwd)


@operator(
    "tracer", "fails", "jit", "nondeterminism", "remat", "scan", "vmap", "term", "second order"
)
def stashed_residuals(rule: Rule) -> Mutants:
    """The forward rule leaves its residuals in a list, where the backward rule looks for them."""
    if rule.jvp is not None:
        return
    if not rule.symbolic_zeros:
        residuals = jax.tree.leaves(abstract(rule.fwd, rule)[1])
        if not any(hasattr(a, "dtype") for a in residuals):
            return  # there is nothing to leave, or a shape that is the same at every trace
    static = len(rule.nondiff_argnums)
    stash = []

    def fwd(*args):
        y, residuals = rule.fwd(*args)
        stash[:] = [residuals]
        return y, ()

    def bwd(*call):
        return rule.bwd(*call[:static], stash[0], call[-1])

    yield "residuals", rule.replace(fwd=fwd, bwd=bwd)


@operator(
    "tracer", "fails", "jit", "vmap", "scan", "remat", "nondeterminism", "term", "second order"
)
def stashed_input(rule: Rule) -> Mutants:
    """The function remembers its arguments where the forward rule looks for them."""
    if rule.jvp is not None or rule.symbolic_zeros:
        return
    stash = []

    def primal(*args):
        stash[:] = [args]
        return rule.primal(*args)

    def fwd(*args):
        _, residuals = rule.fwd(*args)
        y = primal(*args)
        return y, residuals

    def bwd(*call):
        static = len(rule.nondiff_argnums)
        _, residuals = rule.fwd(*stash[0])
        return rule.bwd(*call[:static], residuals, call[-1])

    definition = rule.definition or rule.primal
    yield "arguments", rule.replace(primal=primal, fwd=fwd, bwd=bwd, definition=definition)
