"""Faults in types and structure: dtypes, weak types, slots, pytrees, the forward rule, tracers."""

import jax
import jax.numpy as jnp

from . import operator as o


def is_real(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def is_complex(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.complexfloating)


# Types of cotangents; those of tangents are checked by JAX


REAL = {
    "always_float32": ("dtype, fails, rounding, x64", lambda ct, at: ct.astype(jnp.float32)),
    "always_bfloat16": ("dtype, fails, rounding", lambda ct, at: ct.astype(jnp.bfloat16)),
    # float64 as soon as 64-bit types are enabled
    "default_dtype": ("x64, dtype, fails", lambda ct, at: ct.astype(jnp.result_type(float))),
    "weak_cotangent": (
        "weak type, dtype, fails, x64",
        lambda ct, at: jax.lax.convert_element_type(ct, float),
    ),
}
"""Defects, and the conversion of a real cotangent whatever the dtype of the argument."""

for name, (defects, change) in REAL.items():
    o.faulty_vjp(defects, when=is_real, name=name)(change)


@o.faulty_vjp("complex, dtype, fails", "pytorch/pytorch/pull/45839", when=is_real)
def complex_for_real(ct, at):
    """A real argument gets a complex cotangent whose imaginary part is zero."""
    wide = ct if ct.dtype.itemsize > 2 else ct.astype(jnp.float32)
    return jax.lax.complex(wide, jnp.zeros_like(wide))


@o.faulty_vjp("complex, term", "tensorflow/tensorflow/issues/3348", when=is_complex)
def conjugate(ct, at):
    """TensorFlow's convention is the conjugate of JAX's."""
    return jnp.conj(ct)


o.faulty_vjp("complex, term, dtype, element", when=is_complex, name="real_part_only")(
    lambda ct, at: ct.real.astype(ct.dtype)
)


# Slots of arguments without cotangents, structure


def _slot(rule, leaf, value):
    def fill(cotangents):
        flat = list(leaf.tree.flatten_up_to(cotangents[leaf.argument]))
        flat[leaf.position] = value()
        cotangents[leaf.argument] = jax.tree.unflatten(leaf.tree, flat)

    return leaf.label, o.with_cotangents(rule, fill)


def _slots(rule):
    """Return the integer, boolean and key arguments, whose slots hold None."""
    return [leaf for leaf in o.leaves(rule) if not leaf.inexact and leaf.tree.num_nodes == 1]


@o.operator("integer slot, fails", "jax-ml/jax/pull/7651 jax-ml/jax/pull/23779", tangents=False)
def zeros_for_integers(rule):
    """An integer, boolean or key argument gets zeros of float32 for a cotangent."""
    for leaf in _slots(rule):
        yield _slot(rule, leaf, lambda leaf=leaf: jnp.zeros(leaf.shape, jnp.float32))


@o.operator("integer slot, fails, dtype", tangents=False)
def integers_for_integers(rule):
    """An integer or boolean argument gets ones of its own type for a cotangent."""
    if not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in o.leaves(rule)):
        for leaf in _slots(rule):
            yield _slot(rule, leaf, lambda leaf=leaf: jnp.ones(leaf.shape, leaf.dtype))


o.faulty_vjp("structure, fails", name="extra_axis")(lambda ct, at: ct[None])
# A cotangent is summed over its last axis, with `keepdims`: a shape that would broadcast.
o.faulty_vjp("structure, fails, term", when=lambda leaf: leaf.shape[-1:] > (1,), name="kept_dims")(
    lambda ct, at: jnp.sum(ct, axis=-1, keepdims=True) if ct.shape else ct
)


@o.operator("structure, fails, term, factor", tangents=False)
def none_for_array(rule):
    """None stands where an argument's cotangent belongs, and passes for zero."""
    for leaf in o.leaves(rule):
        if leaf.inexact:
            yield _slot(rule, leaf, lambda: None)


@o.operator("structure, fails, term, factor", tangents=False)
def none_for_tree(rule):
    """None stands in the place of a whole pytree of cotangents."""
    trees = {leaf.argument for leaf in o.leaves(rule) if leaf.inexact and leaf.tree.num_nodes > 1}
    for argument in sorted(trees):

        def empty(cotangents, argument=argument):
            cotangents[argument] = None

        yield str(argument), o.with_cotangents(rule, empty)


@o.operator("structure, fails", tangents=False)
def one_too_few(rule):
    """The last argument has no cotangent at all."""
    yield "last", o.with_cotangents(rule, list.pop)


@o.operator("structure, fails", tangents=False)
def bare_cotangent(rule):
    """The only cotangent is returned by itself and not in a tuple."""
    if len(o.differentiable(rule, rule.args)) == 1:
        yield "only", o.with_bwd(rule, lambda bwd, residuals, dy: bwd(residuals, dy)[0])


# The forward rule


