"""The defects that a backward rule can have, by name, each with its meaning and advice.

Every finding names one of them. The group is a question: is the *value* of the cotangent right, is
the rule a linear function of its *cotangent*, are *types* and structure as JAX and the caller
expect them, how does it round (*numerics*), does it survive JAX's *transforms*, and how much memory
does it *cost*?
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

Group = Literal["value", "cotangent", "types", "numerics", "transforms", "cost"]


@dataclass(frozen=True)
class Defect:
    """One kind of defect: its group, what it means, and one line of advice."""

    group: Group
    meaning: str
    advice: str


_value, _cotangent, _types = (partial(Defect, group) for group in ("value", "cotangent", "types"))
_numerics, _transforms, _cost = (
    partial(Defect, group) for group in ("numerics", "transforms", "cost")
)
DEFECTS: dict[str, Defect] = {
    "sign": _value(
        "the cotangent is the right one, negated",
        "look for a difference taken the wrong way round, or a minus sign lost or doubled",
    ),
    "factor": _value(
        "the cotangent is the right one, times a constant",
        "look for a mean that should be a sum (or the reverse), or a constant that was left out",
    ),
    "term": _value(
        "the cotangent is wrong",
        "derive the transposed Jacobian again, term by term; jax.vjp of the definition has it",
    ),
    "element": _value(
        "a few elements of the cotangent are wrong, and all others right",
        "look at indices, masks and the ends of slices",
    ),
    "order": _value(
        "the right numbers in the wrong place: swapped, rolled, reversed or transposed",
        "check the order of the cotangents, and the axes of every transpose, roll and product",
    ),
    "broadcast": _value(
        "an argument that was broadcast gets a cotangent that is not the sum over its copies",
        "sum the cotangent over the axes along which the argument was stretched",
    ),
    "tail": _value(
        "right for ordinary numbers, wrong for large or small ones",
        "look for a clip, a threshold, or an approximation used outside its range",
    ),
    "kink": _value(
        "at a tie or a kink the value is no subgradient, or not the one that the definition states",
        "choose one of the one-sided derivatives, as the definition does; split or pick at ties",
    ),
    "special value": _value(
        "the function's value is right at a special point, and the derivative is not",
        "look at 0, ±1, whole numbers, -inf and repeated numbers: a guard may lose the derivative",
    ),
    "geometry": _value(
        "right for the shapes given, wrong for others",
        "look for a hard-coded size, and for remainders, padding and strides that do not divide",
    ),
    "size": _value(
        "wrong, or failing, for sizes 0 and 1 or for rows that are masked entirely",
        "treat empty axes, axes of length 1 and empty rows; guard divisions by a count",
    ),
    "not linear": _cotangent(
        "the backward rule is not a linear function of the cotangent",
        "a vector-Jacobian product is linear: no clip, max, abs or nan_to_num of the cotangent",
    ),
    "affine": _cotangent(
        "the backward rule gives something for a cotangent of zero",
        "every term must be multiplied by the cotangent",
    ),
    "scale-dependent": _cotangent(
        "the backward rule treats large or small cotangents differently",
        "remove thresholds and fixed scales from the backward pass: mixed precision scales losses",
    ),
    "ignored output": _cotangent(
        "the cotangent of one of several outputs is ignored",
        "add the contribution of every output",
    ),
    "unperturbed": _cotangent(
        "the cotangent depends on which arguments are differentiated or which outputs are used",
        "read symbolic_zeros' SymbolicZero and .perturbed with care, or leave them off",
    ),
    "dtype": _types(
        "a cotangent has another dtype than its argument",
        "end the rule with .astype(x.dtype); JAX may accept the wrong dtype without a word",
    ),
    "complex": _types(
        "a real argument gets a complex cotangent, or a complex one the conjugate",
        "take the real part; JAX's cotangents are not conjugated",
    ),
    "weak type": _types(
        "a value or cotangent is weakly typed where the definition's is not",
        "make the constant an array: jnp.asarray(0.0, x.dtype)",
    ),
    "integer slot": _types(
        "an integer, boolean or key argument gets a cotangent",
        "return None in its place",
    ),
    "structure": _types(
        "the cotangents are not a pytree like the arguments, or have other shapes",
        "return one cotangent per argument, in the argument's own structure and shape",
    ),
    "forward value": _types(
        "differentiated, the function has another value than when it is called or defined",
        "the forward rule must return what the function returns",
    ),
    "forward type": _types(
        "differentiated, the function's output has another dtype, shape or structure",
        "the forward rule must return what the function returns",
    ),
    "tracer": _types(
        "an array is in nondiff_argnums or closed over, and would be a tracer inside a transform",
        "make it an ordinary argument, save it as a residual and return its cotangent",
    ),
    "rounding": _numerics(
        "more rounding error than automatic differentiation has in the same dtype",
        "look for a sum or product in a narrower dtype, and for residuals that were rounded",
    ),
    "overflow": _numerics(
        "infinite, or zero by underflow, where automatic differentiation is finite",
        "scale before squaring, subtract the maximum before exp, divide before multiplying",
    ),
    "cancellation": _numerics(
        "digits cancel: nearly equal numbers are subtracted",
        "use expm1, log1p, or centre the numbers before they are squared",
    ),
    "nan": _numerics(
        "not a number where the oracle is finite",
        "guard the argument inside the where as well: where(ok, f(where(ok, x, 1)), 0)",
    ),
    "leakage": _numerics(
        "a NaN in one row reaches the cotangents of others",
        "select with where and never multiply by a mask; reduce within rows only",
    ),
    "nondeterminism": _numerics(
        "two runs, or two traces, of the same call differ",
        "draw random numbers from a key that is an argument; keep no state",
    ),
    "jit": _transforms(
        "compiled and run step by step, the rule differs",
        "do not branch on whether a value is a tracer, and change no Python state",
    ),
    "vmap": _transforms(
        "mapped with vmap, the rule differs from a loop",
        "count axes from the end and reduce over the rule's own axes; write no batch size down",
    ),
    "second order": _transforms(
        "the derivative of the backward rule is wrong",
        "a stop_gradient, or a residual cut loose from the input, hides part of the derivative",
    ),
    "remat": _transforms(
        "under jax.checkpoint the rule differs",
        "the forward rule must give the same residuals each time it runs",
    ),
    "scan": _transforms(
        "inside jax.lax.scan the rule differs",
        "keep the types of carried values; change no Python state",
    ),
    "x64": _transforms(
        "with 64-bit types enabled the rule's types differ",
        "numpy scalars and dtype-less constants become float64: give dtypes, or use Python floats",
    ),
    "devices": _transforms(
        "split over several devices, the rule differs from one device",
        "write sums and products as jnp operations; let cotangents lie as their arguments do",
    ),
    "residuals": _cost(
        "far more is kept for the backward pass than automatic differentiation keeps",
        "keep inputs or outputs, and recompute what is cheap",
    ),
    "memory": _cost(
        "far more temporary memory than automatic differentiation takes",
        "form no Jacobian and no one-hot array",
    ),
    "fails": _transforms(
        "the rule raises where the definition works",
        "read the error; the call that shows it stands beside",
    ),
}
