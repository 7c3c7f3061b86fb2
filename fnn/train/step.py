"""The training step: one pure function, and a scan of it over many mini-batches."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .. import backprop
from ..custom_op import rules
from ..layers import Layer
from ..loss import Loss
from .mesh import Placement
from .precision import FLOAT32, LossScale, Precision, cast, first_scale, take_if_finite

Gradient = Literal["manual", "autodiff", "backprop"]

FETCH_BYTES = 4 * 2**20
"""Bytes of examples copied out of the data at once: about one CPU cache."""
SMALL_BATCH = 32 * 2**10
"""Bytes of a batch below which each step copies its own."""


class TrainState(NamedTuple):
    """The state that a training step reads and writes."""

    params: Any
    layers: Any  # the layers' state
    optimizer: Any
    key: jax.Array  # of the random layers; folded with the number of the step
    step: jax.Array
    skipped: jax.Array  # steps not taken, because loss or gradients were not finite
    scale: LossScale | tuple[()]  # of a float16 loss


Update = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, jax.Array]]


def init(
    model: Layer,
    optimizer: optax.GradientTransformation,
    x_shape: tuple[int, ...],
    seed: int,
    precision: Precision = FLOAT32,
) -> TrainState:
    """Return the first state, with parameters drawn from `seed`, for batches of `x_shape`."""
    params, layers, _ = model.init(stream(seed, "parameters"), x_shape)
    params = cast(params, precision.params)
    return TrainState(
        params,
        layers,
        optimizer.init(params),
        key=stream(seed, "layers"),
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        scale=first_scale(precision),
    )


def stream(seed: int, use: Literal["parameters", "order", "layers"]) -> jax.Array:
    """Return the key for one use of the seed, independent of the other uses."""
    uses = ("parameters", "order", "layers")
    return jax.random.fold_in(jax.random.key(seed), uses.index(use))


def value_and_grad(
    model: Layer, loss: Loss, gradient: Gradient, precision: Precision = FLOAT32
) -> Callable[..., Any]:
    """Return a function of `params, layers, x, labels, key` with value `(D, layers), gradients`.

    `manual` differentiates with the ops' own rules, `autodiff` lets JAX differentiate their
    definitions, `backprop` runs the explicit backward pass. They agree to rounding.

    Parameters and x are cast to `precision.compute`, the outputs to `precision.reduce`; the
    layers' state is not cast. An optional last argument `dD`, the cotangent of the loss, multiplies
    the gradients before they are cast back to the parameters' dtype.
    """

    def by_jax(params, layers, x, labels, key, dD):
        def forward(params):
            y, after = model.apply(params, layers, x, key=key, train=True)
            return loss(y.astype(precision.reduce), labels), after

        with rules("autodiff" if gradient == "autodiff" else "manual"):
            D, pull_back, after = jax.vjp(forward, params, has_aux=True)
            return (D, after), *pull_back(jnp.full_like(D, dD))

    by_hand = backprop.value_and_grad(model, loss, precision.reduce)
    differentiate = by_hand if gradient == "backprop" else by_jax

    def function(params, layers, x, labels, key, dD=1.0):
        narrow, x = cast(params, precision.compute), cast(x, precision.compute)
        value, gradients = differentiate(narrow, layers, x, labels, key, dD)
        return value, optax.tree.cast_like(gradients, params)

    return function


def make_update(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    gradient: Gradient = "manual",
    precision: Precision = FLOAT32,
    skip_nonfinite: bool = False,
) -> Update:
    """Return the step: a pure function of the state, a batch x and its labels.

    It returns the next state, and the loss before the step. The state comes from `init` with the
    same optimiser and precision. With `skip_nonfinite`, and always in float16, a step whose loss or
    gradients are not all finite is counted but not taken.
    """
    differentiate = value_and_grad(model, loss, gradient, precision)
    optimizer = optax.with_extra_args_support(optimizer)

    def update(state, x, labels):
        key = jax.random.fold_in(state.key, state.step)
        dD: Any = state.scale.factor if state.scale else 1.0
        (D, layers), gradients = differentiate(state.params, state.layers, x, labels, key, dD)
        if state.scale:
            gradients = jax.tree.map(lambda g: g / dD.astype(g.dtype), gradients)

        def take():
            with jax.numpy_dtype_promotion("standard"):  # as optax expects
                changes, after = optimizer.update(gradients, state.optimizer, state.params, value=D)
                params = optax.apply_updates(state.params, changes)
            return state._replace(params=params, layers=layers, optimizer=after)

        may_skip = skip_nonfinite or state.scale
        after = take_if_finite(take, state, (D, gradients)) if may_skip else take()
        return after._replace(step=state.step + 1), D

    return update


def make_steps(
    update: Update, placement: Placement | None = None, like: TrainState | None = None
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Compile many steps into one program, which donates its argument `state`.

    The program takes the state, x, labels and batches. Data on the device are x (n, ...), labels
    (n,) and batches (steps, batch size) of indices. Without batches (None), x (steps, batch size,
    ...) and labels (steps, batch size) are the batches. It returns the state and the loss of every
    step (steps,). With a placement, a state of the shapes of `like` stays laid out on its devices.
    """

    def steps(state, x, labels, batches):
        def body(state, batch):
            if placement is None:
                return update(state, *batch)
            return placement.step(update, state, *batch)

        def fetched(state, several):
            return jax.lax.scan(body, state, (x[several], labels[several]))

        if batches is None:
            return jax.lax.scan(body, state, (x, labels))
        count, batch_size = batches.shape
        together = _fetched_together(count, batch_size * x[0].nbytes)
        several = batches.reshape(-1, together, batch_size)
        state, losses = jax.lax.scan(fetched, state, several)
        return state, losses.reshape(count)

    layout = (placement.layout(like), placement.sharding()) if placement else None
    return jax.jit(steps, donate_argnums=0, out_shardings=layout)


def _fetched_together(steps: int, batch_bytes: int) -> int:
    """Return the number of batches to copy out of the data at once: a divisor of `steps`.

    XLA splits a copy over the machine's threads. For the copy of a single batch, starting them
    takes as long as the copy. Small batches gain little: at 8 KiB, vectors fetched together took
    7 to 14 % less time, and images of 8×8×1 took 3 to 8 % more.
    """
    if batch_bytes < SMALL_BATCH:
        return 1
    most = max(1, FETCH_BYTES // batch_bytes)
    return max(k for k in range(1, steps + 1) if steps % k == 0 and k <= most)


def order(seed: int, epoch: int, examples: int) -> jax.Array:
    """Return the order of an epoch: a permutation that depends on these numbers alone."""
    return jax.random.permutation(jax.random.fold_in(stream(seed, "order"), epoch), examples)
