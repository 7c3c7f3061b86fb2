"""Faults in types and structure: dtypes, weak types, slots, pytrees, the forward rule, tracers."""

import jax
import jax.numpy as jnp

from .operator import (
    Mutants,
    abstract,
    differentiable,
    faulty_cotangent,
    is_inexact,
    leaves,
    operator,
    output,
    register,
    struct,
    with_bwd,
)
from .rule import Rule


def is_real(leaf):
    """Tell whether a leaf holds real numbers."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def is_complex(leaf):
    """Tell whether a leaf holds complex numbers."""
    return jnp.issubdtype(leaf.dtype, jnp.complexfloating)


# Types of cotangents; those of tangents are checked by JAX


@faulty_cotangent("dtype", "fails", "rounding", "x64", when=is_real, tangents=False)
def always_float32(ct, at):
    """A cotangent is float32 whatever its argument is: the type that the sum was done in."""
    return ct.astype(jnp.float32)


@faulty_cotangent("dtype", "fails", "rounding", when=is_real, tangents=False)
def always_bfloat16(ct, at):
    """A cotangent is bfloat16 whatever its argument is."""
    return ct.astype(jnp.bfloat16)


@faulty_cotangent("x64", "dtype", "fails", when=is_real, tangents=False)
def default_dtype(ct, at):
    """A cotangent has the default type: float64 as soon as 64-bit types are enabled."""
    return ct.astype(jnp.result_type(float))


@faulty_cotangent("complex", "dtype", "fails", when=is_real, tangents=False)
def complex_for_real(ct, at):
    """A real argument gets a complex cotangent whose imaginary part is zero.

    Rebuilt from https://github.com/pytorch/pytorch/pull/45839: an angle whose gradient was
    complex for real numbers.
    """
    wide = ct if ct.dtype.itemsize > 2 else ct.astype(jnp.float32)
    return jax.lax.complex(wide, jnp.zeros_like(wide))


@faulty_cotangent("complex", "term", when=is_complex, tangents=False)
def conjugate(ct, at):
    """The cotangent of a complex argument is conjugated, as the gradients of others are.

    After https://github.com/tensorflow/tensorflow/issues/3348: the convention of TensorFlow is
    the conjugate of JAX's, and a rule carried over from the one is wrong in the other.
    """
    return jnp.conj(ct)


@faulty_cotangent("complex", "term", "dtype", "element", when=is_complex, tangents=False)
def real_part_only(ct, at):
    """The cotangent of a complex argument has lost its imaginary part."""
    return ct.real.astype(ct.dtype)


@faulty_cotangent("weak type", "dtype", "fails", "x64", when=is_real, tangents=False)
def weak_cotangent(ct, at):
    """A cotangent is weakly typed, as what comes of Python's numbers is."""
    return jax.lax.convert_element_type(ct, float)


# Slots of what has no cotangent, structure


def _slot(rule, leaf, value):
    def around(bwd, residuals, dy):
        cotangents = list(bwd(residuals, dy))
        flat = list(leaf.tree.flatten_up_to(cotangents[leaf.argument]))
        flat[leaf.position] = value()
        cotangents[leaf.argument] = jax.tree.unflatten(leaf.tree, flat)
        return tuple(cotangents)

    return with_bwd(rule, around)


def _slots(rule):
    """Return the integer, boolean and key arguments, whose slots hold None."""
    return [leaf for leaf in leaves(rule) if not leaf.inexact and leaf.tree.num_nodes == 1]


@operator("integer slot", "fails", tangents=False)
def zeros_for_integers(rule: Rule) -> Mutants:
    """An integer, boolean or key argument gets zeros of float32 for a cotangent.

    After https://github.com/jax-ml/jax/pull/7651 (and the to-do of
    https://github.com/jax-ml/jax/pull/23779), which has what a rule returns there dropped in
    silence.
    """
    for leaf in _slots(rule):
        yield leaf.label, _slot(rule, leaf, lambda leaf=leaf: jnp.zeros(leaf.shape, jnp.float32))


