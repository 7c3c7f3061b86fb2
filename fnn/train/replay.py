"""One step of a training, run once more with everything looked at.

    found = replay(run, folder, step=1234)
    found.loss, found.arrays, found.first

Steps count from 0: step 1234 is the one that begins where checkpoint 1234 stands. The state before
it is had by running the steps from the last checkpoint before it, or from the first step.
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
from . import checkpoint as checkpoints
from .changes import same_since
from .plan import layer_table
from .position import Position, cut_epoch
from .precision import cast
from .run import Experiment
from .step import TrainState, order


class Range(NamedTuple):
    """The smallest and the largest finite number of an array, and how many are not finite."""

    low: float
    high: float
    nonfinite: int

    def as_json(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {name: np.asarray(value).item() for name, value in self._asdict().items()}


class Array(NamedTuple):
    """An array of a layer: its output `y` or a parameter, and ∂D/∂ of it."""

    path: str  # model.3
    layer: str  # dense(10)
    name: str
    forward: Range
    backward: Range | None  # None where nothing needs it
    after: Range | None  # of a parameter, after the step

    def as_json(self) -> dict[str, Any]:
        """Return plain numbers and texts."""
        ranges = {k: r and r.as_json() for k, r in self._asdict().items() if k in RANGES}
        return self._asdict() | ranges


RANGES = ("forward", "backward", "after")


class Replay(NamedTuple):
    """What a step did."""

    step: int
    epoch: int
    loss: float
    arrays: tuple[Array, ...]
    first: str | None  # the first array that was not finite, in the order of the computation


def replay(run: Experiment, folder: Path, step: int) -> Replay:
    """Run step `step` once more, nothing donated, and look at every layer both ways.

    Raises FnnError for a step that the training does not have, and for one that cannot be had
    again: before which the config changed, or training rolled back.
    """
    steps = run.config.train.epochs * run.steps_per_epoch
    if not 0 <= step < steps:
        raise FnnError(f"there is no step {step}: this training has steps 0 to {steps - 1}")
    state, at = _before(run, folder, step)
    examples = np.asarray(order(run.config.seed, at.epoch, len(run.data.x_train)))
    batch = examples[at.done * run.batch_size :][: run.batch_size]
    x, labels = jnp.asarray(run.data.x_train[batch]), jnp.asarray(run.data.y_train[batch])
    after, loss = jax.jit(run.update())(state, x, labels)
    arrays = tuple(_arrays(run, state, after, x, labels))
    return Replay(step, at.epoch, float(loss), arrays, _first(arrays, float(loss)))


def first_nonfinite(run: Experiment, folder: Path, step: int) -> dict[str, Any]:
    """Say where a training whose loss is not finite in `step` was not finite for the first time.

    A parameter that was not finite before the step became so in the step before it.
    """
    found = replay(run, folder, step)
    if step and any(a.after is not None and a.forward.nonfinite for a in found.arrays):
        with contextlib.suppress(FnnError):  # the step before it may be beyond what is kept
            found = replay(run, folder, step - 1)
    return {"step": found.step, "epoch": found.epoch, "place": found.first}


def _before(run: Experiment, folder: Path, step: int) -> tuple[TrainState, Position]:
    """Return the state before a step, and where in its epoch it is."""
    state, at = run.initial_state(), Position()
    found = checkpoints.before(folder / "checkpoints", step)
    if found is not None:
        state, at = checkpoints.restore(found, state), Position(**found.metadata["position"])
    begun, later = found.step if found else 0, checkpoints.after(folder / "checkpoints", step)
    since = same_since(checkpoints.latest(folder / "checkpoints"), run.config)
    if begun < since:
        raise FnnError(
            f"step {step} cannot be replayed: the config was another one until step {since}, and "
            f"of what is kept, training would have to go on from step {begun}"
        )
    roll_backs = [c.metadata["roll_backs"] if c else 0 for c in (found, later)]
    if later and roll_backs[0] != roll_backs[1]:
        raise FnnError(
            f"step {step} cannot be replayed: between steps {begun} and {later.step} training "
            "rolled back, to a checkpoint that is no longer kept; with on_nan: skip or stop every "
            "step can be"
        )
    feed, take = run.feed(), run.steps()
    while True:
        until = min(step - (at.epoch - 1) * run.steps_per_epoch, run.steps_per_epoch)
        examples = np.asarray(order(run.config.seed, at.epoch, len(run.data.x_train)))
        cuts = cut_epoch(examples, run.batch_size, at.done, run.steps_per_call, until)
        for batches, *data, indices in feed.chunks(cuts):
            state, losses = take(state, *data, indices)
            at = at.after(batches, np.asarray(losses))
        if until < run.steps_per_epoch:
            return state, at
        at = Position(at.epoch + 1)


def _arrays(
    run: Experiment, state: TrainState, after: TrainState, x: jax.Array, labels: jax.Array
) -> Iterator[Array]:
    """Yield every layer's parameters and output, in the order in which they are computed."""
    model, loss = run.model, run.loss
    key = jax.random.fold_in(state.key, state.step)

    def forward(params, layers, x):
        params, x = (cast(tree, run.config.precision.compute) for tree in (params, x))
        return backprop.forward(model, params, layers, x, key=key, train=True)

    @jax.jit
    def ranges_of(params, layers, x, after):
        values, tape = forward(params, layers, x)
        y = values[tape.steps[-1].output]
        _, saved = loss.fwd(cast(y, run.config.precision.reduce), labels)
        gradients = backprop.backward(tape, cast(loss.bwd(saved), y.dtype))
        return jax.tree.map(_range, (values, gradients, after))

    *found, ranges = jax.device_get(ranges_of(state.params, state.layers, x, after.params))
    values, gradients = ({name: Range(*r) for name, r in part.items()} for part in found)
    _, tape = jax.eval_shape(forward, state.params, state.layers, x)
    rows = layer_table(model, run.x_shape)
    for row, node, step in zip(rows, graph(model), tape.steps, strict=True):
        own = [(path, name) for path, name in tape.parameters if path[:-1] == node.path]
        for path, name in own:
            changed = Range(*functools.reduce(operator.getitem, path, ranges))
            yield Array(row.path, row.layer, path[-1], values[name], gradients[name], changed)
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
            what = "the output" if a.name == "y" else f"the parameter {a.name}, before the step,"
            return f"{what} of {a.path} {a.layer}"
    if not math.isfinite(loss):
        return "the loss"
    for a in reversed(arrays):
        if a.backward is not None and a.backward.nonfinite:
            what = "the output" if a.name == "y" else f"the parameter {a.name}"
            return f"the gradient of {what} of {a.path} {a.layer}"
    for a in arrays:
        if a.after is not None and a.after.nonfinite:
            return f"the parameter {a.name}, after the step, of {a.path} {a.layer}"
    return None
