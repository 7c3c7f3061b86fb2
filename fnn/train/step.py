"""The training step: one pure function, and a scan of it over many mini-batches."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .. import backprop
from ..layers import Layer
from ..loss import Loss
from ..op import rules

Gradient = Literal["manual", "autodiff", "backprop"]

FETCH_BYTES = 4 * 2**20
"""Bytes of examples copied out of the data at once: as much as a processor's cache holds."""
SMALL_BATCH = 32 * 2**10
"""Bytes of a batch below which each step copies its own."""


class TrainState(NamedTuple):
    """All that a training step reads and writes."""

    params: Any
    layers: Any  # the layers' state
    optimizer: Any
    key: jax.Array  # with the step's number, what its random layers draw from
    step: jax.Array


Update = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, jax.Array]]


def init(
    model: Layer, optimizer: optax.GradientTransformation, x_shape: tuple[int, ...], seed: int
) -> TrainState:
    """Draw a model's parameters from `seed`, for batches of `x_shape`."""
    params, layers, _ = model.init(stream(seed, "parameters"), x_shape)
    state = optimizer.init(params)
    return TrainState(params, layers, state, stream(seed, "layers"), jnp.zeros((), jnp.int32))


def stream(seed: int, use: Literal["parameters", "order", "layers"]) -> jax.Array:
    """Return the key of one use of a run's seed, independent of the others."""
    uses = ("parameters", "order", "layers")
    return jax.random.fold_in(jax.random.key(seed), uses.index(use))


def value_and_grad(model: Layer, loss: Loss, gradient: Gradient) -> Callable[..., Any]:
    """Return a function of `params, layers, x, labels, key`, giving `(D, layers), gradients`.

    `manual` differentiates with the ops' own rules, `autodiff` lets JAX differentiate their
    definitions, `backprop` runs the explicit backward pass. They agree to rounding.
    """
    if gradient == "backprop":
        return backprop.value_and_grad(model, loss)

    def forward(params, layers, x, labels, key):
        y, layers = model.apply(params, layers, x, key=key, train=True)
        return loss(y, labels), layers

    def function(*args):
        with rules(gradient):
            return jax.value_and_grad(forward, has_aux=True)(*args)

    return function


def make_update(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    gradient: Gradient = "manual",
) -> Update:
    """Return the step: a pure function of the state, a batch x and its labels.

    It returns the next state, and the loss before the step.
    """
    differentiate = value_and_grad(model, loss, gradient)

    def update(state, x, labels):
        key = jax.random.fold_in(state.key, state.step)
        (D, layers), gradients = differentiate(state.params, state.layers, x, labels, key)
        with jax.numpy_dtype_promotion("standard"):  # which is what optax is written for
            changes, after = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, changes)
        return TrainState(params, layers, after, state.key, state.step + 1), D

    return update


def make_steps(update: Update) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Compile many steps into one program; the state given to it is donated.

    The program takes the state, all the data x (n, ...) and labels (n,), resident on the device,
    and `batches` (steps, batch size), the examples of each step. It returns the state and the
    loss of every step (steps,).
    """

    def steps(state, x, labels, batches):
        def body(state, batch):
            return update(state, *batch)

        def fetched(state, several):
            return jax.lax.scan(body, state, (x[several], labels[several]))

        count, batch_size = batches.shape
        together = _fetched_together(count, batch_size * x[0].nbytes)
        several = batches.reshape(-1, together, batch_size)
        state, losses = jax.lax.scan(fetched, state, several)
        return state, losses.reshape(count)

    return jax.jit(steps, donate_argnums=0)


def _fetched_together(steps: int, batch_bytes: int) -> int:
    """Return how many batches to copy out of the data at once: a divisor of `steps`.

    XLA splits a copy over the machine's threads; for each step alone, starting them would take as
    long as the copy. Small batches gain little: measured at 8 KiB, vectors took 7 to 14 % less
    time fetched together, and images of 8×8×1 took 3 to 8 % more.
    """
    if batch_bytes < SMALL_BATCH:
        return 1
    most = max(1, FETCH_BYTES // batch_bytes)
    return max(k for k in range(1, steps + 1) if steps % k == 0 and k <= most)


def order(seed: int, epoch: int, examples: int) -> jax.Array:
    """Return the order of an epoch: a permutation that depends on nothing but these numbers."""
    return jax.random.permutation(jax.random.fold_in(stream(seed, "order"), epoch), examples)