@operator("integer slot", "fails", "dtype", tangents=False)
def integers_for_integers(rule: Rule) -> Mutants:
    """An integer or boolean argument gets ones of its own type for a cotangent."""
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves(rule)):
        return
    for leaf in _slots(rule):
        yield leaf.label, _slot(rule, leaf, lambda leaf=leaf: jnp.ones(leaf.shape, leaf.dtype))


@faulty_cotangent("structure", "fails", tangents=False)
def extra_axis(ct, at):
    """A cotangent has one axis too many, of length 1."""
    return ct[None]


@faulty_cotangent(
    *("structure", "fails", "term"), when=lambda leaf: leaf.shape[-1:] > (1,), tangents=False
)
def kept_dims(ct, at):
    """A cotangent is summed over its last axis, which is kept: a shape that would broadcast."""
    return jnp.sum(ct, axis=-1, keepdims=True) if ct.shape else ct


@operator("structure", "fails", "term", "factor", tangents=False)
def none_for_array(rule: Rule) -> Mutants:
    """None stands where an argument's cotangent belongs, and passes for zero."""
    for leaf in leaves(rule):
        if leaf.inexact:
            yield leaf.label, _slot(rule, leaf, lambda: None)


@operator("structure", "fails", "term", "factor", tangents=False)
def none_for_tree(rule: Rule) -> Mutants:
    """None stands in the place of a whole pytree of cotangents."""
    trees = {leaf.argument for leaf in leaves(rule) if leaf.inexact and leaf.tree.num_nodes > 1}
    for argument in sorted(trees):

        def around(bwd, residuals, dy, argument=argument):
            cotangents = list(bwd(residuals, dy))
            cotangents[argument] = None
            return tuple(cotangents)

        yield str(argument), with_bwd(rule, around)


@operator("structure", "fails", tangents=False)
def one_too_few(rule: Rule) -> Mutants:
    """The last argument has no cotangent at all."""
    yield "last", with_bwd(rule, lambda bwd, residuals, dy: tuple(bwd(residuals, dy))[:-1])


@operator("structure", "fails", tangents=False)
def bare_cotangent(rule: Rule) -> Mutants:
    """The only cotangent is returned by itself and not in a tuple."""
    if len(differentiable(rule, rule.args)) == 1:
        yield "only", with_bwd(rule, lambda bwd, residuals, dy: bwd(residuals, dy)[0])


# The forward rule


def faulty_value(*defects: str, when=lambda outputs: True):
    """Register a fault in one output of the forward rule: the decorated change of that array.

    `when` chooses rules by the real and complex arrays among their outputs.
    """

    def decorate(change):
        def make(rule):
            outputs, tree = jax.tree.flatten(output(rule))
            if when([y for y in outputs if is_inexact(y)]):
                for position, y in enumerate(outputs):
                    if is_inexact(y):
                        yield f"y{position}", _with_value(rule, change, tree, position)

        register(change.__name__, defects, make, change.__doc__)

    return decorate


def _with_value(rule, change, tree, position):
    def faulty(y):
        flat = tree.flatten_up_to(y)
        flat[position] = change(flat[position])
        return jax.tree.unflatten(tree, flat)

    def first(function):
        def changed(*call):
            y, other = function(*call)
            return faulty(y), other

        return changed

    if rule.jvp is None:
        return rule.replace(fwd=first(rule.fwd))
    return rule.replace(jvp=first(rule.jvp))


@faulty_value("forward value")
def forward_scaled(y):
    """Differentiated, the function's value is 1e-5 too large."""
    return y * (1 + 1e-5)


@faulty_value("forward value", "tail")
def forward_clipped(y):
    """Differentiated, the function's value is clipped to ±½."""
    return jnp.clip(y, -0.5, 0.5) if jnp.isrealobj(y) else 0 * y


