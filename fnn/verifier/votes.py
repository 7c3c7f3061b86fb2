"""The third vote: finite differences of the definition, with an estimate of their own error."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .arguments import Arguments
from .passes import call, exchanged
from .probes import Probing
from .programs import cached, input_types, prepare
from .trials import Trial

STEPS = 2.0 ** -np.arange(4, 20, 2.0)


def check(probing: Probing, trial: Trial) -> Iterator[str]:
    """Yield a note for each argument where finite differences contradict the definition."""
    arguments = trial.case.arguments
    if probing.exact[1] != "float64":
        return
    for i, place in enumerate(arguments.places):
        if arguments.leaves[place].kind != "float" or not np.size(trial.values[place]):
            continue
        got, error, want = _along(probing, trial, i, place)
        if np.isfinite(got) and abs(got - want) > 10 * error + 1e-6 * abs(want):
            path = arguments.leaves[place].path
            yield (
                f"autodiff of the definition gives {want:.9g} along a direction of {path}, finite "
                f"differences {got:.9g} ± {error:.1g}: the definition may stop a gradient"
            )


def _along(probing: Probing, trial: Trial, which: int, place: int) -> tuple[float, float, float]:
    """Return the derivative along a random direction, its error estimate, and autodiff's."""
    arguments, definition = trial.case.arguments, probing.subject.definition
    rng = np.random.default_rng([probing.seed, place])
    x = np.asarray(trial.values[place])
    v = rng.normal(size=x.shape) * np.maximum(np.abs(x), 1e-3)
    along = [v if i == place else np.zeros(trial.values[i].shape) for i in _moving(arguments)]
    steps = np.concatenate([STEPS, -STEPS])
    with jax.enable_x64(True):
        arrays = [a if isinstance(a, jax.Array) else np.asarray(a) for a in trial.values]
        program = _values(definition, arguments.cast("float64")).result()
        both = np.asarray(program(arrays, trial.dys, steps, along))
    up, down = both[: len(STEPS)], both[len(STEPS) :]
    want = float(np.sum(np.asarray(trial.want["ct"][which]) * v))
    return *richardson((up - down) / (2 * STEPS)), want


def _moving(arguments: Arguments) -> list[int]:
    return [i for i in arguments.places if arguments.leaves[i].kind == "float"]


@cached
def _values(definition: Any, arguments: Arguments) -> Any:
    """Return the program of the outputs times their cotangents, along a direction of the inputs."""
    which = _moving(arguments)

    def values(arrays: Any, dys: Any, steps: Any, along: Any) -> Any:
        def at(h: Any) -> Any:
            points = [arrays[i] + h * v for i, v in zip(which, along, strict=True)]
            y = call(definition, arguments, exchanged(arrays, which, points))
            return sum(
                jnp.sum((dy * t).real)
                for dy, t in zip(dys, y, strict=True)
                if jnp.issubdtype(t.dtype, jnp.inexact)
            )

        return jax.lax.map(at, steps)

    arrays, dys = input_types(definition, arguments, "float64")
    steps = jax.ShapeDtypeStruct((2 * len(STEPS),), "float64")
    along = [jax.ShapeDtypeStruct(arrays[i].shape, "float64") for i in which]
    return prepare(values, arrays, dys, steps, along)


def richardson(slopes: np.ndarray) -> tuple[float, float]:
    """Extrapolate central differences, each with a quarter of the previous step (Ridders 1982).

    Returns the estimate of the tableau whose neighbours agree best, and their difference.
    """
    best, error = float(slopes[0]), np.inf
    row = slopes
    for order in range(1, len(slopes)):
        factor = 16.0**order
        finer = (factor * row[1:] - row[:-1]) / (factor - 1)
        gaps = np.maximum(np.abs(finer - row[1:]), np.abs(finer - row[:-1]))
        k = int(np.argmin(gaps))
        if gaps[k] < error:
            best, error = float(finer[k]), float(gaps[k])
        row = finer
    return best, error
