"""Primitives that compute each element by itself, and changes of dtype."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import special

from .primitives import Function, is_half, primitive, ranks


def _divide(x: Any, y: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return np.divide(x, y)
    quotient = x // y
    towards_0 = quotient + ((quotient < 0) & (quotient * y != x)).astype(x.dtype)
    return np.where(y == 0, ~np.zeros_like(y), towards_0)


def _remainder(x: Any, y: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return np.fmod(x, y)
    return np.where(y == 0, x, np.fmod(x, y))


def _shift_right(kind: str) -> Function:
    """Return a shift of signed ("i") or unsigned ("u") integers."""

    def shift(x: Any, by: Any) -> Any:
        dtype = np.dtype(f"{kind}{x.dtype.itemsize}")
        return (x.view(dtype) >> by.view(dtype)).view(x.dtype)

    return shift


def _away_from_zero(x: Any) -> Any:
    whole = np.trunc(x)
    one = np.copysign(np.ones_like(x), x)
    return np.where(2 * np.abs(x - whole) >= 1, whole + one, whole)


def _complex(x: Any, y: Any) -> Any:
    z = np.empty(np.shape(x), np.result_type(x, np.complex64))
    z.real, z.imag = x, y
    return z


def _in_total_order(compare: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: compare(ranks(x), ranks(y))


def _same(x: Any) -> Any:
    return x


SAME_NAME = (
    *("abs", "sign", "square", "sqrt", "cbrt", "exp", "exp2", "expm1", "log", "log1p", "tanh"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "asinh", "acosh"),
    *("atanh", "floor", "ceil", "nextafter", "real", "imag", "conj"),
)
ELEMENTWISE: dict[str, Function] = {
    **{name: getattr(np, name) for name in SAME_NAME},
    **dict.fromkeys(("add", "add_any"), np.add),
    **dict.fromkeys(("copy", "stop_gradient", "sharding_constraint"), _same),
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _divide,
    "rem": _remainder,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "is_finite": np.isfinite,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.bitwise_not,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt_to": _in_total_order(np.less),
    "le_to": _in_total_order(np.less_equal),
    "shift_left": np.left_shift,
    "shift_right_arithmetic": _shift_right("i"),
    "shift_right_logical": _shift_right("u"),
    "one_minus_square": lambda x: (1 + x) * (1 - x),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "complex": _complex,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
}
SPECIAL: dict[str, Function] = {
    "erf": special.erf,
    "erfc": special.erfc,
    "erf_inv": special.erfinv,
    "lgamma": lambda x: np.where(np.isinf(x), np.abs(x), special.gammaln(x)),
    "digamma": lambda x: np.where(x == 0, -np.inf, special.digamma(x)).astype(x.dtype),
    "bessel_i0e": special.i0e,
    "bessel_i1e": special.i1e,
}
"""Functions of scipy, which has no dtypes of 16 bits."""


@primitive(*ELEMENTWISE)
def _elementwise(equation: Any) -> Function:
    return ELEMENTWISE[equation.primitive.name]


@primitive(*SPECIAL)
def _special(equation: Any) -> Function:
    """Return a function of scipy, which computes numbers of 16 bits in float32."""
    function, dtype = SPECIAL[equation.primitive.name], equation.outvars[0].aval.dtype
    if not is_half(dtype):
        return function
    return lambda *arrays: function(*(np.float32(a) for a in arrays)).astype(dtype)


@primitive("optimization_barrier", "device_put")
def _all_the_same(equation: Any) -> Function:
    return lambda *arrays: arrays


@primitive("integer_pow")
def _integer_pow(equation: Any) -> Function:
    """Return a power by repeated squaring, as XLA does."""
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
    last = len(equation.invars) - 2
    if equation.invars[0].aval.dtype == np.bool_:
        return lambda which, no, yes: np.where(which, yes, no)

    def choose(which: Any, *cases: Any) -> Any:
        y = np.array(np.broadcast_to(cases[last], cases[0].shape))
        for i in range(last):
            y = np.where(np.clip(which, 0, last) == i, cases[i], y)
        return y

    return choose


@primitive("convert_element_type")
def _convert(equation: Any) -> Function:
    old, new = equation.invars[0].aval.dtype, equation.params["new_dtype"]
    if old == new:
        return _same
    if new == np.bool_:
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
def _reduce_precision(equation: Any) -> Function:
    """Round to fewer digits, to even; too large numbers become ∞, and subnormal ones 0."""
    dtype = equation.outvars[0].aval.dtype
    digits, bias = equation.params["mantissa_bits"], 2 ** (equation.params["exponent_bits"] - 1) - 1
    least, most = np.ldexp(1.0, 1 - bias), np.ldexp(2 - np.ldexp(1.0, -digits), bias)

    def run(x: Any) -> Any:
        fraction, exponent = np.frexp(x.astype(np.float64))
        y = np.ldexp(np.rint(np.ldexp(fraction, digits + 1)), exponent - digits - 1)
        y = np.where(np.abs(y) > most, np.copysign(np.inf, y), y)
        if least > float(jnp.finfo(dtype).tiny):
            y = np.where(np.abs(y) < least, np.copysign(0, y), y)
        return y.astype(dtype)

    return run
