"""An experiment: the objects that a config describes, built and checked before anything is written.

experiment = prepare(load("configs/digits_mlp.yaml"))
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
import optax

from ..config import Config
from ..data import Dataset, Streamed
from ..layers import Layer
from ..loss import Loss
from ..train.feed import MULTIPLY_ADDS, STEPS, Chunk, Position, cut_epoch, make_feed, steps_per_call
from ..train.mesh import Placement, place
from ..train.optimizer import build_optimizer
from ..train.plan import LayerRow, layer_table
from ..train.step import TrainState, Update, init, make_steps, make_update, order
from .check import check_step


@dataclass(frozen=True)
class Experiment:
    """The data, model, loss and optimiser of a config, built and ready to start."""

    config: Config
    data: Dataset
    model: Layer
    loss: Loss
    optimizer: optax.GradientTransformation
    batch_size: int
    placement: Placement

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of one batch."""
        return (self.batch_size, *self.data.x_shape)

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches per epoch; the last may be smaller than the others."""
        return -(-len(self.data.x_train) // self.batch_size)

    @cached_property
    def layers(self) -> list[LayerRow]:
        """The table of layers, for one batch."""
        return layer_table(self.model, self.x_shape)

    @cached_property
    def steps_per_call(self) -> int:
        """The number of steps that are compiled into one call, at most."""
        work = sum(row.multiply_adds for row in self.layers)
        affordable = MULTIPLY_ADDS // max(1, work * self.batch_size)
        most = max(1, min(STEPS, affordable, self.config.checkpoint.steps or STEPS))
        x = self.data.x_train
        streamed = isinstance(x, Streamed)
        return steps_per_call(x.nbytes // len(x) * self.batch_size, most) if streamed else most

    def init(self) -> TrainState:
        """Return the state before the first step, on one device."""
        config = self.config
        return init(self.model, self.optimizer, self.x_shape, config.seed, config.precision)

    def initial_state(self) -> TrainState:
        """Return the state before the first step, laid out over the devices.

        Parameters that are split, and those of several processes, are drawn where they will live;
        others as on one device, to the bit.
        """
        if self.placement.split or jax.process_count() > 1:
            return self.placement.init(self.init)
        state = self.init()
        return jax.device_put(state, self.placement.layout(state))

    @property
    def update(self) -> Update:
        """The step, a pure function; see `make_update`."""
        skip = self.config.train.on_nan == "skip"
        parts = self.model, self.loss, self.optimizer, self.config.gradient
        return make_update(*parts, self.config.precision, skip)

    @cached_property
    def steps(self) -> Callable[..., tuple[TrainState, jax.Array]]:
        """The program of many steps, over the devices; see `make_steps`."""
        return make_steps(self.update, self.placement, jax.eval_shape(self.init))

    def order(self, epoch: int) -> np.ndarray:
        """Return the order of an epoch's training examples (n,)."""
        return np.asarray(order(self.config.seed, epoch, len(self.data.x_train)))

    def cuts(
        self,
        start: Position,
        until: int | None = None,
        order: Callable[[int], np.ndarray] | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield the batches of each chunk from a position on, until `until` steps or the last.

        `order` returns an epoch's order (..., n), by default the experiment's own.
        """
        per_epoch, order = self.steps_per_epoch, order or self.order
        until = self.config.train.epochs * per_epoch if until is None else until
        for epoch in range(start.epoch, -(-until // per_epoch) + 1):
            done = start.done if epoch == start.epoch else 0
            end = until - (epoch - 1) * per_epoch
            yield from cut_epoch(order(epoch), self.batch_size, done, self.steps_per_call, end)

    def chunks(self, start: Position, until: int | None = None) -> Generator[Chunk]:
        """Return an iterator over the chunks from a position on; see `cuts`.

        Streamed examples are read ahead, across the ends of epochs as well.
        """
        return self._feed.chunks(self.cuts(start, until))

    @cached_property
    def _feed(self) -> Any:
        return make_feed(self.data.x_train, self.data.y_train, self.placement)

    def with_config(self, config: Config) -> "Experiment":
        """Return the experiment of a config that differs in numbers alone."""
        return replace(self, config=config, **_build(config))


def prepare(config: Config, data: Dataset | None = None) -> Experiment:
    """Load the data, unless they are passed; build model, loss and optimiser; check that they fit.

    Raises DataError, or ConfigError naming the line of the config.
    """
    data = config.load_dataset() if data is None else data
    size, examples = config.train.batch_size, len(data.x_train)
    batch_size = examples if size == "full" else min(size, examples)
    x_shape, parts = (batch_size, *data.x_shape), _build(config)
    check_step(config, **parts, x_shape=x_shape, classes=len(data.classes))
    placement = place(config, parts["model"], x_shape)
    return Experiment(config, data, **parts, batch_size=batch_size, placement=placement)


def _build(config: Config) -> dict[str, Any]:
    return {
        "model": config.build_model(),
        "loss": config.build_loss(),
        "optimizer": build_optimizer(config),
    }
