"""One correct hand-written rule, taken apart so that a fault can be put in."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Rule:
    """A function with a rule of its own, in the pieces that `jax.custom_vjp` puts together.

    `args` are what `fnn.verify` takes after the function, in float32: specs such as "f32[4,3]"
    or "i32[4] in 0..2", arrays, pytrees of them, and Python values for the `nondiff_argnums`.
    `definition` stays None where the body itself serves. With `jvp`, it is a `jax.custom_jvp`.
    """

    name: str
    primal: Callable[..., Any]
    args: tuple[Any, ...]
    fwd: Callable[..., Any] | None = None
    bwd: Callable[..., Any] | None = None
    jvp: Callable[..., Any] | None = None
    nondiff_argnums: tuple[int, ...] = ()
    symbolic_zeros: bool = False
    definition: Callable[..., Any] | None = None

    def build(self) -> Callable[..., Any]:
        """Put the pieces together."""
        if self.jvp is not None:
            function = jax.custom_jvp(self.primal, nondiff_argnums=self.nondiff_argnums)
            function.defjvp(self.jvp)
            return function
        function = jax.custom_vjp(self.primal, nondiff_argnums=self.nondiff_argnums)
        function.defvjp(self.fwd, self.bwd, symbolic_zeros=self.symbolic_zeros)
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
        """Return the rule with some pieces exchanged."""
        return dataclasses.replace(self, **changes)
