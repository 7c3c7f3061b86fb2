"""Count the faults that the tests find, planted at random in the rules of ops.

    python -m tests.power                       # 300 faults
    python -m tests.power --faults 20 --seed 1

A fault changes one operation of a backward rule, wherever an example's rule has it: a term is lost,
a factor or a sign is wrong, numbers are moved by one place, digits are cut off, a row stands for
all, a comparison takes or loses its equality. `make test` comes first, on its sample of the op's
examples; where it finds nothing, `make prove` follows, on every example. A fault that neither finds
is equivalent if no example's cotangents change beyond rounding, and a survivor otherwise.
"""

import argparse
import functools
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.custom_op import OPS, Op
from fnn.verifier.core import run

from .faults import NAMES, traced
from .mutation.surgery import bind, equations, interpret, trace
from .test_ops import check

STRICT = {"ge": "gt", "gt": "ge", "le": "lt", "lt": "le"}
COMPARE = {"ge": jnp.greater_equal, "gt": jnp.greater, "le": jnp.less_equal, "lt": jnp.less}
KINDS = ("term", "factor", "sign", "index", "dtype", "broadcast", "kink")
FACTORS = (2.0, 0.5, 1.001, 1 + 1e-6)


@dataclass(frozen=True)
class Fault:
    """A change of the operation at `place` (0 to 1) among those to which its kind applies."""

    op: str
    kind: str
    place: float
    choice: int

    def applies(self, equation: Any) -> bool:
        """Return whether an equation can have this fault."""
        name, out = equation.primitive.name, equation.outvars[0].aval
        if self.kind == "kink":
            return name in STRICT
        if not jnp.issubdtype(getattr(out, "dtype", bool), jnp.inexact):
            return False
        if self.kind == "term":
            shapes = [v.aval.shape for v in equation.invars]
            return name in ("add", "sub", "add_any") and shapes[0] == out.shape
        return self.kind not in ("index", "broadcast") or max(out.shape, default=0) > 1

    def changed(self, equation: Any, inputs: list[Any], outs: list[Any]) -> list[Any]:
        """Return the results of an equation with the fault."""
        name, y = equation.primitive.name, outs[0]
        axes = [i for i, n in enumerate(y.shape) if n > 1]
        match self.kind:
            case "kink":
                y = COMPARE[STRICT[name]](*inputs)
            case "term":
                y = jnp.asarray(inputs[0])
            case "factor":
                y = y * jnp.asarray(FACTORS[self.choice % len(FACTORS)], y.dtype)
            case "sign":
                y = -y
            case "dtype":
                y = y.astype(jnp.bfloat16).astype(y.dtype)
            case "index":
                y = jnp.roll(y, 1, axes[self.choice % len(axes)])
            case "broadcast":
                axis = axes[self.choice % len(axes)]
                y = jnp.broadcast_to(jax.lax.slice_in_dim(y, 0, 1, axis=axis), y.shape)
        return [y, *outs[1:]]


def plant(op: Op, fault: Fault) -> Op:
    """Return the op with a fault in its backward rule."""

    def bwd(residuals, dy, **statics):
        rule = functools.partial(op.bwd_rule, **statics)
        closed, inputs, restore = trace(rule, (residuals, dy))
        sites = [e for e, _ in equations(closed) if fault.applies(e)]
        target = sites[int(fault.place * len(sites))] if sites else None

        def step(equation, inputs, smooth):
            outs = bind(equation, inputs)
            return fault.changed(equation, inputs, outs) if equation is target else outs

        return restore(interpret(closed, inputs, step))

    mutant = Op(op.definition, reference=op.reference, examples=op.examples, source=op.source)
    mutant.def_fwd(op.fwd_rule)
    mutant.def_bwd(bwd)
    return mutant


def draw_faults(count: int, seed: int) -> Iterator[Fault]:
    """Yield faults at random: an op, a kind that its rule can have, a place."""
    rng = np.random.default_rng(seed)
    while count:
        name, kind = str(rng.choice(NAMES)), str(rng.choice(KINDS))
        fault = Fault(name, kind, float(rng.random()), int(rng.integers(12)))
        if _can_have(OPS[name], kind):
            count -= 1
            yield fault


@functools.cache
def _can_have(op: Op, kind: str) -> bool:
    """Return whether the rule of an op's first example can have a fault of a kind."""
    arrays, statics = op.bind(**op.examples[0].draw(0, np.float32))
    y, forward = jax.eval_shape(lambda *a: op.fwd(*a, **statics), *arrays)
    rule = functools.partial(op.bwd_rule, **op.statics | statics)
    closed, *_ = trace(rule, (forward.residuals, y))
    return any(Fault(op.name, kind, 0.0, 0).applies(e) for e, _ in equations(closed))


def judge(fault: Fault) -> tuple[Fault, str, float]:
    """Return a fault, the command that finds it (or survives, or equivalent), and the seconds."""
    start, op = time.perf_counter(), OPS[fault.op]
    mutant = plant(op, fault)
    verdict = "survives"
    ordinary = [i for i, example in enumerate(op.examples) if "bench" not in example.tags]
    if _raises(check, mutant):
        verdict = "test"
    elif any(_raises(_verify, mutant, i) for i in ordinary):
        verdict = "prove"
    elif not _changes(op, mutant):
        verdict = "equivalent"
    jax.clear_caches()
    return fault, verdict, time.perf_counter() - start


def _raises(check: Callable[..., None], *arguments: Any) -> bool:
    try:
        check(*arguments)
    except Exception:
        return True
    return False


def _verify(mutant: Op, example: int) -> None:
    """Verify on one example, with all questions that can find such faults."""
    run(mutant, chosen=[example], skip=("xla", "jit", "cost", "devices")).raise_if_failed()


def _changes(op: Op, mutant: Op) -> bool:
    """Return whether the cotangents of some example differ by more than rounding."""
    return any(
        np.max(np.abs(a - b), initial=0) > 1e-13 * np.max(np.abs(a), initial=0)
        for right, wrong in zip(traced(op), traced(mutant), strict=True)
        for a, b in zip(right.cotangents(), wrong.cotangents(), strict=True)
    )


def main() -> int:
    """Plant faults, print the verdicts, and return the exit status."""
    parser = argparse.ArgumentParser("python -m tests.power", description=__doc__.split("\n")[0])
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    faults = list(draw_faults(arguments.faults, arguments.seed))
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    start = time.perf_counter()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(os.cpu_count(), maxtasksperchild=25) as pool:  # programs pile up in a process
        for fault, verdict, seconds in pool.imap(judge, faults):
            counts[fault.kind][verdict] += 1
            if verdict != "test":
                print(f"{verdict:10} {fault} ({seconds:.0f} s)", flush=True)
    total = sum(counts.values(), Counter())
    print(f"\n{'':12}{'faults':>8}{'test':>8}{'prove':>8}{'equivalent':>12}{'survive':>9}")
    for kind, row in [*counts.items(), ("all", total)]:
        print(f"{kind:12}{sum(row.values()):8}{row['test']:8}{row['prove']:8}", end="")
        print(f"{row['equivalent']:12}{row['survives']:9}")
    real = sum(total.values()) - total["equivalent"]
    share = total["test"] / real if real else 1.0
    print(f"make test finds {share:.2%} of {real} faults, in {time.perf_counter() - start:.0f} s")
    return 0 if share >= 0.99 and not total["survives"] else 1


if __name__ == "__main__":
    sys.exit(main())
