"""The arguments of a call, flattened to leaves: arrays, and values that are passed on unchanged.

A leaf may be an array, a `jax.ShapeDtypeStruct`, or a string that describes an array:

    "f32[8,16]"  "i32[8] in 0..9"  "f32[8] in 0.1..0.9"  "f32[4,4] in spd"  "bool[8]"  "key[]"

The values of a described array are drawn. Everything else (integers, booleans, strings, None,
functions) is passed on unchanged and is part of the compiled program.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DTYPES = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "c64": "complex64",
    "c128": "complex128",
    "bool": "bool",
    "key": "key",
    **{f"{s}{n}": f"{w}int{n}" for s, w in (("i", ""), ("u", "u")) for n in (8, 16, 32, 64)},
}
SHORT = {long: short for short, long in DTYPES.items()}
DOMAINS = ("real", "positive", "simplex", "spd", "symmetric")
_SPEC = re.compile(r"\s*([a-z]+\d*)\s*\[([\d,\s]*)\]\s*(?:in\s+(\S+)\s*)?")

Domain = str | tuple[float, float]
"""Where an array's numbers may lie: one of DOMAINS, or the two ends of a range."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a call: its path, its type, the domain of its numbers, its value if any."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    domain: Domain | None = None
    value: Any = dataclasses.field(default=None, compare=False)

    @property
    def kind(self) -> str:
        """float, complex, int, bool or key."""
        if self.dtype == "key":
            return "key"
        dtype = jnp.dtype(self.dtype)
        for kind, parent in (("float", jnp.floating), ("complex", jnp.complexfloating)):
            if jnp.issubdtype(dtype, parent):
                return kind
        return "bool" if dtype.kind == "b" else "int"

    @property
    def differentiable(self) -> bool:
        """Whether it has a cotangent."""
        return self.kind in ("float", "complex")

    def cast(self, dtype: str) -> str:
        """Return the leaf's dtype where the floating-point numbers are `dtype`."""
        if self.kind == "float":
            return dtype
        if self.kind == "complex":
            return "complex128" if dtype == "float64" else "complex64"
        return self.dtype

    def struct(self, dtype: str | None = None) -> Any:
        """Return the leaf's type where floating-point numbers are `dtype` (its own)."""
        if self.kind == "key":
            dtype = jax.eval_shape(jax.random.key, 0).dtype
            return jax.ShapeDtypeStruct(self.shape, dtype)
        return jax.ShapeDtypeStruct(self.shape, self.cast(dtype) if dtype else self.dtype)

    def __str__(self) -> str:
        return f"{SHORT.get(self.dtype, self.dtype)}[{','.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A leaf that is no array: its value is passed on unchanged."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Arguments:
    """A call's arguments, split into arrays (`leaves`) and the rest (`fixed`)."""

    tree: Any
    fixed: tuple[Any, ...]
    """One entry per leaf of the tree: a `Fixed`, or None where an array belongs."""
    leaves: tuple[Leaf, ...]

    @functools.cached_property
    def places(self) -> list[int]:
        """Which of the leaves are differentiated."""
        return [i for i, leaf in enumerate(self.leaves) if leaf.differentiable]

    @property
    def paths(self) -> list[str]:
        """The paths of the leaves that are differentiated."""
        return [self.leaves[i].path for i in self.places]

    def structs(self, dtype: str | None = None) -> list[Any]:
        """Return the arrays' types where floating-point numbers are `dtype` (their own)."""
        return [leaf.struct(dtype) for leaf in self.leaves]

    def apply(self, function: Callable[..., Any], arrays: Sequence[Any]) -> Any:
        """Return the output of a function, with arrays in their places."""
        args, kwargs = self.build(arrays)
        return function(*args, **kwargs)

    def build(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments, with arrays in their places."""
        remaining = iter(arrays)
        leaves = [next(remaining) if f is None else f.value for f in self.fixed]
        return jax.tree.unflatten(self.tree, leaves)

    def replace(self, leaves: Sequence[Leaf]) -> "Arguments":
        """Return the same call with other arrays."""
        return dataclasses.replace(self, leaves=tuple(leaves))

    def cast(self, dtype: str) -> "Arguments":
        """Return the same call where floating-point numbers are `dtype`, without its values."""
        bare = functools.partial(dataclasses.replace, domain=None, value=None)
        return self.replace([bare(a, dtype=a.cast(dtype)) for a in self.leaves])

    def show(self, name: str, dtype: str | None = None) -> str:
        """Return the call as text: `name(f64[8,16], axis=-1)`."""
        args, kwargs = self.build(
            [dataclasses.replace(a, dtype=a.cast(dtype)) if dtype else a for a in self.leaves]
        )
        words = [_show(a) for a in args] + [f"{k}={_show(v)}" for k, v in kwargs.items()]
        return f"{name}({', '.join(words)})"


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {_show(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(_show, value)) + ")"
    return str(value) if isinstance(value, Leaf) else repr(value)


def parse(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    nondiff: Sequence[int] = (),
) -> Arguments:
    """Return the arguments of a call, flattened.

    A Python float becomes a scalar that is differentiated, except as a keyword argument and at the
    positions in `nondiff`.

    Raises ValueError for a description that cannot be read.
    """
    names = _names(function, len(args))
    positional = tuple(
        jax.tree.map(Fixed, a, is_leaf=_is_none) if i in nondiff and not _holds_spec(a) else a
        for i, a in enumerate(args)
    )
    tree = (positional, {k: Fixed(v) if isinstance(v, float) else v for k, v in kwargs.items()})
    flat, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_none)
    leaves, fixed = [], []
    for path, value in flat:
        leaf = value if isinstance(value, Fixed) else _leaf(_path(path, names), value)
        fixed.append(leaf if isinstance(leaf, Fixed) else None)
        if isinstance(leaf, Leaf):
            leaves.append(leaf)
    return Arguments(structure, tuple(fixed), tuple(leaves))


def _leaf(path: str, value: Any) -> Leaf | Fixed:
    if isinstance(value, str) and ("[" in value or value in DTYPES):
        return read(value, path)
    if isinstance(value, jax.ShapeDtypeStruct):
        return Leaf(path, value.shape, _dtype(value))
    if isinstance(value, float | complex):
        value = np.asarray(value, np.float32 if isinstance(value, float) else np.complex64)
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        if isinstance(value, np.generic | np.ndarray) and value.dtype == object:
            raise ValueError(f"{path}: an array of objects is not an array of numbers")
        dtype = _dtype(value)
        array = value if dtype == "key" else np.asarray(value)
        return Leaf(path, np.shape(value), dtype, _domain(array), array)
    return Fixed(value)


def _dtype(array: Any) -> str:
    return "key" if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else str(array.dtype)


def read(text: str, path: str = "argument") -> Leaf:
    """Return the array that a description such as "f32[8,16]" or "i32[8] in 0..9" stands for.

    Raises ValueError, which lists the dtypes and domains.
    """
    match = _SPEC.fullmatch(text)
    dtypes = ", ".join(DTYPES)
    if not match:
        raise ValueError(
            f'{path}: cannot read {text!r}; write a dtype and a shape, such as "f32[8,16]", '
            f'"f32[]" or "i32[8] in 0..9" (dtypes: {dtypes})'
        )
    dtype, dims, domain = match.groups()
    if dtype not in DTYPES:
        raise ValueError(f"{path}: {text!r} has no known dtype; one of {dtypes}")
    shape = tuple(int(n) for n in dims.replace(" ", "").split(",") if n)
    leaf = Leaf(path, shape, DTYPES[dtype], _read_domain(path, text, domain))
    if leaf.domain == "simplex" and not shape:
        raise ValueError(f"{path}: {text!r}: a simplex needs an axis to sum over")
    if leaf.domain in ("spd", "symmetric") and (len(shape) < 2 or shape[-1] != shape[-2]):
        raise ValueError(f"{path}: {text!r}: a {leaf.domain} matrix needs two equal last axes")
    return leaf


def _read_domain(path: str, text: str, domain: str | None) -> Domain | None:
    if domain is None or domain in DOMAINS:
        return domain
    low, dots, high = domain.partition("..")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = (1.0, 0.0)
    if not dots or ends[0] > ends[1]:
        raise ValueError(
            f"{path}: cannot read the domain of {text!r}; write a range such as 0..9, or one of "
            + ", ".join(DOMAINS)
        )
    return ends


def _domain(value: Any) -> Domain | None:
    """Guess an array's domain from its numbers, so that others like them can be drawn."""
    if not isinstance(value, np.ndarray) or value.size == 0:
        return None
    if np.issubdtype(value.dtype, np.integer):
        return float(value.min()), float(value.max())
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return None
    wide = value.astype(np.float64)
    if not np.isfinite(wide).all():
        return "real"
    square = wide.ndim >= 2 and wide.shape[-1] == wide.shape[-2] > 1
    if square and np.array_equal(wide, np.swapaxes(wide, -1, -2)):
        return "spd" if np.linalg.eigvalsh(wide).min() > 0 else "symmetric"
    if wide.min() >= 0 and wide.ndim and wide.shape[-1] > 1:
        rounding = 8 * wide.shape[-1] * float(jnp.finfo(value.dtype).eps)
        if np.all(np.abs(wide.sum(-1) - 1) < rounding):
            return "simplex"
    if wide.min() >= 0 and wide.max() <= 1 and wide.min() < wide.max():
        return 0.0, 1.0
    return "positive" if wide.min() > 0 else "real"


def _names(function: Callable[..., Any], count: int) -> list[str]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return names + [f"args[{i}]" for i in range(len(names), count)]


def _path(path: Any, names: Sequence[str]) -> str:
    place, *rest = path[1:]
    name = names[place.idx] if isinstance(place, jax.tree_util.SequenceKey) else place.key
    return name + jax.tree_util.keystr(rest)


def _is_none(value: Any) -> bool:
    return value is None


def _holds_spec(value: Any) -> bool:
    """Whether a value holds arrays or descriptions of arrays; Python numbers are none."""
    leaves = [v for v in jax.tree.leaves(value) if not isinstance(v, bool | int | float | complex)]
    return any(isinstance(_leaf("", v), Leaf) for v in leaves)
