"""The programs: the function by its rule, and the definition by automatic differentiation.

One program serves every probe of a call's shapes and dtype; only its numbers change. It runs in
NumPy where it can (`interpreter`), since compiling takes far longer than all the runs, and is
compiled where it cannot. Programs of a definition are kept, so that many rules can be held against
one.
"""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .arguments import Arguments, struct
from .interpreter import interpreter
from .jaxprs import equations
from .values import to_dtype

Outcome = dict[str, list[Any]]
"""`y`: the output's leaves; `plain`: the same, not differentiated; `ct`: a cotangent for each
argument that has one."""
FLOAT0 = jax.dtypes.float0


def call(function: Callable[..., Any], arguments: Arguments, arrays: Sequence[Any]) -> list[Any]:
    """Call a function with arrays in their places; return the leaves of its output."""
    args, kwargs = arguments.build(arrays)
    return jax.tree.leaves(function(*args, **kwargs))


def places(arguments: Arguments) -> list[int]:
    """Return which of the arrays are differentiated."""
    return [i for i, leaf in enumerate(arguments.leaves) if leaf.differentiable]


def pullback(
    function: Callable[..., Any],
    arguments: Arguments,
    arrays: Sequence[Any],
    which: Sequence[int] | None = None,
) -> tuple[list[Any], Any]:
    """Return the output's leaves, and the backward pass to the arrays in `which` (all of them)."""
    which = places(arguments) if which is None else which
    return backward(functools.partial(call, function, arguments), arrays, which)


def backward(
    run: Callable[[Sequence[Any]], list[Any]], arrays: Sequence[Any], which: Sequence[int]
) -> tuple[list[Any], Any]:
    """Return what `run(arrays)` gives, and its backward pass to the arrays in `which`."""

    def of_chosen(*chosen: Any) -> list[Any]:
        return run(exchanged(arrays, which, chosen))

    return jax.vjp(of_chosen, *(arrays[i] for i in which))


