"""Every op called with numbers for arrays, with NaN, with empty axes, and for every platform."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from fnn.custom_op import OPS
from fnn.errors import ShapeError
from fnn.verifier.interpreter import interpreter

from .test_ops import NAMES


@pytest.fixture(autouse=True, scope="module")
def _whole_tracebacks():
    """Leave JAX's frames in tracebacks: filtering them takes longer than the refusals."""
    filtering = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    yield
    jax.config.update("jax_traceback_filtering", filtering)


leaves = jax.tree.leaves


class Call:
    """One call of an op: its first example, in float32."""

    def __init__(self, name):
        self.op = OPS[name]
        sample = next(e for e in self.op.examples if "bench" not in e.tags)
        values = sample.draw(0, np.float32)
        self.statics = {k: values.get(k, default) for k, default in self.op.statics.items()}
        self.arrays = {
            k: np.asarray(v, None if hasattr(v, "dtype") else np.float32) if not is_key(v) else v
            for k in self.op.arguments
            if (v := values.get(k)) is not None
        }

    def __call__(self, function, arrays):
        return function(*(arrays.get(name) for name in self.op.arguments), **self.statics)

    def by_reference(self, arrays):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return self(self.op.reference, arrays)

    def with_pullback(self, function, arrays):
        """Return the value, and the gradients of its sum by the floating-point arrays."""
        floats = {k: a for k, a in arrays.items() if is_float(a)}
        y, pullback = jax.vjp(lambda floats: self(function, arrays | floats), floats)
        return y, pullback(jax.tree.map(ones, y))[0]


def is_key(value):
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def is_float(value):
    return jnp.issubdtype(value.dtype, jnp.floating)


def ones(y):
    """Return the cotangent of a sum: 1 everywhere, or float0 for an output without a gradient."""
    return jnp.ones_like(y) if is_float(y) else np.zeros(y.shape, jax.dtypes.float0)


def traced(function, arrays):
    """Return the types of the results and a function that computes them, in NumPy if possible."""
    program, types = jax.make_jaxpr(function, return_shape=True)(arrays)
    compute = functools.cache(lambda: interpreter(program) or compiled(program))

    def run(arrays):
        outputs = compute()(jax.tree.leaves(arrays))
        return jax.tree.unflatten(jax.tree.structure(types), outputs)

    return types, run


def compiled(program):
    function = jax.jit(core.jaxpr_as_fun(program))
    return lambda arrays: function(*arrays)


# Numbers for arrays


def scanned(f):
    return lambda x: jax.lax.scan(lambda total, _: (total + f(x), None), 0.0, length=2)[0]


TRANSFORMS = {
    "jit": lambda f, jitted: jitted,
    "grad of jit": lambda f, jitted: jax.grad(jitted),
    "jit of grad": lambda f, jitted: jax.jit(jax.grad(f)),
    "vjp of jit": lambda f, jitted: lambda x: jax.vjp(jitted, x)[1](1.0),
    "checkpoint": lambda f, jitted: jax.grad(jax.checkpoint(f)),
    "scan": lambda f, jitted: jax.grad(scanned(f)),
    "vmap": lambda f, jitted: (
        lambda x: jax.vmap(jax.grad(jitted))(jax.tree.map(lambda a: jnp.stack([a, a]), x))
    ),
}
KINDS = {"Python": lambda number: number.item(), "NumPy": lambda number: number, "JAX": jnp.asarray}


@pytest.mark.parametrize("name", NAMES)
def test_a_number_is_an_array_under_every_transform(name):
    """Each array that may be a single number becomes one; gradients are by the others."""
    call = Call(name)
    numbers = {
        k: (0.5 if is_float(a) else 1) * np.ones((), a.dtype)[()]
        for k, a in call.arrays.items()
        if not is_key(a)
    }
    choices = {
        f"{k} as a {kind} number": {k: convert(number)}
        for k, number in numbers.items()
        if is_traceable(lambda n, k=k: call(call.op, call.arrays | {k: n}), number)
        for kind, convert in KINDS.items()
    }

    def loss(x):
        y = [call(call.op, call.arrays | x["floats"] | number) for number in choices.values()]
        return x["factor"] * sum(jnp.sum(leaves(one)[0]) for one in y)

    x = {"floats": {k: a for k, a in call.arrays.items() if is_float(a)}, "factor": np.float32(1)}
    jitted = jax.jit(loss)
    for transform, transformed in TRANSFORMS.items() if choices else ():
        try:
            jax.eval_shape(transformed(loss, jitted), x)
        except Exception as error:
            error.add_note(f"{transform} of {name} with {', '.join(choices)}")
            raise


