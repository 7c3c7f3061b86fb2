"""Does the rule survive JAX's transforms? Each is compared with the rule without it."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import kinks
from .arguments import Arguments
from .judge import exact_tolerance, misfit, noise_of, size_of
from .passes import backward, both_ways, call, exchanged, typed
from .probes import PROBES, Probing
from .programs import cached, input_types, prepare
from .subject import first_line
from .trials import Answers, Mismatch, Probe, Trial
from .values import shaken


def check(
    probing: Probing, trial: Trial, eps: float, capabilities: dict[str, bool | None]
) -> Answers:
    """Compare the rule under remat, scan and vmap; enter in `capabilities` which of them work."""
    arguments, function = trial.case.arguments, probing.subject.function
    axes = tuple(_axes(arguments)) if probing.vary else ()
    values, dys = probing.draw(trial.case, PROBES[1], 1)
    second = _arrays(values), dys
    with jax.enable_x64(True):
        program, failures = _transformed(function, arguments.cast("float64"), axes)
        outcomes = jax.device_get(program.result()(_arrays(trial.values), trial.dys, *second))
    capabilities["vmap"] = not any(name.startswith("vmap") for name in failures)
    capabilities["remat"] = "remat" not in failures
    for name, error in failures.items():
        if not name.startswith("vmap") or name == f"vmap{axes[0]}":
            defect = name.partition("(")[0]
            yield defect, probing.finding(trial.case, defect, f"under {name}: {error}")
    for name, got in outcomes.items():
        if name.startswith("vmap"):
            yield from _against_loop(probing, trial, second, name, got, eps)
        else:
            yield from _same(trial, name, got, eps)


@cached
def _transformed(
    function: Any, arguments: Arguments, axes: tuple[tuple[bool, ...], ...]
) -> tuple[Any, dict[str, str]]:
    """Trace the backward pass under each transform; return it, and the errors of the others."""
    transforms = {"remat": _remat(function, arguments), "scan": _scan(function, arguments)}
    transforms |= {f"vmap{a}": _vmap(function, arguments, a) for a in axes}
    inputs = input_types(function, arguments, "float64") * 2
    works, failures = {}, {}
    for name, run in transforms.items():
        try:
            jax.eval_shape(run, *inputs)
            works[name] = run
        except Exception as error:
            failures[name] = first_line(error)
    return prepare(lambda *a: {name: run(*a) for name, run in works.items()}, *inputs), failures


def _arrays(values: Sequence[Any]) -> list[Any]:
    return [v if isinstance(v, jax.Array) else np.asarray(v) for v in values]


def _same(trial: Trial, name: str, got: Sequence[Any], eps: float) -> Answers:
    for mismatch in trial.compare("ct", got, trial.got["ct"], eps):
        yield name, mismatch


def uncompiled(probing: Probing, trial: Trial, eps: float) -> Answers:
    """Compare the rule without jit, where its code sees numbers instead of tracers."""
    try:
        got = probing.run(trial.case).uncompiled(trial.values, trial.dys)["ct"]
    except Exception as error:
        yield "jit", probing.finding(trial.case, "jit", f"without jit: {first_line(error)}")
        return
    yield from _same(trial, "jit", got, eps)


def _backward_of(run: Callable[..., Any], arguments: Arguments) -> Callable[..., Any]:
    def back(arrays: Any, dys: Any, *_: Any) -> Any:
        y, pull = backward(run, arrays, arguments.places)
        return list(pull(typed(dys, y)))

    return back


def _remat(function: Any, arguments: Arguments) -> Callable[..., Any]:
    return _backward_of(jax.checkpoint(functools.partial(call, function, arguments)), arguments)


def _scan(function: Any, arguments: Arguments) -> Callable[..., Any]:
    """Sum two calls with the same arguments inside a scan; return half of the cotangents."""

    def twice(arrays: Any) -> list[Any]:
        def body(total: Any, _: Any) -> Any:
            y = call(function, arguments, arrays)
            return [a + b for a, b in zip(total, y, strict=True)], None

        types = jax.eval_shape(lambda: call(function, arguments, arrays))
        return jax.lax.scan(body, [jnp.zeros_like(t) for t in types], None, length=2)[0]

    back = _backward_of(twice, arguments)
    return lambda *arrays: [ct / 2 for ct in back(*arrays)]


def _axes(arguments: Arguments) -> Iterator[tuple[bool, ...]]:
    """Yield which arguments are mapped: every combination of up to three, else all and each."""
    count = len(arguments.leaves)
    yield (True,) * count
    if count <= 3:
        combinations = itertools.product((True, False), repeat=count)
        yield from (c for c in combinations if any(c) and not all(c))
    else:
        for i in range(count):
            yield tuple(k == i for k in range(count))


def _vmap(function: Any, arguments: Arguments, over: tuple[bool, ...]) -> Callable[..., Any]:
    def run(arrays: Any, dys: Any, others: Any, other_dys: Any) -> Any:
        pairs = zip(arrays, others, over, strict=True)
        stacks = [jnp.stack([a, b]) if m else a for a, b, m in pairs]
        both = [jnp.stack(pair) for pair in zip(dys, other_dys, strict=True)]

        def one(arrays: Any, dys: Any) -> Any:
            return both_ways(function, arguments, arrays, dys)[1]

        return jax.vmap(one, in_axes=([0 if m else None for m in over], 0))(stacks, both)

    return run


def _against_loop(
    probing: Probing, trial: Trial, second: Any, name: str, got: Sequence[Any], eps: float
) -> Answers:
    """Compare each slice of a mapped call with its own call."""
    over = [word.strip() == "True" for word in name[5:-1].strip(",").split(",")]
    values = [b if m else a for a, b, m in zip(trial.values, second[0], over, strict=True)]
    run, rng = probing.run(trial.case), np.random.default_rng(5)
    alone = run.rule(values, second[1])
    near = run.rule([shaken(v, rng, eps) for v in values], second[1])
    probe = Probe(f"vmap with in_axes {[0 if m else None for m in over]}", "transform")
    other = Trial(trial.case, probe, values, second[1], alone, {"ct": [b[1] for b in got]})
    for i, (ct, want) in enumerate(zip(got, alone["ct"], strict=True)):
        noise = noise_of(want, [near["ct"][i]])
        tolerance = exact_tolerance(want, noise, size_of(want), eps)
        if wrong := trial.misfit(ct[0], trial.got["ct"][i], "ct", i, eps):
            yield "vmap", Mismatch(trial, "ct", i, wrong)
            return
        if wrong := misfit(ct[1], want, tolerance):
            yield "vmap", Mismatch(other, "ct", i, wrong)
            return


def second_order(
    probing: Probing, trials: Sequence[Trial], eps: float, capabilities: dict[str, bool | None]
) -> Answers:
    """Differentiate the backward pass, by the arguments and by the cotangents.

    At a special point an element must be finite. It is compared only if it changes little over a
    small step.
    """
    arguments, programs = trials[0].case.arguments.cast("float64"), []
    functions = probing.subject.function, probing.subject.definition
    for function, capability in zip(functions, (False, None), strict=True):
        try:
            with jax.enable_x64(True):
                programs.append(_second(function, arguments).result())
        except Exception:
            capabilities["hessian"] = capability
            return
    rule, oracle = programs
    capabilities["hessian"] = True
    rng = np.random.default_rng([probing.seed, 11])
    us = [_like(ct, rng) for ct in trials[0].want["ct"]]

    def run(program: Any, values: Sequence[Any], dys: Sequence[Any]) -> list[np.ndarray]:
        with jax.enable_x64(True):
            return jax.device_get(program(_arrays(values), dys, us))

    scale = 0.0  # as in the first order, ordinary numbers show how large the terms are
    count = len(arguments.places)
    for trial in trials:
        values, dys = trial.values, trial.dys
        got, want = run(rule, values, dys), run(oracle, values, dys)
        near = [shaken(v, rng, eps) for v in values], [shaken(v, rng, eps) for v in dys]
        rule_near, oracle_near = run(rule, *near), run(oracle, *near)
        scale = max(scale, *map(size_of, [*want, *trial.want["ct"]]))
        label = f"{trial.probe.label}, the backward pass differentiated"
        probe = Probe(label, "transform")
        second = Trial(trial.case, probe, values, dys, {"ct": want}, {"ct": got})
        change = [np.zeros(np.shape(a)) for a in want]
        if trial.probe.kind == "special":
            sides = [run(oracle, side, dys) for side in kinks.either_side(values, rng)]
            change = [_change(here, near) for here, *near in zip(want, *sides, strict=True)]
            want = want[:count]  # by a cotangent: the first order, which is already judged
        for i in range(len(want)):
            noise = np.maximum(
                noise_of(got[i], [rule_near[i]], size=scale),
                noise_of(want[i], [oracle_near[i]], size=scale),
            )
            # Two derivatives in a row: each rounding counts twice.
            tolerance = 16 * exact_tolerance(want[i], noise, scale, eps) + 2 * change[i]
            judged = (change[i] <= kinks.CLOSE * scale) | ~np.isfinite(got[i])
            if wrong := misfit(got[i], np.where(judged, want[i], np.nan), tolerance):
                what = ("ct", i) if i < count else ("dy", i - count)
                yield "second order", Mismatch(second, *what, wrong)
                return


def _change(here: np.ndarray, near: Sequence[np.ndarray]) -> np.ndarray:
    """Return the change over a small step, element by element."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.max([np.abs(a - here) for a in near], axis=0))