def both_ways(
    function: Callable[..., Any], arguments: Arguments, arrays: Sequence[Any], dys: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Return the output's leaves, and the cotangents that come back for `dys`."""
    y, pull = pullback(function, arguments, arrays)
    return y, list(pull(typed(dys, y)))


def exchanged(arrays: Sequence[Any], which: Sequence[int], by: Sequence[Any]) -> list[Any]:
    """Return the arrays with those in `which` exchanged."""
    full = list(arrays)
    for i, a in zip(which, by, strict=True):
        full[i] = a
    return full


def by_rule(function: Callable[..., Any], arguments: Arguments) -> Callable[..., Outcome]:
    """The function, not differentiated, and its rule."""
    rule = by_rule_alone(function, arguments)

    def run(arrays: Sequence[Any], dys: Sequence[Any], jitter: Any, salt: Any) -> Outcome:
        plain = call(function, arguments, arrays)
        return {"plain": plain, **rule(arrays, dys, jitter, salt)}

    return run


def by_rule_alone(function: Callable[..., Any], arguments: Arguments) -> Callable[..., Outcome]:
    """The function's rule; `jitter` shakes the residuals, to learn what their rounding does.

    With a jitter of 0 the residuals are what the forward rule saved, bit for bit.
    """

    def run(arrays: Sequence[Any], dys: Sequence[Any], jitter: Any, salt: Any) -> Outcome:
        y, pull = pullback(function, arguments, arrays)
        leaves, tree = jax.tree.flatten(pull)
        shaken = [_shake(leaf, jitter, salt + i) for i, leaf in enumerate(leaves)]
        cotangents = jax.tree.unflatten(tree, shaken)(typed(dys, y))
        return {"y": y, "ct": list(cotangents)}

    return run


def by_autodiff(definition: Callable[..., Any], arguments: Arguments) -> Callable[..., Outcome]:
    """The definition, differentiated by JAX."""

    def run(arrays: Sequence[Any], dys: Sequence[Any]) -> Outcome:
        y, cotangents = both_ways(definition, arguments, arrays, dys)
        return {"y": y, "ct": cotangents}

    return run


def _shake(leaf: Any, jitter: Any, salt: Any) -> Any:
    """Multiply each number by 1 + jitter or 1 - jitter."""
    if not isinstance(leaf, jax.Array) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf
    return _shaken(leaf, jitter, salt)


@jax.jit  # traced once for all residuals of a shape
def _shaken(leaf: jax.Array, jitter: jax.Array, salt: jax.Array) -> jax.Array:
    count = jnp.arange(leaf.size, dtype=jnp.uint32).reshape(leaf.shape)
    mixed = (count + salt.astype(jnp.uint32)) * np.uint32(2654435761)
    up = (mixed ^ (mixed >> np.uint32(15))) & np.uint32(64) == 0
    jitter = jitter.astype(jnp.finfo(leaf.dtype).dtype)
    change = jnp.where(up, jitter, -jitter)
    return leaf * (1 + change).astype(leaf.dtype)


def typed(dys: Sequence[Any], y: Sequence[Any]) -> list[Any]:
    """Return cotangents in the dtypes of their outputs; of integers, there are none."""
    return [
        jnp.asarray(dy).astype(out.dtype)
        if jnp.issubdtype(out.dtype, jnp.inexact)
        else np.zeros(out.shape, FLOAT0)
        for dy, out in zip(dys, y, strict=True)
    ]


def ones_like(y: Sequence[Any]) -> list[Any]:
    """Return cotangents of 1 for outputs."""
    return typed([np.ones(out.shape) for out in y], y)


Make = Callable[[Callable[..., Any], Arguments], Callable[..., Outcome]]


def kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what `make(function, ...)` returns, until the function is given other rules."""

    @functools.lru_cache(maxsize=512)
    def cached(function: Any, rules: Any, *more: Any) -> Any:
        return make(function, *more)

    @functools.wraps(make)
    def get(function: Any, *more: Any) -> Any:
        names = ("fwd", "bwd", "jvp", "fwd_rule", "bwd_rule")
        rules = tuple(getattr(function, name, None) for name in names)
        try:
            hash((function, rules, more))
        except TypeError:  # a static value that cannot be part of a key
            return make(function, *more)
        return cached(function, rules, *more)

    return get


@kept
def program(
    function: Callable[..., Any],
    arguments: Arguments,
    outputs: tuple[Any, ...],  # their types, in any dtype
    make: Make,
    dtype: str,
    compiled: bool,
) -> "Program":
    """Make `make(function, arguments)` a program where floating-point numbers are `dtype`, once.

    It runs in NumPy if it can, unless it is to be `compiled`.
    """
    extra = () if make is by_autodiff else (np.float32(0), np.int32(0))
    inputs = *_inputs(arguments, outputs, dtype), *extra
    run = make(function, arguments)
    return start(run, *inputs, as_written=True) if compiled else prepare(run, *inputs)


def types(function: Any, arguments: Arguments, dtype: str) -> tuple[list[Any], list[Any]]:
    """Return the types of a call's arrays and of its outputs' cotangents."""
    return _inputs(arguments, output_types(function, arguments, dtype), dtype)


def _inputs(
    arguments: Arguments, outputs: Sequence[Any], dtype: str
) -> tuple[list[Any], list[Any]]:
    dys = [jax.ShapeDtypeStruct(t.shape, output_dtype(t, dtype)) for t in outputs]
    return [struct(leaf, dtype) for leaf in arguments.leaves], dys


@dataclass(frozen=True)
class Program:
    """A traced program: interpreted, or compiled on another thread while the next one is traced."""

    jaxpr: Any
    types: Any  # of what it returns
    running: Future[Callable[..., Any]]
    interpreted: bool = False

    def result(self) -> Any:
        """Return the function that runs it; wait for it if it is being compiled."""
        return self.running.result()


def prepare(function: Callable[..., Any], *types: Any) -> Program:
    """Trace a function here and now, to be run in NumPy; compile it as written where it cannot."""
    traced = jax.jit(function).trace(*types)
    interpreted = interpreter(traced.jaxpr)
    if interpreted is None:
        return _compiling(traced, as_written=True)
    tree, wide = jax.tree.structure(traced.out_info), jax.config.jax_enable_x64

    @functools.cache
    def compiled() -> Any:
        return _compiling(traced, as_written=True).result()

    def run(*arguments: Any) -> Any:
        try:
            return jax.tree.unflatten(tree, interpreted(jax.tree.leaves(arguments)))
        except Exception:  # a case of a primitive that NumPy does not know after all
            with jax.enable_x64(wide):
                return jax.device_get(compiled()(*arguments))

    running: Future[Callable[..., Any]] = Future()
    running.set_result(run)
    return Program(traced.jaxpr, traced.out_info, running, interpreted=True)


def start(function: Callable[..., Any], *types: Any, as_written: bool = False) -> Program:
    """Trace a function here and now, and compile it on another thread.

    With `as_written`, without XLA's algebra, which hides a NaN (of x·0 it makes 0) and leaves out a
    rounding to fewer digits and back.
    """
    return _compiling(jax.jit(function).trace(*types), as_written)


def _compiling(traced: Any, as_written: bool) -> Program:
    options = QUICK
    if as_written:
        options = QUICK | ROUNDED | ({} if _needs_algebra(traced.jaxpr.jaxpr) else LITERAL)
    running = _COMPILERS.submit(_compile, traced.lower(), options)
    return Program(traced.jaxpr, traced.out_info, running)


def _needs_algebra(jaxpr: Any) -> bool:
    """Whether XLA cannot compile a program without its algebra.

    It cuts arrays by negative padding, or multiplies matrices in bfloat16: a sum of nine such
    products overflows the compiler's stack, and takes the process with it.
    """
    for equation in equations(jaxpr):
        name, params = equation.primitive.name, equation.params
        if name == "pad" and any(min(ends[:2]) < 0 for ends in params["padding_config"]):
            return True
        if name == "dot_general" and equation.outvars[0].aval.dtype == jnp.bfloat16:
            return True
    return False


def _compile(lowered: Any, options: dict[str, Any]) -> Any:
    """Compile with these options, or with none: rarely, a later pass relies on the algebra."""
    try:
        return lowered.compile(_known(options))
    except jax.errors.JaxRuntimeError:
        return lowered.compile()


QUICK: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""Options that make XLA compile four times as fast for the CPU; what is compiled runs but once or
a few times."""
ROUNDED = {"xla_allow_excess_precision": False}
LITERAL = {"xla_disable_hlo_passes": "algsimp"}


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that this XLA has; none where it does not compile for the CPU."""
    if jax.default_backend() != "cpu":
        return {}
    return {name: value for name, value in options.items() if _accepted(name, value)}


@functools.cache
def _accepted(name: str, value: Any) -> bool:
    try:
        jax.jit(lambda: 0).lower().compile({name: value})
    except Exception:
        return False
    return True


_COMPILERS = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fnn.verify")


class Run:
    """One call of a subject, in one dtype: give it numbers, and it returns outcomes.

    The oracle may run in a wider dtype, on the same numbers. `compiled`: by XLA, even if NumPy can.
    `alone`: the rule without the plain call. `outputs`: the types of the definition's, if known.
    """

    def __init__(
        self,
        function: Any,
        definition: Any,
        arguments: Arguments,
        dtype: str,
        oracle: str = "",
        compiled: bool = False,
        alone: bool = False,
        outputs: Sequence[Any] = (),
    ):
        self.arguments, self.dtype, self.compiled = arguments, dtype, compiled
        self.outputs = tuple(outputs or output_types(definition, arguments, oracle or dtype))
        self._parts: dict[Make, tuple[Any, str, Make]] = {
            by_rule: (function, dtype, by_rule_alone if alone else by_rule),
            by_autodiff: (definition, oracle or dtype, by_autodiff),
        }
        self._programs: dict[Make, Program] = {}

    def program(self, make: Make) -> Program:
        """Return the program of the rule (`by_rule`) or of the oracle (`by_autodiff`)."""
        if make not in self._programs:
            function, dtype, variant = self._parts[make]
            arguments = self.arguments.cast(dtype)
            with jax.enable_x64(dtype == "float64"):
                self._programs[make] = program(
                    function, arguments, self.outputs, variant, dtype, self.compiled
                )
        return self._programs[make]

    def start(self) -> None:
        """Trace both programs, and begin to compile what is to be compiled."""
        self.program(by_rule)
        self.program(by_autodiff)

    def rule(
        self, values: Sequence[Any], dys: Sequence[Any], jitter: float = 0.0, salt: int = 0
    ) -> Outcome:
        """Run the function by its rule, on these numbers rounded to the dtype."""
        return self._outcome(by_rule, values, dys, np.float32(jitter), np.int32(7919 * salt))

    def oracle(self, values: Sequence[Any], dys: Sequence[Any]) -> Outcome:
        """Run the definition by automatic differentiation, on these numbers in the dtype."""
        return self._outcome(by_autodiff, values, dys)

    def uncompiled(self, values: Sequence[Any], dys: Sequence[Any]) -> Outcome:
        """Run the function by its rule one operation after another, where XLA fuses none."""
        function, dtype, _ = self._parts[by_rule]
        leaves = zip(values, self.arguments.leaves, strict=True)
        with jax.enable_x64(dtype == "float64"):
            arrays = [jnp.asarray(to_dtype(v, leaf.cast(dtype))) for v, leaf in leaves]
            y, cotangents = both_ways(function, self.arguments, arrays, dys)
            return jax.device_get({"y": y, "ct": cotangents})

    def _outcome(self, make: Make, values: Sequence[Any], dys: Sequence[Any], *extra: Any) -> Any:
        prepared, dtype = self.program(make), self._parts[make][1]
        for width in dict.fromkeys((self.dtype, dtype)):
            leaves = zip(values, self.arguments.leaves, strict=True)
            values = [to_dtype(v, leaf.cast(width)) for v, leaf in leaves]
            dys = [to_dtype(dy, output_dtype(dy, width)) for dy in dys]
        if prepared.interpreted:
            return prepared.result()(values, dys, *extra)
        with jax.enable_x64(dtype == "float64"):
            return jax.device_get(prepared.result()(values, dys, *extra))


def output_dtype(like: Any, dtype: str) -> str:
    """Return the dtype of a cotangent where floating-point numbers are `dtype`."""
    if jnp.issubdtype(like.dtype, jnp.complexfloating):
        return "complex128" if dtype == "float64" else "complex64"
    return dtype


def output_types(function: Any, arguments: Arguments, dtype: str) -> list[Any]:
    """Return the types of the output's leaves where floating-point numbers are `dtype`."""
    return _output_types(function, arguments.cast(dtype), dtype)


@kept
def _output_types(function: Any, arguments: Arguments, dtype: str) -> list[Any]:
    with jax.enable_x64(dtype == "float64"):
        arrays = [struct(leaf, dtype) for leaf in arguments.leaves]
        return jax.eval_shape(lambda *a: call(function, arguments, a), *arrays)
