"""Does the rule survive JAX's transforms? Each against what the rule gives without it."""

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
from .mathematics import Mismatch
from .probes import PROBES, Probe, Probing, Trial, shaken
from .programs import backward, both_ways, call, exchanged, kept, places, prepare, typed, types
from .report import Finding
from .subject import first_line

Found = Iterator[tuple[str, Mismatch | Finding]]


def check(
    probing: Probing, trial: Trial, eps: float, capabilities: dict[str, bool | None]
) -> Found:
    """Yield what a transform breaks; enter in `capabilities` what works."""
    arguments, function = trial.case.arguments, probing.subject.function
    axes = tuple(_axes(arguments)) if probing.vary else ()
    numbers = [_number(v) for v in trial.values], trial.dys
    second = _draw(probing, trial, 1)
    with jax.enable_x64(True):
        program, failures = _transformed(function, arguments.cast("float64"), axes)
        outcomes = jax.device_get(program.result()(*numbers, *second))
    capabilities["vmap"] = not any(name.startswith("vmap") for name in failures)
    capabilities["remat"] = "remat" not in failures
    for name, error in failures.items():
        if not name.startswith("vmap") or name == f"vmap{axes[0]}":
            defect, show = name.partition("(")[0], arguments.show(probing.subject.name, "float64")
            yield defect, Finding(defect, why=f"under {name}: {error}", call=show, dtype="float64")
    for name, got in outcomes.items():
        if name.startswith("vmap"):
            yield from _against_loop(probing, trial, second, name, got, eps)
        else:
            factor = 2 if name == "scan" else 1
            yield from _same(trial, name, got, trial.got["ct"], eps, factor)


@kept
def _transformed(
    function: Any, arguments: Arguments, axes: tuple[tuple[bool, ...], ...]
) -> tuple[Any, dict[str, str]]:
    """Trace the backward pass under each transform; say which cannot be traced, and why."""
    wanted = {"remat": _remat(function, arguments), "scan": _scan(function, arguments)}
    wanted |= {f"vmap{a}": _vmap(function, arguments, a) for a in axes}
    inputs = types(function, arguments, "float64") * 2
    works, failures = {}, {}
    for name, run in wanted.items():
        try:
            jax.eval_shape(run, *inputs)
            works[name] = run
        except Exception as error:
            failures[name] = first_line(error)
    return prepare(lambda *a: {name: run(*a) for name, run in works.items()}, *inputs), failures


def _number(value: Any) -> Any:
    return value if isinstance(value, jax.Array) else np.asarray(value)


def _draw(probing: Probing, trial: Trial, seed: int) -> tuple[list[Any], list[Any]]:
    values, dys = probing.draw(trial.case, PROBES[1], seed)
    return [_number(v) for v in values], dys


def _same(
    trial: Trial, name: str, got: Sequence[Any], base: Sequence[Any], eps: float, factor: int = 1
) -> Found:
    for i, (came, want) in enumerate(zip(got, base, strict=True)):
        if wrong := misfit(came, factor * want, factor * trial.tolerance("ct", i, eps)):
            yield name, Mismatch(trial, "ct", i, wrong)


def uncompiled(probing: Probing, trial: Trial, eps: float) -> Found:
    """Yield what is different without jit, where a function meets numbers and not tracers."""
    numbers = [_number(v) for v in trial.values], trial.dys
    try:
        function, arguments = probing.subject.function, trial.case.arguments
        with jax.enable_x64(True):
            arrays, dys = jax.tree.map(jnp.asarray, numbers)
            came = jax.device_get(both_ways(function, arguments, arrays, dys)[1])
    except Exception as error:
        show = trial.case.arguments.show(probing.subject.name, "float64")
        yield "jit", Finding("jit", why=f"without jit: {first_line(error)}", call=show)
        return
    yield from _same(trial, "jit", came, trial.got["ct"], eps)


