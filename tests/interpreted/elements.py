"""Programs that compute element by element."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .table import FLOATS, INTEGERS, each, extremes, normal, pairs, section, special, whole

UNARY = (
    *(lax.exp, lax.exp2, lax.expm1, lax.log, lax.log1p, lax.logistic, lax.tanh, lax.sqrt),
    *(lax.rsqrt, lax.cbrt, lax.square, lax.sin, lax.cos, lax.tan, lax.asin, lax.acos, lax.atan),
    *(lax.sinh, lax.cosh, lax.asinh, lax.acosh, lax.erf, lax.erfc, lax.erf_inv),
    *(lax.bessel_i0e, lax.bessel_i1e),
)


@section(roundings=16)
def functions_of_one_number():
    for dtype in FLOATS:
        x = np.concatenate([special(dtype), normal(20, dtype=dtype)])
        x = x[np.abs(x) != 129]  # its exponential depends on the last digit of the argument
        yield from each(UNARY[:: 2 if dtype == jnp.bfloat16 else 1], x)
        for exponent in (-3, -1, 0, 1, 2, 5):
            yield functools.partial(lax.integer_pow, y=exponent), x
        yield jax.vmap(jax.grad(jnp.tanh)), np.linspace(-0.5, 0.5, 9).astype(dtype)
    yield lax.sign, np.array([1 + 1j, 0, -2], np.complex64)
    yield lax.abs, np.array([3 + 4j, 0, -2], np.complex64)
    for exponent in (0, 1, 3):
        yield functools.partial(lax.integer_pow, y=exponent), extremes(np.int32)


@section(roundings=64, of_largest=True)
def functions_that_cross_0():
    for dtype in FLOATS:
        x = np.linspace(0.1, 9, 9).astype(dtype)
        yield lax.atanh, np.linspace(-1, 1, 9).astype(dtype)
        yield lax.lgamma, np.concatenate([special(dtype), x])
        yield lax.digamma, np.concatenate([special(dtype)[special(dtype) != 0], x])


@section(roundings=4)
def functions_of_two_numbers():
    for dtype in FLOATS:
        x, y = pairs(special(dtype))
        yield from each((lax.atan2, lax.pow), x, y)
        yield lax.pow, normal(9, dtype=dtype), whole(9)
        yield lax.pow, special(dtype), whole(len(special(dtype)))


@section()
def exact_functions():
    for dtype in FLOATS:
        x = np.concatenate([special(dtype), normal(20, dtype=dtype)])
        yield from each((lax.neg, lax.abs, lax.sign, lax.floor, lax.ceil, lax.is_finite), x)
        for method in (lax.RoundingMethod.AWAY_FROM_ZERO, lax.RoundingMethod.TO_NEAREST_EVEN):
            yield functools.partial(lax.round, rounding_method=method), x
        x, y = pairs(special(dtype))
        yield from each(ARITHMETIC, x, y)
        yield from each((*ORDER, lax.nextafter, lax.lt_to_p.bind, lax.le_to_p.bind), x, y)
        yield lax.clamp, np.asarray(-1, dtype), x, np.asarray(2, dtype)
        yield lax.clamp, x[::-1].copy(), normal(len(x), dtype=dtype), y
    for dtype in INTEGERS:
        x, y = pairs(extremes(dtype))
        yield from each(ARITHMETIC, x, y)
        yield from each((*ORDER, *BITWISE), x, y)
        yield from each((lax.shift_left, lax.shift_right_logical, lax.shift_right_arithmetic), x, y)
        yield from each((lax.neg, lax.sign, jnp.abs, lax.bitwise_not, lax.square), x)
        yield lax.clamp, np.asarray(1, dtype), x, np.asarray(5, dtype)
    x, y = pairs(np.array([False, True]))
    yield from each((*BITWISE, lax.max, lax.min, lax.eq), x, y)
    yield lax.bitwise_not, x
    z = np.array([1 + 2j, np.inf - 1j, np.nan], np.complex64)
    yield lambda z: (lax.real(z), lax.imag(z), lax.conj(z)), z
    yield lax.complex, *pairs(special(np.float32))
    yield jax.grad(lambda x: (x * x) * x), np.float32(3)  # adds two cotangents
    yield lambda x: (lax.optimization_barrier(x), lax.stop_gradient(x)), normal(3)
    yield lambda x: (jnp.array(x, copy=True), jax.device_put(x)), normal(3)
    alone = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    yield lambda x: lax.with_sharding_constraint(x, alone), normal(3)


ORDER = (lax.eq, lax.ne, lax.lt, lax.le, lax.gt, lax.ge)
ARITHMETIC = (lax.add, lax.sub, lax.mul, lax.div, lax.rem, lax.max, lax.min)
BITWISE = (lax.bitwise_and, lax.bitwise_or, lax.bitwise_xor)


@section()
def choices():
    for dtype in (*FLOATS, np.int32, np.bool_):
        x, y, z = ((normal(6, 1 + i) * 2).astype(dtype)[:, 0] for i in range(3))
        yield lax.select_n, np.array([True, False] * 3), x, y
        yield lax.select_n, np.array([0, 1, 2, 7, -1, 1], np.int32), x, y, z
        yield lax.select_n, np.array([0, 1, 2, -7, 1, 0], np.int32), x, y
        yield lax.select_n, np.bool_(True), x, y
        yield lax.select_n, np.int32(1), x, y, z


@section()
def changes_of_dtype():
    ends = [2.0**31, -(2.0**31), 2.0**31 - 1, 2.0**63, -(2.0**63), 1e30, -1e30, 255.0, 256.0, -7.9]
    for old in FLOATS:
        x = np.concatenate([special(old), np.array(ends, old), normal(9, dtype=old)])
        small = np.array([1e-5, 1e-7, 3e-3, 240, 239], old)
        many = np.concatenate([x * np.asarray(1.1, old), small])
        for new in (*INTEGERS, np.uint32, np.bool_, *FLOATS, np.float16, np.complex64):
            yield functools.partial(lax.convert_element_type, new_dtype=new), x
        for bits in ((5, 10), (8, 7), (4, 3), (5, 2), (8, 23), (11, 52)):
            yield functools.partial(rounded, bits), many
    for old in (*INTEGERS, np.bool_):
        x = np.array([0, 1, 1, 0], bool) if old is np.bool_ else extremes(old)
        for new in (*INTEGERS, np.uint32, np.bool_, *FLOATS):
            yield functools.partial(lax.convert_element_type, new_dtype=new), x
    with_words = ((np.float32, np.int32), (np.int32, np.float32), (jnp.bfloat16, np.uint16))
    for old, new in (*with_words, (np.float64, np.int64), (np.int8, np.uint8)):
        for x in (normal(2, 3, dtype=old), normal(2, 3, dtype=old)[0, 0]):
            yield functools.partial(lax.bitcast_convert_type, new_dtype=new), x
    to_real = functools.partial(lax.convert_element_type_p.bind, weak_type=False, sharding=None)
    yield functools.partial(to_real, new_dtype=np.dtype(np.float32)), np.complex64([1 + 2j])


def rounded(bits, x):
    return lax.reduce_precision(x, exponent_bits=bits[0], mantissa_bits=bits[1])