@faulty_value(
    *("forward value", "order"), when=lambda outputs: any(y.shape[-1:] > (1,) for y in outputs)
)
def forward_rolled(y):
    """Differentiated, the function's value is shifted by one along its last axis."""
    return jnp.roll(y, 1, axis=-1) if y.shape else 1.5 * y


@faulty_value("forward value", "rounding")
def forward_rounded(y):
    """Differentiated, the function's value has been through bfloat16."""
    return y.astype(jnp.bfloat16).astype(y.dtype) if jnp.isrealobj(y) else 0 * y


@faulty_value("forward type", "fails", "dtype")
def forward_dtype(y):
    """Differentiated, the function's value has another dtype."""
    other = jnp.float32 if y.dtype == jnp.bfloat16 else jnp.bfloat16
    return y.astype(other) if jnp.isrealobj(y) else y.real


@faulty_value("forward type", "fails", "structure")
def forward_shape(y):
    """Differentiated, the function's value has an axis more."""
    return y[None]


@operator("forward type", "fails", "structure", tangents=False)
def forward_structure(rule: Rule) -> Mutants:
    """Differentiated, the function's value comes in a list."""

    def fwd(*args):
        y, residuals = rule.fwd(*args)
        return [y], residuals

    yield "y", rule.replace(fwd=fwd)


@faulty_value(
    *("weak type", "forward type", "fails", "scan", "x64", "dtype"),
    when=lambda outputs: all(map(jnp.isrealobj, outputs)),
)
def weak_forward(y):
    """Differentiated, the function's value is weakly typed."""
    return jax.lax.convert_element_type(y, float)


# Tracers


@operator("tracer", "fails", "vmap", "jit", "scan", "remat", tangents=False)
def nondiff_array(rule: Rule) -> Mutants:
    """An integer or boolean array is among the `nondiff_argnums`.

    Rebuilt from https://github.com/jax-ml/jax/issues/2912 and
    https://github.com/jax-ml/jax/issues/20889: the array is a tracer inside a transform, and the
    backward rule meets it when that transform is over.
    """
    for number, a in enumerate(rule.args):
        array = struct(a) if not isinstance(a, dict | tuple | list) else None
        dtype = getattr(array, "dtype", None)
        if number in rule.nondiff_argnums or dtype is None or jnp.issubdtype(dtype, jnp.inexact):
            continue
        if not rule.symbolic_zeros:
            yield str(number), _moved(rule, number)


def _moved(rule, number):
    numbers = tuple(sorted((*rule.nondiff_argnums, number)))
    before = [n for n in range(len(rule.args)) if n not in rule.nondiff_argnums].index(number)

    def bwd(*call):
        kept = [a for n, a in zip(numbers, call) if n != number]
        cotangents = rule.bwd(*kept, *call[len(numbers) :])
        return (*cotangents[:before], *cotangents[before + 1 :])

    return rule.replace(nondiff_argnums=numbers, bwd=bwd)


STASHED = (
    "tracer",
    "fails",
    "jit",
    "nondeterminism",
    "remat",
    "scan",
    "vmap",
    "term",
    "second order",
)


@operator(*STASHED, tangents=False)
def stashed_residuals(rule: Rule) -> Mutants:
    """The forward rule leaves its residuals in a list, where the backward rule looks for them."""
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


@operator(*STASHED, tangents=False)
def stashed_input(rule: Rule) -> Mutants:
    """The function remembers its arguments where the forward rule looks for them."""
    if rule.symbolic_zeros:
        return
    static = len(rule.nondiff_argnums)
    stash = []

    def primal(*args):
        stash[:] = [args]
        return rule.primal(*args)

    def fwd(*args):
        _, residuals = rule.fwd(*args)
        return primal(*args), residuals

    def bwd(*call):
        _, residuals = rule.fwd(*stash[0])
        return rule.bwd(*call[:static], residuals, call[-1])

    definition = rule.definition or rule.primal
    yield "arguments", rule.replace(primal=primal, fwd=fwd, bwd=bwd, definition=definition)
