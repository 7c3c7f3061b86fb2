"""Many runs in one compiled program, shared out over the devices.

A device takes its runs all at once (`jax.vmap`), but a CPU one after the other (`jax.lax.map`):
its caches hold the state of one run and not of all, and a convolution whose weights differ from
run to run would lose its fast path. Nothing passes from one device to another.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ..config.source import parse_path
from ..runs.prepare import Experiment
from ..runs.results import model_arrays
from ..train.evaluate import CHUNK, CHUNK_BYTES, Evaluation, evaluate_batch
from ..train.feed import Resident
from ..train.step import TrainState, make_steps, order
from .groups import Group, with_values

AXIS = "runs"


class Program:
    """The compiled program of several runs; their arrays have an axis of runs first.

    There are `places` runs: the last ones may only fill the devices. A run that is not active
    keeps its state, and takes no time on a CPU.
    """

    def __init__(self, group: Group, devices: Sequence[jax.Device] | None = None) -> None:
        """Take a group's runs; by default over all devices of this process."""
        self._group, experiment, count = group, group.experiment, len(group.rows)
        devices = (jax.local_devices() if devices is None else devices)[:count]
        mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
        self.places = -(-count // len(devices)) * len(devices)
        filled = {key: np.resize(column, self.places) for key, column in group.arguments.items()}
        self._each = NamedSharding(mesh, P(AXIS))
        self._values = jax.device_put(filled, self._each)
        data, everywhere = experiment.data, NamedSharding(mesh, P())
        self.feed = Resident(*jax.device_put((data.x_train, data.y_train), everywhere))
        self._test = jax.device_put((data.x_test, data.y_test), everywhere)
        self._seeds = filled.get("seed", np.array([experiment.config.seed], np.uint32))
        self._orders = jax.jit(jax.vmap(lambda s, e: order(s, e, len(data.x_train)), (0, None)))
        start, steps, evaluate = (
            _over_runs(make(experiment), mesh)
            for make in (_make_start, _make_steps, _make_evaluate)
        )
        self._start, self._evaluate = jax.jit(start), jax.jit(evaluate)
        self._steps = jax.jit(
            lambda state, each, shared: steps({"state": state, **each}, shared), donate_argnums=0
        )

    def init(self) -> TrainState:
        """Return the state before the first step.

        Parameters are drawn as `fnn run` draws them, outside of a program, in which they may be
        rounded otherwise; runs with the same parameters share one drawing.
        """
        by_key: dict[tuple[str, ...], TrainState] = {}
        states = []
        for row in self._group.rows:
            key = tuple(
                v.text for k, v in row.values.items() if parse_path(k)[0] in ("seed", "model")
            )
            if key not in by_key:
                by_key[key] = self._group.experiment.with_config(row.config).init()
            states.append(by_key[key])
        states += states[: self.places - len(states)]
        together = jax.device_put(jax.tree.map(lambda *a: jnp.stack(a), *states), self._each)
        return self._start({"state": together, "values": self._values}, {})

    def orders(self, epoch: int) -> np.ndarray:
        """Return the order of an epoch's examples (1, n), or (places, n) where seeds differ."""
        return np.asarray(self._orders(self._seeds, epoch))

    def steps(
        self, state: TrainState, active: np.ndarray, batches: np.ndarray
    ) -> tuple[TrainState, jax.Array]:
        """Take steps with batches (1 or places, steps, batch size) of examples.

        Returns the next state and the losses (places, steps); `state` is donated.
        """
        return self._steps(*self._inputs(state, active, batches))

    def _inputs(self, state, active, batches):
        each = {"active": active, "values": self._values}
        shared = {"data": (self.feed.x, self.feed.labels)}
        if len(batches) == 1:  # the same for all runs, and fetched once
            return state, each, {**shared, "batches": batches[0]}
        return state, {**each, "batches": batches}, shared

    def compiled(self, active: np.ndarray, batches: np.ndarray) -> str:
        """Return the compiled program of these steps, as XLA writes it."""
        inputs = self._inputs(self.init(), active, batches)
        return str(self._steps.lower(*inputs).compile().as_text())

    def evaluate(self, state: TrainState) -> Evaluation:
        """Evaluate on the test examples: arrays (places, n, ...), on the devices."""
        each = {"values": self._values, "state": state}
        return self._evaluate(each, {"data": self._test})


def _at_once(mesh: jax.sharding.Mesh) -> bool:
    return mesh.devices.flat[0].platform != "cpu"


def _over_runs(one: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """Return `one(each, shared)` over the axis of runs that the arrays of `each` have."""

    def several(each, shared):
        def with_shared(each):
            return one(each, shared)

        return jax.vmap(with_shared)(each) if _at_once(mesh) else jax.lax.map(with_shared, each)

    # A device works on runs of its own, so there is nothing that has to be the same on all.
    return jax.shard_map(
        several, mesh=mesh, in_specs=(P(AXIS), P()), out_specs=P(AXIS), check_vma=False
    )


def _make_start(experiment: Experiment) -> Callable[..., Any]:
    def start(each, shared):
        del shared
        optimizer = with_values(experiment, each["values"]).optimizer
        return each["state"]._replace(optimizer=optimizer.init(each["state"].params))

    return start


def _make_steps(experiment: Experiment) -> Callable[..., Any]:
    def steps(each, shared):
        one, batches = with_values(experiment, each["values"]), {**each, **shared}["batches"]

        def train(state):
            return make_steps(one.update)(state, *shared["data"], batches)

        def stay(state):
            return state, jnp.zeros(len(batches), one.config.precision.reduce)

        return jax.lax.cond(each["active"], train, stay, each["state"])

    return steps


def _make_evaluate(experiment: Experiment) -> Callable[..., Any]:
    def evaluate(each, shared):
        one, state = with_values(experiment, each["values"]), each["state"]
        x, labels = shared["data"]

        def chunk(_, examples):
            parts = one.model, one.loss, one.config.precision
            return None, evaluate_batch(*parts, *model_arrays(state), *examples)

        size = max(1, min(CHUNK, CHUNK_BYTES // x[0].nbytes, len(x)))
        whole = len(x) // size * size
        chunks = [a[:whole].reshape(-1, size, *a.shape[1:]) for a in (x, labels)]
        _, evaluation = jax.lax.scan(chunk, None, tuple(chunks))
        evaluation = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), evaluation)
        if whole == len(x):
            return evaluation
        _, rest = chunk(None, (x[whole:], labels[whole:]))
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), evaluation, rest)

    return evaluate
