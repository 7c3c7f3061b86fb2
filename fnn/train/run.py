"""A run: what a config builds, checked to fit together before anything is written."""

from dataclasses import dataclass

import optax

from ..config import Config
from ..data import Dataset, Streamed
from ..errors import ConfigError, ShapeError
from ..layers import Layer
from ..loss import Loss
from . import feed, position
from .plan import abstract_init, layer_table
from .step import TrainState, Update, init, make_update


@dataclass(frozen=True)
class Run:
    """An experiment that is ready to start: what its config builds, and fits together."""

    config: Config
    data: Dataset
    model: Layer
    loss: Loss
    optimizer: optax.GradientTransformation
    batch_size: int

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of one batch."""
        return (self.batch_size, *self.data.x_shape)

    @property
    def steps_an_epoch(self) -> int:
        """How many batches an epoch has."""
        return position.steps_an_epoch(len(self.data.x_train), self.batch_size)

    @property
    def steps_a_call(self) -> int:
        """How many steps are compiled into one call, at most."""
        work = sum(row.multiply_adds for row in layer_table(self.model, self.x_shape))
        steps = position.steps_a_call(work, self.batch_size, self.config.checkpoint.steps)
        x = self.data.x_train
        streamed = isinstance(x, Streamed)
        return feed.steps_a_call(x.nbytes // len(x) * self.batch_size, steps) if streamed else steps

    def init(self) -> TrainState:
        """Return the state before the first step."""
        config = self.config
        return init(self.model, self.optimizer, self.x_shape, config.seed, config.precision)

    def update(self) -> Update:
        """Return the step."""
        config = self.config
        skip = config.train.on_nan == "skip"
        parts = self.model, self.loss, self.optimizer, config.gradient
        return make_update(*parts, config.precision, skip)


def prepare(config: Config) -> Run:
    """Load the data and build model, loss and optimiser; check that they fit.

    Raises DataError, or ConfigError naming the line of the config.
    """
    data = config.load_dataset()
    model, loss = config.build_model(), config.build_loss()
    chosen = config.train.batch_size
    batch_size = len(data.x_train) if chosen == "full" else min(chosen, len(data.x_train))
    run = Run(config, data, model, loss, config.build_optimizer(), batch_size)
    try:
        _, y_shape = abstract_init(model, run.x_shape)
        loss.check(y_shape, len(data.classes))
    except ShapeError as error:
        raise ConfigError(f"{config.where_layer(error.path)}: {error}") from error
    return run