def _remat(function: Any, arguments: Arguments) -> Callable[..., Any]:
    def run(arrays: Any, dys: Any, *_: Any) -> Any:
        again = jax.checkpoint(functools.partial(call, function, arguments))
        y, pull = backward(again, arrays, places(arguments))
        return list(pull(typed(dys, y)))

    return run


def _scan(function: Any, arguments: Arguments) -> Callable[..., Any]:
    """Apply the function twice inside a scan, to the same arguments: the cotangents double."""

    def twice(arrays: Any) -> list[Any]:
        def body(total: Any, _: Any) -> Any:
            y = call(function, arguments, arrays)
            return [a + b for a, b in zip(total, y, strict=True)], None

        zero = [
            jnp.zeros_like(t) for t in jax.eval_shape(lambda: call(function, arguments, arrays))
        ]
        return jax.lax.scan(body, zero, None, length=2)[0]

    def run(arrays: Any, dys: Any, *_: Any) -> Any:
        y, pull = backward(twice, arrays, places(arguments))
        return list(pull(typed(dys, y)))

    return run


def _axes(arguments: Arguments) -> Iterator[tuple[bool, ...]]:
    """Yield which arguments are mapped: every combination of up to three, else each and all."""
    count = len(arguments.leaves)
    yield (True,) * count
    if count <= 3:
        combinations = itertools.product((True, False), repeat=count)
        yield from (c for c in combinations if any(c) and not all(c))
    else:
        for i in range(count):
            yield tuple(k == i for k in range(count))


def _vmap(function: Any, arguments: Arguments, mapped: tuple[bool, ...]) -> Callable[..., Any]:
    def run(arrays: Any, dys: Any, others: Any, other_dys: Any) -> Any:
        stacked = [_stack(a, b) if m else a for a, b, m in zip(arrays, others, mapped, strict=True)]
        both = [jnp.stack(pair) for pair in zip(dys, other_dys, strict=True)]

        def one(arrays: Any, dys: Any) -> Any:
            return both_ways(function, arguments, arrays, dys)[1]

        return jax.vmap(one, in_axes=([0 if m else None for m in mapped], 0))(stacked, both)

    return run


def _stack(a: Any, b: Any) -> Any:
    return jnp.stack([a, b])


def _against_loop(
    probing: Probing, trial: Trial, second: Any, name: str, got: Sequence[Any], eps: float
) -> Found:
    """Compare each slice of a mapped call with a call of its own."""
    mapped = [word.strip() == "True" for word in name[5:-1].strip(",").split(",")]
    values = [b if m else a for a, b, m in zip(trial.values, second[0], mapped, strict=True)]
    run = probing.run(trial.case)
    alone = run.rule(values, second[1])
    rng = np.random.default_rng(5)
    near = run.rule([shaken(v, rng, eps) for v in values], second[1])
    why = Probe(f"vmap with in_axes {[0 if m else None for m in mapped]}", "transform")
    for i, both in enumerate(got):
        noise = noise_of(alone["ct"][i], [near["ct"][i]])
        tolerance = exact_tolerance(alone["ct"][i], noise, size_of(alone["ct"][i]), eps)
        shown = Trial(trial.case, why, values, second[1], alone, {"ct": [b[1] for b in got]})
        pairs = ((both[0], trial.got["ct"][i], trial.tolerance("ct", i, eps), trial),)
        for came, want, allowed, where in (*pairs, (both[1], alone["ct"][i], tolerance, shown)):
            if wrong := misfit(came, want, allowed):
                yield "vmap", Mismatch(where, "ct", i, wrong)
                return


