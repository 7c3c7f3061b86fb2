"""The hand-written rules against automatic differentiation, on one experiment's own step."""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..data import Streamed
from ..layers import Layer
from ..loss import Loss
from ..train.feed import steps_per_call
from ..train.plan import layer_table, step_memory
from ..train.precision import FLOAT32, Precision, widen
from ..train.step import Gradient, TrainState, init, make_steps, make_update, order, value_and_grad
from .prepare import Experiment

GRADIENTS: tuple[Gradient, ...] = ("manual", "autodiff")
ROUNDINGS = 16
"""A gradient of no more roundings, of the model's largest, is zero to rounding."""
ROUNDS, FEW_ROUNDS = 15, 3
STEPS, MULTIPLY_ADDS = 64, 4 * 10**9
"""Steps in a timed call: fewer where they would take more multiply-adds than these, but one."""
SECONDS_A_ROUND, SECONDS = 0.02, 20.0
"""Rounds are repeated to take so long at least; a large model gets few, once all took so long."""


def compare_experiment(experiment: Experiment) -> dict[str, Any]:
    """Compare on an experiment's own step and data; see `compare`."""
    config, data = experiment.config, experiment.data
    parts = experiment.model, experiment.loss, experiment.optimizer, data.x_train, data.y_train
    return compare(*parts, experiment.batch_size, config.seed, config.precision)


def compare(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    x: jax.Array | np.ndarray | Streamed,
    labels: jax.Array | np.ndarray,
    batch_size: int,
    seed: int = 0,
    precision: Precision = FLOAT32,
) -> dict[str, Any]:
    """Differentiate the same batch both ways, and time the same steps both ways.

    Of streamed examples, the first are read: as many as a timed call takes.

    The gradients are compared in at least float32, where rounding hides little; time and memory
    are those of steps in the given precision.

    Returns plain numbers: for each parameter the largest difference of its two gradients over
    the largest element of autodiff's (over that of all parameters, where a gradient is but their
    roundings, as that of a bias before a batch norm is); the loss's relative difference;
    microseconds a step
    (medians of interleaved rounds) and bytes of temporary memory, with their ratios, autodiff
    over hand-written, so that above 1 the hand-written rules win.
    """
    if isinstance(x, Streamed):
        most = batch_size * steps_per_call(batch_size * x.nbytes // len(x), STEPS)
        x, labels = x[:most], labels[:most]
    x, labels = jnp.asarray(x), jnp.asarray(labels)
    x_shape = (batch_size, *x.shape[1:])
    first = order(seed, 0, len(x))[:batch_size]
    state = init(model, optimizer, x_shape, seed, precision)
    batch = (widen(state.params), state.layers, x[first], labels[first], state.key)
    dtype = precision.wide
    wide = Precision(params=dtype, compute=dtype, reduce=dtype)
    (D, gradients), (D_auto, gradients_auto) = (
        _value_and_gradients(value_and_grad(model, loss, g, wide), batch) for g in GRADIENTS
    )
    times = _step_times(model, loss, optimizer, state, x, labels, batch_size, seed, precision)
    memory = {g: step_memory(model, loss, optimizer, x_shape, g, precision) for g in GRADIENTS}
    temporary = {g: m.temporary if m else None for g, m in memory.items()}
    return {
        "parameters": _differences(gradients, gradients_auto),
        "loss_relative_difference": abs(D - D_auto) / abs(D_auto) if D_auto else abs(D),
        "step_time_us": times,
        "step_time_ratio": times["autodiff"] / times["manual"],
        "temp_bytes": temporary,
        "temp_ratio": _ratio(temporary["autodiff"], temporary["manual"]),
    }


def _ratio(natural: int | None, manual: int | None) -> float | None:
    return natural / manual if natural is not None and manual else None


def _value_and_gradients(function: Any, batch: tuple[Any, ...]) -> tuple[float, Any]:
    (D, _), gradients = jax.jit(function)(*batch)
    return float(D), jax.device_get(gradients)


def _differences(gradients: Any, expected: Any) -> list[dict[str, Any]]:
    rows = []
    every = (float(np.max(np.abs(want), initial=0.0)) for want in jax.tree.leaves(expected))
    overall = max(every, default=0.0)
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(expected), strict=True
    )
    for (path, got), want in pairs:
        largest = float(np.max(np.abs(want), initial=0.0))
        difference = float(np.max(np.abs(got - want), initial=0.0))
        if largest <= ROUNDINGS * float(np.finfo(want.dtype).eps) * overall:
            largest = overall
        rows.append(
            {
                "path": jax.tree_util.keystr(path, simple=True, separator="/"),
                "shape": list(want.shape),
                "max_relative_difference": difference / largest if largest else difference,
            }
        )
    return rows


def _step_times(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    x: jax.Array,
    labels: jax.Array,
    batch_size: int,
    seed: int,
    precision: Precision,
) -> dict[str, float]:
    """Time scans of steps, the two ways in turn, so that a noisy moment meets both."""
    work = sum(row.multiply_adds for row in layer_table(model, (batch_size, *x.shape[1:])))
    affordable = MULTIPLY_ADDS // max(1, work * batch_size)
    count = max(1, min(STEPS, len(x) // batch_size, affordable))
    batches = order(seed, 0, len(x))[: count * batch_size].reshape(count, batch_size)
    runs = {g: make_steps(make_update(model, loss, optimizer, g, precision)) for g in GRADIENTS}
    states = {g: jax.tree.map(lambda a: a.copy(), state) for g in GRADIENTS}
    seconds: dict[str, list[float]] = {g: [] for g in GRADIENTS}
    repeats = 1

    def one_round(gradient: Gradient) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            states[gradient], D = runs[gradient](states[gradient], x, labels, batches)
        jax.block_until_ready(D)
        return (time.perf_counter() - start) / (repeats * count)

    for gradient in GRADIENTS:  # compile, and see how long a round takes
        one_round(gradient)
    repeats = max(1, round(SECONDS_A_ROUND / (one_round("manual") * count)))
    started = time.perf_counter()
    for i in range(ROUNDS):
        if i >= FEW_ROUNDS and time.perf_counter() - started > SECONDS:
            break
        for gradient in GRADIENTS if i % 2 else reversed(GRADIENTS):
            seconds[gradient].append(one_round(gradient))
    return {g: 1e6 * statistics.median(times) for g, times in seconds.items()}
