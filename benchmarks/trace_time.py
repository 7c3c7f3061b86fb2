"""What it costs to call a rule through `fnn.op` rather than through jax.custom_vjp itself.

    python benchmarks/trace_time.py [--json]

At trace time: the microseconds a call site takes longer when a gradient is traced. Both forms are
traced in turn, with cold caches; a time is the median over rounds of tracing many call sites.
At run time: nothing, for the two compile to the same program, which is compared line by line.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.ops import dense, relu
from fnn.runs.folder import environment

SITES, ROUNDS = 100, 25
BAR_US = 1000.0
X, W, B = jnp.ones((4, 8)), jnp.ones((8, 8)), jnp.ones(8)


@jax.custom_vjp
def bare_dense(x, w, b):
    """`dense` without fnn: the same rules, each line as the op has it."""
    return bare_dense_fwd(x, w, b)[0]


def bare_dense_fwd(x, w, b):
    """y = x W + b."""
    return jnp.tensordot(x, w, 1) + jnp.expand_dims(b, 0), (x, w)


def bare_dense_bwd(residuals, dy):
    """x̄ = ȳ Wᵀ, W̄ = xᵀ ȳ, b̄ = Σ ȳ."""
    x, w = residuals
    return jnp.tensordot(dy, w, ((1,), (1,))), jnp.tensordot(x, dy, ((0,), (0,))), dy.sum(0)


@jax.custom_vjp
def bare_relu(x):
    """`relu` without fnn."""
    return jnp.maximum(x, 0)


bare_dense.defvjp(bare_dense_fwd, bare_dense_bwd)
bare_relu.defvjp(
    lambda x: (jnp.maximum(x, 0),) * 2,
    lambda y, dy: (jnp.where(y > 0, dy, 0),),
)

PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[jax.Array, ...]]] = {
    "dense": (dense, bare_dense, (X, W, B)),
    "relu": (relu, bare_relu, (X,)),
}


def chain(function: Callable[..., Any], sites: int) -> Callable[..., Any]:
    """Return the gradient of `sites` calls in a row."""

    def through(x, *parameters):
        for _ in range(sites):
            x = function(x, *parameters)
        return jnp.sum(x**2)

    return jax.grad(through)


def trace_us(function: Callable[..., Any], arrays: tuple[jax.Array, ...]) -> float:
    """Trace a chain's gradient from nothing; return microseconds a call site."""
    jax.clear_caches()
    start = time.perf_counter()
    jax.make_jaxpr(chain(function, SITES))(*arrays)
    return 1e6 * (time.perf_counter() - start) / SITES


def program(function: Callable[..., Any], arrays: tuple[jax.Array, ...]) -> list[str]:
    """Compile a short chain's gradient; return its instructions, without their origins."""
    text = jax.jit(chain(function, 3)).lower(*arrays).compile().as_text()
    return [re.sub(r", metadata=\{[^}]*\}", "", ln) for ln in text.splitlines() if " = " in ln]


def measure(name: str) -> dict[str, Any]:
    """Compare one op with its bare form."""
    through_op, bare, arrays = PAIRS[name]
    times: dict[Any, list[float]] = {through_op: [], bare: []}
    for i in range(ROUNDS):
        for function in (through_op, bare) if i % 2 else (bare, through_op):
            times[function].append(trace_us(function, arrays))
    extra = [a - b for a, b in zip(times[through_op], times[bare], strict=True)]
    low, middle, high = statistics.quantiles(extra, n=4)
    return {
        "op": name,
        "bare_us": statistics.median(times[bare]),
        "through_op_us": statistics.median(times[through_op]),
        "extra_us": middle,
        "extra_us_quartiles": [low, high],
        "met": middle < BAR_US,
        "same_program": program(through_op, arrays) == program(bare, arrays),
    }


def main() -> None:
    """Measure every pair, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    as_json = parser.parse_args().json
    results = {
        "environment": {key: environment(0)[key] for key in ("device", "python", "jax", "jaxlib")},
        "ops": [measure(name) for name in PAIRS],
    }
    if as_json:
        print(json.dumps(results, indent=1))
        return
    print(", ".join(f"{k} {v}" for k, v in results["environment"].items()), "\n")
    for row in results["ops"]:
        low, high = row["extra_us_quartiles"]
        print(
            f"  {row['op']:6} bare {row['bare_us']:.0f} µs, through op {row['through_op_us']:.0f} "
            f"µs a call site: {row['extra_us']:.0f} µs more [{low:.0f}, {high:.0f}] "
            f"(bar {BAR_US:.0f}: {'met' if row['met'] else 'NOT MET'}); "
            f"{'the same' if row['same_program'] else 'ANOTHER'} compiled program"
        )


if __name__ == "__main__":
    main()
