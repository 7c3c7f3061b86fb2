"""The interpreter of traced programs agrees with XLA to a few roundings."""

import functools
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from fnn.verifier.interpreter import PRIMITIVES, interpreter
from fnn.verifier.jaxprs import equations

from .interpreted import LEFT_TO_XLA, SECTIONS

pytestmark = pytest.mark.core

OPTIONS = {"xla_allow_excess_precision": False}


@functools.cache
def traced(name):
    """Return the programs of a section, each with its inputs."""
    with jax.enable_x64(True):
        return [(jax.make_jaxpr(f)(*x), jax.tree.leaves(x)) for f, *x in SECTIONS[name][0]()]


@pytest.mark.parametrize("name", SECTIONS)
def test_the_interpreter_computes_what_xla_does(name):
    """XLA compiles all programs of a section as one."""
    _, roundings, of_largest = SECTIONS[name]
    programs, inputs = zip(*traced(name))

    def run(inputs):
        return [core.jaxpr_as_fun(p)(*arrays) for p, arrays in zip(programs, inputs)]

    with jax.enable_x64(True):
        outputs = jax.jit(run).lower(inputs).compile(compiler_options=OPTIONS)(inputs)
        for program, arrays, expected in zip(programs, inputs, outputs):
            run_in_numpy = interpreter(program)
            assert run_in_numpy is not None, program
            for actual, y in zip(run_in_numpy(arrays), expected, strict=True):
                assert (actual.dtype, actual.shape) == (y.dtype, y.shape), program
                wrong = ~near(*map(as_numbers, (actual, y)), roundings, of_largest)
                assert not wrong.any(), f"{program} {actual[wrong]} is not {y[wrong]}"


def as_numbers(array):
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(array) if is_key else array)


def near(actual, expected, roundings, of_largest):
    """Return where two arrays differ by at most this many roundings."""
    same = (actual == expected) | ((actual != actual) & (expected != expected))
    if not roundings or not jnp.issubdtype(expected.dtype, jnp.inexact):
        return same
    limits = jnp.finfo(expected.dtype)
    if expected.dtype == jnp.bfloat16:
        actual, expected = np.float32(actual), np.float32(expected)
    size = np.where(np.isfinite(expected), np.abs(expected), 0)
    size = size.max(initial=0) if of_largest else size
    with np.errstate(invalid="ignore"):
        error = np.abs(actual - expected)
    return same | (error <= roundings * float(limits.eps) * size + float(limits.tiny))


@pytest.mark.parametrize("case", LEFT_TO_XLA)
def test_primitives_without_a_numpy_equivalent_are_left_to_xla(case):
    function, *arrays = LEFT_TO_XLA[case]
    assert interpreter(jax.make_jaxpr(function)(*arrays)) is None


def test_some_program_uses_every_primitive_of_the_table():
    names = {e.primitive.name for n in SECTIONS for p, _ in traced(n) for e in equations(p.jaxpr)}
    primitives = {p.name for p in gc.get_objects() if isinstance(p, core.Primitive)}
    assert sorted((set(PRIMITIVES) & primitives) - names) == []
