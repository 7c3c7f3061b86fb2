"""Replay: one step of a training, taken once more, with the range of every array.

    result = replay(experiment, folder, step=1234)
    result.loss, result.arrays, result.first

Steps count from 0: step 1234 begins with the state of checkpoint 1234. The state before a step is
computed by taking the steps from the last checkpoint before it, or from the first step.
"""

import contextlib
import functools
import math
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import backprop
from ..errors import FnnError
from ..layers import graph
from ..train.feed import Position
from ..train.precision import cast
from ..train.step import TrainState
from . import checkpoint as checkpoints
from .prepare import Experiment
from .resume import same_since


class Range(NamedTuple):
    """The smallest and largest finite numbers of an array, and the count of the others."""

    low: float
    high: float
    nonfinite: int

    def as_json(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {name: np.asarray(value).item() for name, value in self._asdict().items()}


class Array(NamedTuple):
    """An array of a layer, its output `y` or a parameter, with ∂D/∂ of it."""

    path: str  # model.3
    layer: str  # dense(10)
    name: str
    forward: Range
    backward: Range | None  # None if nothing needs it
    after: Range | None  # of a parameter, after the step

    def as_json(self) -> dict[str, Any]:
        """Return plain numbers and texts."""
        ranges = {k: r and r.as_json() for k, r in self._asdict().items() if k in RANGES}
        return self._asdict() | ranges


RANGES = ("forward", "backward", "after")


class Replay(NamedTuple):
    """The result of a replay."""

    step: int
    epoch: int
    loss: float
    arrays: tuple[Array, ...]
    first: str | None  # array that was not finite, in the order of computation


def replay(experiment: Experiment, folder: Path, step: int) -> Replay:
    """Take step `step` once more, donating nothing; return the ranges of every layer both ways.

    Raises FnnError for a step that the training does not have, and for one that cannot be
    recomputed: the config changed before it, or training rolled back.
    """
    steps = experiment.config.train.epochs * experiment.steps_per_epoch
    if not 0 <= step < steps:
        raise FnnError(f"there is no step {step}: this training has steps 0 to {steps - 1}")
    state, position = _before(experiment, folder, step)
    batch = experiment.order(position.epoch)[position.done * experiment.batch_size :]
    batch = batch[: experiment.batch_size]
    data = experiment.data
    x, labels = jnp.asarray(data.x_train[batch]), jnp.asarray(data.y_train[batch])
    after, loss = jax.jit(experiment.update)(state, x, labels)
    arrays = tuple(_arrays(experiment, state, after, x, labels))
    return Replay(step, position.epoch, float(loss), arrays, _first(arrays, float(loss)))


def first_nonfinite(experiment: Experiment, folder: Path, step: int) -> dict[str, Any]:
    """Return where a training whose loss is not finite in `step` was first not finite.

    A parameter that was not finite before the step became so in the step before it.
    """
    result = replay(experiment, folder, step)
    if step and any(a.after is not None and a.forward.nonfinite for a in result.arrays):
        with contextlib.suppress(FnnError):  # its state may not be computable any more
            result = replay(experiment, folder, step - 1)
    return {"step": result.step, "epoch": result.epoch, "place": result.first}


def _before(experiment: Experiment, folder: Path, step: int) -> tuple[TrainState, Position]:
    """Return the state before a step, and its position."""
    folder, state, position = folder / "checkpoints", experiment.initial_state(), Position()
    earlier, later = checkpoints.before(folder, step), checkpoints.after(folder, step)
    if earlier is not None:
        state = checkpoints.restore(earlier, state)
        position = Position.from_json(earlier.metadata["position"])
    start = earlier.step if earlier else 0
    since = same_since(checkpoints.latest(folder), experiment.config)
    if start < since:
        raise FnnError(
            f"step {step} cannot be replayed: the config was another one until step {since}, and "
            f"with the checkpoints there are, training would have to go on from step {start}"
        )
    roll_backs = [c.metadata["roll_backs"] if c else 0 for c in (earlier, later)]
    if later and roll_backs[0] != roll_backs[1]:
        raise FnnError(
            f"step {step} cannot be replayed: between steps {start} and {later.step} training "
            "rolled back, to a checkpoint that is no longer kept; with on_nan: skip or stop every "
            "step can be"
        )
    per_epoch = experiment.steps_per_epoch
    position = position.carry(per_epoch)
    with contextlib.closing(experiment.chunks(position, until=step)) as chunks:
        for batches, *data in chunks:
            state, losses = experiment.steps(state, *data)
            position = position.after(batches, np.asarray(losses)).carry(per_epoch)
    return state, position


def _arrays(
    experiment: Experiment, state: TrainState, after: TrainState, x: jax.Array, labels: jax.Array
) -> Iterator[Array]:
    """Yield every layer's parameters and output, in the order in which they are computed."""
    model, loss, precision = experiment.model, experiment.loss, experiment.config.precision
    key = jax.random.fold_in(state.key, state.step)

    def forward(params, layers, x):
        params, x = (cast(tree, precision.compute) for tree in (params, x))
        return backprop.forward(model, params, layers, x, key=key, train=True)

    @jax.jit
    def ranges_of(params, layers, x, after):
        values, tape = forward(params, layers, x)
        y = values[tape.steps[-1].output]
        _, residuals = loss.fwd(cast(y, precision.reduce), labels)
        gradients = backprop.backward(tape, cast(loss.bwd(residuals), y.dtype))
        return jax.tree.map(_range, (values, gradients, after))

    *both, ranges = jax.device_get(ranges_of(state.params, state.layers, x, after.params))
    values, gradients = ({name: Range(*r) for name, r in part.items()} for part in both)
    _, tape = jax.eval_shape(forward, state.params, state.layers, x)
    for row, node, step in zip(experiment.layers, graph(model), tape.steps, strict=True):
        own = [(path, name) for path, name in tape.parameters if path[:-1] == node.path]
        for path, name in own:
            update = Range(*functools.reduce(operator.getitem, path, ranges))
            yield Array(row.path, row.layer, path[-1], values[name], gradients[name], update)
        y = step.output
        yield Array(row.path, row.layer, "y", values[y], gradients.get(y), None)


def _range(array: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    finite = jnp.isfinite(array)
    low = jnp.min(jnp.where(finite, array, math.inf), initial=math.inf)
    high = jnp.max(jnp.where(finite, array, -math.inf), initial=-math.inf)
    return low, high, jnp.sum(~finite)


def _first(arrays: tuple[Array, ...], loss: float) -> str | None:
    """Name the first array that is not finite: forward, the loss, backward, the update."""
    for a in arrays:
        if a.forward.nonfinite:
            name = "the output" if a.name == "y" else f"the parameter {a.name}, before the step,"
            return f"{name} of {a.path} {a.layer}"
    if not math.isfinite(loss):
        return "the loss"
    for a in reversed(arrays):
        if a.backward is not None and a.backward.nonfinite:
            name = "the output" if a.name == "y" else f"the parameter {a.name}"
            return f"the gradient of {name} of {a.path} {a.layer}"
    for a in arrays:
        if a.after is not None and a.after.nonfinite:
            return f"the parameter {a.name}, after the step, of {a.path} {a.layer}"
    return None