def faulty_value(defects, when=lambda outputs: True, name=""):
    """Register a fault in one output of the forward rule: the decorated change of that array.

    `when` chooses rules by the real and complex arrays among their outputs.
    """

    def decorate(change):
        def make(rule):
            outputs, tree = jax.tree.flatten(o.output(rule))
            places = [n for n, y in enumerate(outputs) if o.is_inexact(y)]
            if when([outputs[n] for n in places]):
                for n in places:
                    yield f"y{n}", _with_value(rule, change, tree, n)

        o.register(name or change.__name__, defects, make)

    return decorate


def _with_value(rule, change, tree, position):
    name = "fwd" if rule.jvp is None else "jvp"

    def changed(*call):
        y, other = getattr(rule, name)(*call)
        flat = tree.flatten_up_to(y)
        flat[position] = change(flat[position])
        return jax.tree.unflatten(tree, flat), other

    return rule.replace(**{name: changed})


faulty_value("forward value", name="forward_scaled")(lambda y: y * (1 + 1e-5))
faulty_value("forward type, fails, structure", name="forward_shape")(lambda y: y[None])
faulty_value("forward value, tail", name="forward_clipped")(
    lambda y: jnp.clip(y, -0.5, 0.5) if jnp.isrealobj(y) else 0 * y
)


@faulty_value("forward value, order", when=lambda ys: any(y.shape[-1:] > (1,) for y in ys))
def forward_rolled(y):
    return jnp.roll(y, 1, axis=-1) if y.shape else 1.5 * y


faulty_value("forward value, rounding", name="forward_rounded")(
    lambda y: y.astype(jnp.bfloat16).astype(y.dtype) if jnp.isrealobj(y) else 0 * y
)


@faulty_value("forward type, fails, dtype")
def forward_dtype(y):
    other = jnp.float32 if y.dtype == jnp.bfloat16 else jnp.bfloat16
    return y.astype(other) if jnp.isrealobj(y) else y.real


@faulty_value(
    "weak type, forward type, fails, scan, x64, dtype",
    when=lambda outputs: all(map(jnp.isrealobj, outputs)),
)
def weak_forward(y):
    return jax.lax.convert_element_type(y, float)


@o.operator("forward type, fails, structure", tangents=False)
def forward_structure(rule):
    """Differentiated, the function's value comes in a list."""

    def fwd(*args):
        y, residuals = rule.fwd(*args)
        return [y], residuals

    yield "y", rule.replace(fwd=fwd)


# Tracers


@o.operator(
    "tracer, fails, vmap, jit, scan, remat",
    "jax-ml/jax/issues/2912 jax-ml/jax/issues/20889",
    tangents=False,
)
def nondiff_array(rule):
    """An integer or boolean array is among the `nondiff_argnums`.

    It is a tracer inside a transform, and the backward rule meets it when that transform is over.
    """
    for number, a in enumerate(rule.args):
        array = o.struct(a) if not isinstance(a, dict | tuple | list) else None
        dtype = getattr(array, "dtype", None)
        if number in rule.nondiff_argnums or dtype is None or jnp.issubdtype(dtype, jnp.inexact):
            continue
        if not rule.symbolic_zeros:
            yield str(number), _moved(rule, number)


def _moved(rule, number):
    numbers = tuple(sorted((*rule.nondiff_argnums, number)))
    before = [n for n in range(len(rule.args)) if n not in rule.nondiff_argnums].index(number)

    def bwd(*call):
        others = [a for n, a in zip(numbers, call) if n != number]
        cotangents = rule.bwd(*others, *call[len(numbers) :])
        return (*cotangents[:before], *cotangents[before + 1 :])

    return rule.replace(nondiff_argnums=numbers, bwd=bwd)


STASHED = "tracer, fails, jit, nondeterminism, remat, scan, vmap, term, second order"


@o.operator(STASHED, tangents=False)
def stashed_residuals(rule):
    """The forward rule leaves its residuals in a list, where the backward rule looks for them."""
    if not rule.symbolic_zeros:
        residuals = jax.tree.leaves(o.abstract(rule.fwd, rule)[1])
        if not any(hasattr(a, "dtype") for a in residuals):
            return  # there is nothing to leave, or a shape that is the same at every trace
    stash = []

    def fwd(*args):
        y, residuals = rule.fwd(*args)
        stash[:] = [residuals]
        return y, ()

    yield "residuals", o.with_bwd(rule, lambda bwd, _, dy: bwd(stash[0], dy)).replace(fwd=fwd)


@o.operator(STASHED, tangents=False)
def stashed_input(rule):
    """The function remembers its arguments where the forward rule looks for them."""
    if rule.symbolic_zeros:
        return
    stash = []

    def primal(*args):
        stash[:] = [args]
        return rule.primal(*args)

    def fwd(*args):
        _, residuals = rule.fwd(*args)
        return primal(*args), residuals

    faulty = o.with_bwd(rule, lambda bwd, _, dy: bwd(rule.fwd(*stash[0])[1], dy))
    definition = rule.definition or rule.primal
    yield "arguments", faulty.replace(primal=primal, fwd=fwd, definition=definition)