def second_order(
    probing: Probing, trials: Sequence[Trial], eps: float, capabilities: dict[str, bool | None]
) -> Found:
    """Differentiate the backward pass, by the arguments and by the cotangents.

    At special points, only what is nearly the same a small step away is asked, and to be finite.
    """
    arguments = trials[0].case.arguments.cast("float64")
    functions = probing.subject.function, probing.subject.definition
    with jax.enable_x64(True):
        try:
            rule = _second(functions[0], arguments).result()
        except Exception:
            capabilities["hessian"] = False
            return
        try:
            oracle = _second(functions[1], arguments).result()
        except Exception:
            capabilities["hessian"] = None
            return
    capabilities["hessian"] = True
    rng = np.random.default_rng([probing.seed, 11])
    us = [_like(ct, rng) for ct in trials[0].want["ct"]]

    def run(program: Any, values: Sequence[Any], dys: Sequence[Any]) -> list[np.ndarray]:
        with jax.enable_x64(True):
            return jax.device_get(program([_number(v) for v in values], dys, us))

    scale = 0.0  # as in the first order, ordinary numbers say how large the terms are
    for trial in trials:
        values, dys = trial.values, trial.dys
        got, want = run(rule, values, dys), run(oracle, values, dys)
        near = [shaken(v, rng, eps) for v in values], [shaken(v, rng, eps) for v in dys]
        again, wanted = run(rule, *near), run(oracle, *near)
        scale = max(scale, *map(size_of, [*want, *trial.want["ct"]]))
        label = f"{trial.probe.label}, the backward pass differentiated"
        shown = Trial(trial.case, Probe(label, "transform"), values, dys, {"ct": want}, {"ct": got})
        change = [np.zeros(np.shape(a)) for a in want]
        if trial.probe.kind == "special":
            sides = [run(oracle, side, dys) for side in kinks.either_side(values, rng)]
            change = [_change(here, near) for here, *near in zip(want, *sides, strict=True)]
            want = want[: len(places(arguments))]  # by a cotangent: the first order, judged before
        for i in range(len(want)):
            noise = np.maximum(
                noise_of(got[i], [again[i]], size=scale), noise_of(want[i], [wanted[i]], size=scale)
            )
            # Two derivatives in a row: each rounding counts twice over.
            tolerance = 16 * exact_tolerance(want[i], noise, scale, eps) + 2 * change[i]
            asked = (change[i] <= kinks.CLOSE * scale) | ~np.isfinite(got[i])
            if wrong := misfit(got[i], np.where(asked, want[i], np.nan), tolerance):
                count = len(places(arguments))
                what = ("ct", i) if i < count else ("dy", i - count)
                yield "second order", Mismatch(shown, *what, wrong)
                return


def _change(here: np.ndarray, near: Sequence[np.ndarray]) -> np.ndarray:
    """Return by how much the numbers differ a small step away."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.max([np.abs(a - here) for a in near], axis=0))


def _like(array: Any, rng: np.random.Generator) -> np.ndarray:
    u = rng.normal(size=np.shape(array))
    return u + 1j * rng.normal(size=np.shape(array)) if np.iscomplexobj(array) else np.asarray(u)


@kept
def _second(function: Any, arguments: Arguments) -> Any:
    """Trace the cotangents, by u, of the backward pass."""
    which = places(arguments)

    def run(arrays: Any, dys: Any, us: Any) -> Any:
        def first(chosen: Any, dys: Any) -> Any:
            return both_ways(function, arguments, exchanged(arrays, which, chosen), dys)[1]

        outs, pull = jax.vjp(first, [arrays[i] for i in which], dys)
        by_arguments, by_cotangents = pull(typed(us, outs))
        return [*by_arguments, *by_cotangents]

    arrays, dys = types(function, arguments, "float64")
    return prepare(run, arrays, dys, [arrays[i] for i in which])


def forward_mode(probing: Probing, trial: Trial) -> bool:
    """Whether the function can be differentiated forwards: a fact, and no failure."""
    arguments, function = trial.case.arguments, probing.subject.function
    which = places(arguments)

    def forward(arrays: Any) -> Any:
        def of_chosen(*chosen: Any) -> Any:
            return call(function, arguments, exchanged(arrays, which, chosen))

        chosen = [arrays[i] for i in which]
        return jax.jvp(of_chosen, chosen, [jnp.ones_like(a) for a in chosen])[1]

    with jax.enable_x64(True):
        arrays = [jnp.asarray(_number(v)) for v in trial.values]
        try:
            jax.jit(forward).lower(arrays)  # the error comes as late as this
        except Exception:
            return False
    return True
