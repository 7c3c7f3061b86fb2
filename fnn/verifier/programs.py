"""Programs: traced functions, run in NumPy or compiled by XLA.

One program serves every probe of a call's shapes and dtype; only its numbers change. It runs in
NumPy if it can (`interpreter`), because compiling takes far longer than all the runs. Otherwise XLA
compiles it. The programs of a definition are cached, so that many rules can be compared with one.
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

from .arguments import Arguments
from .interpreter import interpreter
from .jaxprs import equations
from .passes import Make, Outcome, both_ways, by_autodiff, by_rule, by_rule_alone, call
from .values import rounded, shaken, to_dtype


def cached(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return `make(function, ...)` with its results cached until the function gets other rules."""

    @functools.lru_cache(maxsize=512)
    def by_rules(function: Any, rules: Any, *more: Any) -> Any:
        return make(function, *more)

    @functools.wraps(make)
    def get(function: Any, *more: Any) -> Any:
        names = ("fwd", "bwd", "jvp", "fwd_rule", "bwd_rule")
        rules = tuple(getattr(function, name, None) for name in names)
        try:
            hash((function, rules, more))
        except TypeError:  # a static value that cannot be part of a key
            return make(function, *more)
        return by_rules(function, rules, *more)

    return get


def dtype_of_cotangent(output: Any, dtype: str) -> str:
    """Return the dtype of an output's cotangent where floating-point numbers are `dtype`."""
    if jnp.issubdtype(output.dtype, jnp.complexfloating):
        return "complex128" if dtype == "float64" else "complex64"
    return dtype


def output_types(function: Any, arguments: Arguments, dtype: str) -> list[Any]:
    """Return the types of the output's leaves where floating-point numbers are `dtype`."""
    return _output_types(function, arguments.cast(dtype), dtype)


@cached
def _output_types(function: Any, arguments: Arguments, dtype: str) -> list[Any]:
    with jax.enable_x64(dtype == "float64"):
        return jax.eval_shape(lambda *a: call(function, arguments, a), *arguments.structs(dtype))


def input_types(function: Any, arguments: Arguments, dtype: str) -> tuple[list[Any], list[Any]]:
    """Return the types of a call's arrays and of its outputs' cotangents."""
    return _input_types(arguments, output_types(function, arguments, dtype), dtype)


def _input_types(
    arguments: Arguments, outputs: Sequence[Any], dtype: str
) -> tuple[list[Any], list[Any]]:
    dys = [jax.ShapeDtypeStruct(t.shape, dtype_of_cotangent(t, dtype)) for t in outputs]
    return arguments.structs(dtype), dys


@dataclass(frozen=True)
class Program:
    """A traced program: interpreted, or compiled on another thread while the next one is traced."""

    jaxpr: Any
    types: Any
    """The types of the results."""
    running: Future[Callable[..., Any]]
    interpreted: bool = False

    def result(self) -> Any:
        """Return the function that runs it; wait for it if it is being compiled."""
        return self.running.result()


def prepare(function: Callable[..., Any], *types: Any) -> Program:
    """Trace a function now, to be run in NumPy; if NumPy cannot run it, compile it as written."""
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
    """Trace a function now, and compile it on another thread.

    With `as_written`, compile it without XLA's algebraic simplifier. That one hides a NaN (it turns
    x·0 into 0) and removes a rounding to fewer digits and back.
    """
    return _compiling(jax.jit(function).trace(*types), as_written)


def _compiling(traced: Any, as_written: bool) -> Program:
    options = QUICK
    if as_written:
        options = QUICK | ROUNDED | ({} if _needs_algebra(traced.jaxpr.jaxpr) else LITERAL)
    running = _COMPILERS.submit(_compile, traced.lower(), options)
    return Program(traced.jaxpr, traced.out_info, running)


def _needs_algebra(jaxpr: Any) -> bool:
    """Whether XLA cannot compile a program without its algebraic simplifier.

    It needs it for negative padding, and for matrix products in bfloat16: a sum of nine of these
    overflows the compiler's stack and ends the process.
    """
    for equation in equations(jaxpr):
        name, params = equation.primitive.name, equation.params
        if name == "pad" and any(min(ends[:2]) < 0 for ends in params["padding_config"]):
            return True
        if name == "dot_general" and equation.outvars[0].aval.dtype == jnp.bfloat16:
            return True
    return False


