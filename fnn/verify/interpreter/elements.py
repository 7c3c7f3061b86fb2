"""Primitives that compute each element by itself, and changes of dtype."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import special

from .primitives import Function, is_half, primitive


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _rsqrt(x: Any) -> Any:
    return 1 / np.sqrt(x)


def _divide(x: Any, y: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return np.divide(x, y)
    return (np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y))).astype(x.dtype)  # towards 0


def _shift_right_logical(x: Any, by: Any) -> Any:
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    return (x.view(unsigned) >> by.view(unsigned)).view(x.dtype)


def _away_from_zero(x: Any) -> Any:
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


def _not_a_number_last(compare: Callable[..., Any]) -> Callable[..., Any]:
    def total(x: Any, y: Any) -> Any:
        return np.where(np.isnan(y), compare(0, 1) & ~np.isnan(x), compare(x, y))

    return total


def _same(x: Any) -> Any:
    return x


ELEMENTWISE: dict[str, Function] = {
    **dict.fromkeys(("add", "add_any"), np.add),
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _divide,
    "rem": np.fmod,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "max": np.maximum,
    "min": np.minimum,
    "square": np.square,
    "one_minus_square": lambda x: (1 + x) * (1 - x),
    "sqrt": np.sqrt,
    "rsqrt": _rsqrt,
    "cbrt": np.cbrt,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": _logistic,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "floor": np.floor,
    "ceil": np.ceil,
    "is_finite": np.isfinite,
    "nextafter": np.nextafter,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.bitwise_not,
    "shift_left": np.left_shift,
    "shift_right_arithmetic": np.right_shift,
    "shift_right_logical": _shift_right_logical,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt_to": _not_a_number_last(np.less),
    "le_to": _not_a_number_last(np.less_equal),
    "real": np.real,
    "imag": np.imag,
    "conj": np.conj,
    "complex": lambda x, y: x + (1j * y).astype(np.result_type(x, np.complex64)),
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    **dict.fromkeys(("copy", "copy_p", "stop_gradient", "sharding_constraint"), _same),
}
SPECIAL: dict[str, Function] = {
    "erf": special.erf,
    "erfc": special.erfc,
    "erf_inv": special.erfinv,
    "lgamma": special.gammaln,
    "digamma": special.digamma,
    "bessel_i0e": special.i0e,
    "bessel_i1e": special.i1e,
}
"""What scipy computes, which knows no dtypes of 16 bits."""


def _elementwise(function: Function) -> Callable[[Any], Function]:
    return lambda equation: function


for _name, _function in ELEMENTWISE.items():
    primitive(_name)(_elementwise(_function))


def _scipy(function: Function) -> Callable[[Any], Function]:
    def prepare(equation: Any) -> Function:
        dtype = equation.outvars[0].aval.dtype
        if not is_half(dtype):
            return function
        return lambda *arrays: function(*(np.float32(a) for a in arrays)).astype(dtype)

    return prepare


for _name, _function in SPECIAL.items():
    primitive(_name)(_scipy(_function))


@primitive("optimization_barrier", "device_put")
def _all_the_same(equation: Any) -> Function:
    return lambda *arrays: arrays


@primitive("integer_pow")
def _integer_pow(equation: Any) -> Function:
    """Multiply by squaring, as XLA does."""
    exponent = equation.params["y"]

    def power(x: Any) -> Any:
        result, square, n = None, x, abs(exponent)
        while n:
            if n & 1:
                result = square if result is None else result * square
            n >>= 1
            square = square * square if n else square
        result = np.ones_like(x) if result is None else result
        return 1 / result if exponent < 0 else result

    return power


@primitive("pow")
def _pow(equation: Any) -> Function:
    dtype = equation.outvars[0].aval.dtype
    return lambda x, y: np.power(x, y.astype(dtype))


@primitive("round")
def _round(equation: Any) -> Function:
    return np.rint if equation.params["rounding_method"] == 1 else _away_from_zero


@primitive("select_n")
def _select(equation: Any) -> Function:
    if len(equation.invars) == 3:
        return lambda which, no, yes: np.where(which, yes, no)

    def choose(which: Any, *cases: Any) -> Any:
        which = np.broadcast_to(which, cases[0].shape)
        return np.select([which == i for i in range(len(cases))], cases, cases[-1])

    return choose


@primitive("convert_element_type")
def _convert(equation: Any) -> Function:
    old, new = equation.invars[0].aval.dtype, equation.params["new_dtype"]
    if old == new:
        return _same
    if new == bool:
        return lambda x: x != 0
    if jnp.issubdtype(old, jnp.complexfloating) and not jnp.issubdtype(new, jnp.complexfloating):
        return lambda x: np.real(x).astype(new)
    if jnp.issubdtype(old, jnp.floating) and jnp.issubdtype(new, jnp.integer):
        limits = jnp.iinfo(new)
        ends = np.float64(limits.min), np.nextafter(np.float64(limits.max), 0)

        def saturate(x: Any) -> Any:
            x = np.nan_to_num(np.asarray(x, np.float64), nan=0.0)
            inside = np.clip(x, *ends).astype(new)
            return np.where(x >= limits.max, np.array(limits.max, new), inside)

        return saturate
    return lambda x: x.astype(new)


@primitive("bitcast_convert_type")
def _bitcast(equation: Any) -> Function | None:
    old, new = equation.invars[0].aval.dtype, np.dtype(equation.params["new_dtype"])
    if old.itemsize != new.itemsize:
        return None
    return lambda x: np.ascontiguousarray(x).view(new).reshape(x.shape)


@primitive("reduce_precision")
def _reduce_precision(equation: Any) -> Function | None:
    dtype = equation.outvars[0].aval.dtype
    bits = equation.params["exponent_bits"], equation.params["mantissa_bits"]
    kinds = {(8, 7): jnp.bfloat16, (5, 10): np.float16, (8, 23): np.float32, (11, 52): np.float64}
    if bits not in kinds:
        return None
    return lambda x: x.astype(kinds[bits]).astype(dtype)
