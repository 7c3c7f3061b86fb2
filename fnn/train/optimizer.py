"""What a config asks of its optimiser beside a step: an average of parameters, accumulation.

Both are optax's; they stand around the optimiser as transformations, so their numbers are part of
its state, and of every checkpoint.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..config import Config
from .precision import widen
from .step import TrainState


def build_optimizer(config: Config) -> optax.GradientTransformation:
    """Return the optimiser that a config says, with `train.average` and `train.accumulate`."""
    optimizer = config.build_optimizer()
    if config.train.average is not None:
        optimizer = optax.chain(optimizer, average_parameters(config.train.average))
    if config.train.accumulate > 1:
        several = optax.MultiSteps(
            optimizer, config.train.accumulate, accumulator_dtype=config.precision.wide
        )
        # its own gradient_transformation() would not pass the loss on
        optimizer = optax.GradientTransformationExtraArgs(several.init, several.update)
    return optimizer


class AverageState(NamedTuple):
    """What `average_parameters` keeps."""

    steps: jax.Array  # int32
    average: Any  # as the parameters, in at least float32


def average_parameters(decay: float) -> optax.GradientTransformation:
    """Keep the exponential moving average of the parameters, the last part of a chain.

        a(t) = a(t-1) + (1 - d)/(1 - dᵗ) (p(t) - a(t-1)),   d = `decay`

    That is the average Σ dᵗ⁻ˢ p(s) / Σ dᵗ⁻ˢ over the steps s = 1 to t: without a bias, as Adam's
    means are (Kingma & Ba 2015, arXiv:1412.6980), so the drawn parameters have no share in it.
    Updates pass through unchanged.
    """

    def init(params):
        average = jax.tree.map(jnp.copy, widen(params))  # as all of a state is donated
        return AverageState(jnp.zeros((), jnp.int32), average)

    def update(updates, state, params):
        steps = state.steps + 1
        share = (1 - decay) / -jnp.expm1(steps * math.log(decay))
        new = optax.apply_updates(widen(params), updates)
        average = optax.incremental_update(new, state.average, jnp.minimum(share, 1))
        return updates, AverageState(steps, optax.tree.cast_like(average, state.average))

    return optax.GradientTransformation(init, update)


def evaluated_params(state: TrainState) -> Any:
    """Return the parameters to evaluate and to keep: their average, where the state holds one."""
    leaves = jax.tree.leaves(state.optimizer, is_leaf=lambda s: isinstance(s, AverageState))
    averages = [leaf.average for leaf in leaves if isinstance(leaf, AverageState)]
    return averages[0] if averages else state.params