def _compile(lowered: Any, options: dict[str, Any]) -> Any:
    """Compile with these options, or with none: in rare cases a later pass needs the simplifier."""
    on_cpu = jax.default_backend() == "cpu"
    options = {k: v for k, v in options.items() if on_cpu and _is_option(k, v)}
    try:
        return lowered.compile(options)
    except jax.errors.JaxRuntimeError:
        return lowered.compile()


QUICK: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""Options with which XLA compiles four times as fast for the CPU; each program runs a few times."""
ROUNDED = {"xla_allow_excess_precision": False}
LITERAL = {"xla_disable_hlo_passes": "algsimp"}


@functools.cache
def _is_option(name: str, value: Any) -> bool:
    """Whether this XLA has an option."""
    try:
        jax.jit(lambda: 0).lower().compile({name: value})
    except Exception:
        return False
    return True


_COMPILERS = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fnn.verify")


@cached
def _program(
    function: Any,
    arguments: Arguments,
    outputs: tuple[Any, ...],  # their types, in any dtype
    make: Make,
    dtype: str,
    compiled: bool,
) -> Program:
    """Return the program of `make(function, arguments)` where floating-point numbers are `dtype`.

    It runs in NumPy if it can, unless `compiled`.
    """
    extra = () if make is by_autodiff else (np.float32(0), np.int32(0))
    inputs = *_input_types(arguments, outputs, dtype), *extra
    run = make(function, arguments)
    return start(run, *inputs, as_written=True) if compiled else prepare(run, *inputs)


class Programs:
    """The two programs of one call of a subject, in one dtype: numbers go in, outcomes come out.

    They are the function by its rule, and the oracle: the definition by automatic differentiation.

    Args:
        oracle: the oracle's dtype, which may be wider; its numbers are the same.
        compiled: whether XLA runs everything, even what NumPy can run.
        alone: whether the rule runs without the plain call.
        outputs: the types of the definition's outputs, if known.
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
                self._programs[make] = _program(
                    function, arguments, self.outputs, variant, dtype, self.compiled
                )
        return self._programs[make]

    def both(self) -> tuple[Program, Program]:
        """Return the programs of the oracle and of the rule; XLA begins to compile its own."""
        rule = self.program(by_rule)
        return self.program(by_autodiff), rule

    def rule(
        self, values: Sequence[Any], dys: Sequence[Any], jitter: float = 0.0, salt: int = 0
    ) -> Outcome:
        """Run the function by its rule, on these numbers rounded to the dtype."""
        return self._run(by_rule, values, dys, np.float32(jitter), np.int32(7919 * salt))

    def oracle(self, values: Sequence[Any], dys: Sequence[Any]) -> Outcome:
        """Run the definition by automatic differentiation, on the same numbers."""
        return self._run(by_autodiff, values, dys)

    def neighbours(
        self, values: Sequence[Any], dys: Sequence[Any], rng: np.random.Generator, eps: float
    ) -> tuple[list[Outcome], list[Outcome]]:
        """Run the oracle and the rule twice each, with every number one rounding of `eps` away.

        The oracle's inputs change, and the rule's residuals.
        """
        oracle = []
        for _ in range(2):
            near = [shaken(v, rng, eps) for v in values]
            oracle.append(self.oracle(near, [shaken(dy, rng, eps) for dy in dys]))
        return oracle, [self.rule(values, dys, jitter=eps, salt=s) for s in (1, 2)]

    def uncompiled(self, values: Sequence[Any], dys: Sequence[Any]) -> Outcome:
        """Run the function by its rule one operation after another, where XLA fuses none."""
        function, dtype, _ = self._parts[by_rule]
        with jax.enable_x64(dtype == "float64"):
            arrays = [jnp.asarray(v) for v in rounded(self.arguments, values, dtype)]
            y, cotangents = both_ways(function, self.arguments, arrays, dys)
            return jax.device_get({"y": y, "ct": cotangents})

    def _run(self, make: Make, values: Sequence[Any], dys: Sequence[Any], *extra: Any) -> Any:
        program, dtype = self.program(make), self._parts[make][1]
        for width in dict.fromkeys((self.dtype, dtype)):
            values = rounded(self.arguments, values, width)
            dys = [to_dtype(dy, dtype_of_cotangent(dy, width)) for dy in dys]
        if program.interpreted:
            return program.result()(values, dys, *extra)
        with jax.enable_x64(dtype == "float64"):
            return jax.device_get(program.result()(values, dys, *extra))
