"""The optimiser of a config, with an average of the parameters and accumulation of gradients.

Both are transformations around the optimiser, so their numbers are part of its state, and of every
checkpoint.
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
    """Return the optimiser of a config, with `train.average` and `train.accumulate`."""
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
    """The state of `average_parameters`."""

    steps: jax.Array  # int32
    average: Any  # as the parameters, in at least float32


def average_parameters(decay: float) -> optax.GradientTransformation:
    """Return a transformation that averages the parameters, to be the last part of a chain.

        a(t) = a(t-1) + (1 - d)/(1 - dᵗ) (p(t) - a(t-1)),   d = `decay`

    This is the exponential moving average Σ dᵗ⁻ˢ p(s) / Σ dᵗ⁻ˢ over the steps s = 1 to t. It has
    no bias to the initial parameters, like Adam's means (Kingma & Ba 2015, arXiv:1412.6980).
    Updates pass through unchanged.
    """

    def init(params):
        average = jax.tree.map(jnp.copy, widen(params))  # because a state is donated
        return AverageState(jnp.zeros((), jnp.int32), average)

    def update(updates, state, params):
        steps = state.steps + 1
        share = (1 - decay) / -jnp.expm1(steps * math.log(decay))
        new = optax.apply_updates(widen(params), updates)
        average = optax.incremental_update(new, state.average, jnp.minimum(share, 1))
        return updates, AverageState(steps, optax.tree.cast_like(average, state.average))

    return optax.GradientTransformation(init, update)


def evaluated_params(state: TrainState) -> Any:
    """Return the parameters to evaluate and to save: their average, if the state holds one."""
    leaves = jax.tree.leaves(state.optimizer, is_leaf=lambda s: isinstance(s, AverageState))
    averages = [leaf.average for leaf in leaves if isinstance(leaf, AverageState)]
    return averages[0] if averages else state.params
