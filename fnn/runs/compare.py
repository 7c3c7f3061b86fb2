"""Hand-written rules against automatic differentiation, on the step of one experiment."""

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
from ..train.step import Gradient, init, make_steps, make_update, order, value_and_grad
from ..tree import leaf_path
from .prepare import Experiment

GRADIENTS: tuple[Gradient, ...] = ("manual", "autodiff")
ROUNDINGS = 16
"""A gradient of at most this many roundings of the model's largest is zero to rounding."""
ROUNDS, FEW_ROUNDS = 15, 3
STEPS, MULTIPLY_ADDS = 64, 4 * 10**9
"""Steps in a timed call: fewer if they would take more multiply-adds, but at least one."""
SECONDS_PER_ROUND, SECONDS = 0.02, 20.0
"""The least duration of a round; after SECONDS, a large model gets FEW_ROUNDS only."""


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

    Gradients are compared in at least float32, so that rounding hides little. Time and memory are
    those of steps in `precision`. Of streamed examples, those of one timed call are read.

    Returns plain numbers: per parameter the largest difference of its two gradients over autodiff's
    largest element (over that of all parameters, if the gradient is only their roundings, such as
    that of a bias before a batch norm); the loss's relative difference; microseconds per step
    (medians of interleaved rounds) and bytes of temporary memory, with their ratios, autodiff over
    hand-written: above 1 the hand-written rules win.
    """
    if isinstance(x, Streamed):
        most = batch_size * steps_per_call(batch_size * x.nbytes // len(x), STEPS)
        x, labels = x[:most], labels[:most]
    x, labels = jnp.asarray(x), jnp.asarray(labels)
    x_shape = (batch_size, *x.shape[1:])
    examples = order(seed, 0, len(x))
    state = init(model, optimizer, x_shape, seed, precision)

    first = examples[:batch_size]
    batch = (widen(state.params), state.layers, x[first], labels[first], state.key)
    wide = Precision(params=precision.wide, compute=precision.wide, reduce=precision.wide)
    results = (jax.jit(value_and_grad(model, loss, g, wide))(*batch) for g in GRADIENTS)
    (D, gradients), (D_auto, gradients_auto) = (
        (float(D), jax.device_get(gradients)) for (D, _), gradients in results
    )

    work = sum(row.multiply_adds for row in layer_table(model, x_shape))
    affordable = MULTIPLY_ADDS // max(1, work * batch_size)
    count = max(1, min(STEPS, len(x) // batch_size, affordable))
    batches = examples[: count * batch_size].reshape(count, batch_size)
    updates = {g: make_update(model, loss, optimizer, g, precision) for g in GRADIENTS}
    times = _step_times(updates, state, (x, labels, batches))
    memory = {g: step_memory(model, loss, optimizer, x_shape, g, precision) for g in GRADIENTS}
    temporary = {g: m.temporary if m else None for g, m in memory.items()}
    natural, manual = temporary["autodiff"], temporary["manual"]
    return {
        "parameters": _differences(gradients, gradients_auto),
        "loss_relative_difference": abs(D - D_auto) / abs(D_auto) if D_auto else abs(D),
        "step_time_us": times,
        "step_time_ratio": times["autodiff"] / times["manual"],
        "temp_bytes": temporary,
        "temp_ratio": natural / manual if natural is not None and manual else None,
    }


def _differences(gradients: Any, expected: Any) -> list[dict[str, Any]]:
    """Return one row per parameter: its path, its shape and the largest relative difference."""

    def largest(array: np.ndarray) -> float:
        return float(np.max(np.abs(array), initial=0.0))

    rows = []
    overall = max(map(largest, jax.tree.leaves(expected)), default=0.0)
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    for (path, got), want in zip(leaves, jax.tree.leaves(expected), strict=True):
        scale, difference = largest(want), largest(got - want)
        if scale <= ROUNDINGS * float(np.finfo(want.dtype).eps) * overall:
            scale = overall
        rows.append(
            {
                "path": leaf_path(path),
                "shape": list(want.shape),
                "max_relative_difference": difference / scale if scale else difference,
            }
        )
    return rows


def _step_times(
    updates: dict[Gradient, Any], state: Any, data: tuple[Any, ...]
) -> dict[str, float]:
    """Return microseconds per step of both ways, in interleaved rounds against noise."""
    programs = {gradient: make_steps(update) for gradient, update in updates.items()}
    states = {g: jax.tree.map(lambda a: a.copy(), state) for g in GRADIENTS}
    seconds: dict[str, list[float]] = {g: [] for g in GRADIENTS}
    count, repeats = len(data[-1]), 1

    def one_round(gradient: Gradient) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            states[gradient], D = programs[gradient](states[gradient], *data)
        jax.block_until_ready(D)
        return (time.perf_counter() - start) / (repeats * count)

    for gradient in GRADIENTS:  # which compiles
        one_round(gradient)
    repeats = max(1, round(SECONDS_PER_ROUND / (one_round("manual") * count)))
    start = time.perf_counter()
    for i in range(ROUNDS):
        if i >= FEW_ROUNDS and time.perf_counter() - start > SECONDS:
            break
        for gradient in GRADIENTS if i % 2 else reversed(GRADIENTS):
            seconds[gradient].append(one_round(gradient))
    return {g: 1e6 * statistics.median(times) for g, times in seconds.items()}
