"""A run: what a config builds, checked to fit together before anything is written."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import optax

from ..config import Config
from ..data import Dataset, Streamed
from ..layers import Layer
from ..loss import Loss
from . import position
from .check import check_step
from .feed import Feed, make_feed
from .feed import steps_per_call as streamed_steps
from .mesh import Placement, place
from .optimizer import build_optimizer
from .plan import layer_table
from .step import TrainState, Update, init, make_steps, make_update


@dataclass(frozen=True)
class Experiment:
    """An experiment that is ready to start: what its config builds, and fits together."""

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
        """How many batches an epoch has."""
        return position.steps_per_epoch(len(self.data.x_train), self.batch_size)

    @property
    def steps_per_call(self) -> int:
        """How many steps are compiled into one call, at most."""
        work = sum(row.multiply_adds for row in layer_table(self.model, self.x_shape))
        steps = position.steps_per_call(work, self.batch_size, self.config.checkpoint.steps)
        x = self.data.x_train
        streamed = isinstance(x, Streamed)
        return streamed_steps(x.nbytes // len(x) * self.batch_size, steps) if streamed else steps

    def init(self) -> TrainState:
        """Return the state before the first step."""
        config = self.config
        return init(self.model, self.optimizer, self.x_shape, config.seed, config.precision)

    def initial_state(self) -> TrainState:
        """Return the state before the first step, laid out over the run's devices.

        Parameters that are split, and those of several processes, are drawn where they will live;
        others as on one device, to the bit.
        """
        if self.placement.split or jax.process_count() > 1:
            return self.placement.init(self.init)
        state = self.init()
        return jax.device_put(state, self.placement.layout(state))

    def update(self) -> Update:
        """Return the step."""
        config = self.config
        skip = config.train.on_nan == "skip"
        parts = self.model, self.loss, self.optimizer, config.gradient
        return make_update(*parts, config.precision, skip)

    def steps(self) -> Callable[..., tuple[TrainState, jax.Array]]:
        """Compile many steps into one program, over the run's devices; see `make_steps`."""
        at = self.placement
        layout = at.layout(jax.eval_shape(self.init)), at.sharding()
        return make_steps(at.update(self.update()), layout)

    def feed(self) -> Feed:
        """Return what feeds the training examples to the compiled steps."""
        return make_feed(self.data.x_train, self.data.y_train, self.placement)


def prepare(config: Config) -> Experiment:
    """Load the data and build model, loss and optimiser; check that they fit.

    Raises DataError, or ConfigError naming the line of the config.
    """
    data = config.load_dataset()
    model, loss = config.build_model(), config.build_loss()
    chosen = config.train.batch_size
    batch_size = len(data.x_train) if chosen == "full" else min(chosen, len(data.x_train))
    x_shape, optimizer = (batch_size, *data.x_shape), build_optimizer(config)
    check_step(config, model, loss, optimizer, x_shape, len(data.classes))
    placement = place(config, model, x_shape)
    return Experiment(config, data, model, loss, optimizer, batch_size, placement)