def is_traceable(function, *args):
    try:
        jax.eval_shape(function, *args)
    except Exception:
        return False
    return True


# NaN


@pytest.mark.parametrize("name", NAMES)
def test_nan_goes_where_the_definition_and_the_reference_send_it(name):
    """One NaN in the middle of each array, then NaN throughout it.

    A rule may return more NaN than its definition only if its docstring says that 0·∞ is NaN. It
    returns every NaN of the definition's derivative, and every NaN of the reference on an array of
    NaN.
    """
    call = Call(name)
    is_traced = call.op.reference is not None and is_traceable(call.by_reference, call.arrays)

    def everything(arrays):
        rule, definition = (call.with_pullback(f, arrays) for f in (call.op, call.op.definition))
        return rule, definition, call.by_reference(arrays) if is_traced else None

    _, evaluate = traced(everything, call.arrays)
    for argument, array in call.arrays.items():
        if not is_float(array):
            continue
        one = array.copy()
        one.flat[array.size // 2] = np.nan
        for x in (one, np.full_like(array, np.nan)):
            arrays = call.arrays | {argument: x}
            (y, gradients), (expected, expected_gradients), reference = nan(evaluate(arrays))
            same = hides_no if "0·∞" in call.op.__doc__ else np.array_equal
            assert all(map(same, leaves(y), leaves(expected))), argument
            assert all(map(hides_no, leaves(gradients), leaves(expected_gradients))), argument
        if call.op.reference is not None:
            reference = reference if is_traced else nan(call.by_reference(arrays))
            for a, b in zip(leaves(y), leaves(reference), strict=False):
                assert hides_no(a, b), f"{argument}, against the reference"


def nan(tree):
    return jax.tree.map(np.isnan, jax.device_get(tree))


def hides_no(actual, expected):
    return np.all(actual | ~expected)


# Empty axes


@pytest.mark.parametrize("name", NAMES)
def test_empty_axes_are_refused_or_agree_with_the_definition(name):
    """Each axis is emptied alone, and together with one axis of equal size per other array.

    Rule and definition both refuse the call, or return the same, forward and backward. If the
    reference accepts the call, the rule may refuse it only with a ShapeError.
    """
    call = Call(name)
    pullbacks = [functools.partial(call.with_pullback, f) for f in (call.op, call.op.definition)]
    for arrays in with_empty_axes(call.arrays):
        shapes = {k: a.shape for k, a in arrays.items()}
        actual, expected = (outcome(f, arrays) for f in pullbacks)
        refusals = [isinstance(one, Exception) for one in (actual, expected)]
        if any(refusals):
            assert all(refusals), f"{shapes}: the rule says {actual}, the definition {expected}"
            if not isinstance(actual, ShapeError) and call.op.reference is not None:
                y = outcome(call.by_reference, arrays)
                assert isinstance(y, Exception), f"{shapes}: {actual}"
        else:
            (types, compute), (expected_types, compute_expected) = actual, expected
            assert types == expected_types, shapes
            if any(s.size for s in leaves(types)):
                results = compute(arrays), compute_expected(arrays)
                jax.tree.map(np.testing.assert_array_equal, *results)


def with_empty_axes(arrays):
    axes = {(k, axis): n for k, a in arrays.items() for axis, n in enumerate(a.shape)}
    choices = {(axis,): None for axis in axes}
    for size in set(axes.values()):
        each = [[a for a in axes if a[0] == k and axes[a] == size] for k in arrays]
        choices |= dict.fromkeys(itertools.product(*filter(None, each)))
    for choice in choices:
        shapes = {
            k: tuple(0 if (k, axis) in choice else n for axis, n in enumerate(a.shape))
            for k, a in arrays.items()
        }
        new = {k: shape for k, shape in shapes.items() if shape != arrays[k].shape}
        yield arrays | {k: np.zeros(shape, arrays[k].dtype) for k, shape in new.items()}


def outcome(function, arrays):
    """Return the result of `traced`, or the error that refuses the call."""
    try:
        return traced(function, arrays)
    except (TypeError, ValueError) as error:
        return error


# Platforms


@pytest.mark.parametrize("name", NAMES)
def test_an_op_is_exported_for_every_platform(name):
    call = Call(name)
    floats = {k: a for k, a in call.arrays.items() if is_float(a)}
    gradient = jax.jit(lambda floats: call.with_pullback(call.op, call.arrays | floats))
    program = jax.export.export(gradient, platforms=["cpu", "cuda", "tpu"])(floats)
    assert program.platforms == ("cpu", "cuda", "tpu")
