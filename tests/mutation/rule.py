"""One correct hand-written rule, in pieces that a fault can change."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[..., Any]

X = "f32[4,3]"
"""The argument of most rules."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """A function with a rule of its own, in the pieces that `jax.custom_vjp` puts together.

    `args` are the arguments for `fnn.verify`, in float32. `definition` is None where the body
    itself serves. With `jvp`, the function is a `jax.custom_jvp`.
    """

    name: str
    primal: Function
    args: tuple[Any, ...]
    fwd: Function | None = None
    bwd: Function | None = None
    jvp: Function | None = None
    nondiff_argnums: tuple[int, ...] = ()
    symbolic_zeros: bool = False
    definition: Function | None = None

    def build(self) -> Function:
        """Put the pieces together."""
        wrapper = jax.custom_vjp if self.jvp is None else jax.custom_jvp
        function = wrapper(self.primal, nondiff_argnums=self.nondiff_argnums)
        if self.jvp is None:
            function.defvjp(self.fwd, self.bwd, symbolic_zeros=self.symbolic_zeros)
        else:
            function.defjvp(self.jvp)
        return function

    def cast(self, dtype: str) -> tuple[Any, ...]:
        """Return the arguments with every float32 array or spec in `dtype` ("bfloat16", …)."""
        short = {"float64": "f64", "float32": "f32", "bfloat16": "bf16", "float16": "f16"}[dtype]

        def leaf(a):
            if isinstance(a, str):
                return a.replace("f32[", short + "[")
            if isinstance(a, np.ndarray | jax.Array) and a.dtype == np.float32:
                return np.asarray(a, jnp.dtype(dtype))
            return a

        return jax.tree.map(leaf, self.args, is_leaf=lambda a: a is None)

    def replace(self, **changes: Any) -> "Rule":
        """Return the rule with other pieces."""
        return dataclasses.replace(self, **changes)


RULES: dict[str, Rule] = {}
"""The corpus of correct rules, by name."""


def vjp_rule(
    primal: Function,
    *args: Any,
    static: tuple[Any, ...] = (),
    saves: Function | None = None,
    fwd: Function | None = None,
    name: str = "",
    **options: Any,
) -> Callable[[Function], Function]:
    """Register a rule of `primal` whose backward pass is the decorated function.

    `static` are the last arguments, which are not differentiated. `saves(y, *args)` returns the
    residuals (default: all other arguments); `fwd` replaces the forward pass as a whole. The
    backward pass is called as `bwd(*static, *residuals, g)`, with 16-bit numbers in float32, and
    returns a cotangent or a tuple of them, which are cast to the narrowest dtype of its inputs.
    """

    def forward(*call):
        y = primal(*call)
        return y, _tuple(saves(y, *call) if saves else call[: len(args)])

    def register(bwd):
        def backward(*call):
            *fixed, residuals, g = call
            cotangents = _tuple(bwd(*fixed, *wide(residuals), wide(g)))
            dtype = _narrowest((residuals, g))
            return _cast_floats(cotangents, lambda _: dtype)

        pieces = {"fwd": fwd or forward, "bwd": backward, **options}
        _add(name or bwd.__name__, primal, args, static, **pieces)
        return bwd

    return register


def jvp_rule(
    primal: Function, *args: Any, static: tuple[Any, ...] = (), definition: Function | None = None
) -> Callable[[Function], Function]:
    """Register a rule of `primal` whose tangents the decorated function returns."""

    def register(jvp):
        _add(jvp.__name__, primal, args, static, jvp=jvp, definition=definition)
        return jvp

    return register


def output(y: Any, *args: Any) -> Any:
    """Save the output alone."""
    return y


def _add(name, primal, args, static, **pieces):
    name = name.removesuffix("_bwd")
    if name in RULES:
        raise ValueError(f"two rules of the corpus have the name {name}")
    numbers = tuple(range(len(args), len(args) + len(static)))
    RULES[name] = Rule(name, primal, (*args, *static), nondiff_argnums=numbers, **pieces)


def _tuple(a):
    return a if isinstance(a, tuple) else (a,)


def wide(tree: Any) -> Any:
    """Return a tree with its 16-bit numbers in float32, in which sums and products are computed."""
    return _cast_floats(tree, lambda dtype: jnp.float32 if dtype.itemsize < 4 else dtype)


def _narrowest(tree):
    dtypes = [a.dtype for a in jax.tree.leaves(tree) if hasattr(a, "dtype")]
    floats = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return min(floats, key=lambda dtype: dtype.itemsize, default=np.dtype(np.float32))


def _cast_floats(tree, to):
    def leaf(a):
        floating = isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jnp.floating)
        return a.astype(to(a.dtype)) if floating else a

    return jax.tree.map(leaf, tree)