def _like(array: Any, rng: np.random.Generator) -> np.ndarray:
    u = rng.normal(size=np.shape(array))
    return u + 1j * rng.normal(size=np.shape(array)) if np.iscomplexobj(array) else np.asarray(u)


@cached
def _second(function: Any, arguments: Arguments) -> Any:
    """Return the program of the backward pass's own cotangents, for its cotangents u."""
    which = arguments.places

    def run(arrays: Any, dys: Any, us: Any) -> Any:
        def first(some: Any, dys: Any) -> Any:
            return both_ways(function, arguments, exchanged(arrays, which, some), dys)[1]

        outs, pull = jax.vjp(first, [arrays[i] for i in which], dys)
        by_arguments, by_cotangents = pull(typed(us, outs))
        return [*by_arguments, *by_cotangents]

    arrays, dys = input_types(function, arguments, "float64")
    return prepare(run, arrays, dys, [arrays[i] for i in which])


def forward_mode(probing: Probing, trial: Trial) -> bool:
    """Whether the function can be differentiated in forward mode; it need not."""
    arguments, function = trial.case.arguments, probing.subject.function
    which = arguments.places

    def forward(arrays: Any) -> Any:
        def of_some(*some: Any) -> Any:
            return call(function, arguments, exchanged(arrays, which, some))

        some = [arrays[i] for i in which]
        return jax.jvp(of_some, some, [jnp.ones_like(a) for a in some])[1]

    with jax.enable_x64(True):
        arrays = [jnp.asarray(v) for v in _arrays(trial.values)]
        try:
            jax.jit(forward).lower(arrays)  # a rule that cannot raises only here
        except Exception:
            return False
    return True
