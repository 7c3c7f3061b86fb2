"""The small convolutional network and its training step, as each library writes them.

`VARIANTS` maps names to functions of one input's shape, which compile the step and return a timer.
Every library is imported where it is used, since a process runs one variant alone.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rounds import Timer, cores

BATCH, CLASSES, RATE = 64, 10, 0.01
STEPS = 8
"""Steps a round, of some 10 ms each."""


def synthetic(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Draw x (steps, batch, *shape) and labels (steps, batch)."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.random((STEPS, BATCH, *shape), dtype=np.float32)
    return x, rng.integers(CLASSES, size=(STEPS, BATCH), dtype=np.int32)


def on_device(shape: tuple[int, ...], channels_first: bool = False) -> list[tuple[Any, Any]]:
    """Return the batches as jax has them."""
    import jax.numpy as jnp

    x, labels = synthetic(shape)
    x = x.transpose(0, 1, 4, 2, 3) if channels_first else x
    return [(jnp.asarray(a), jnp.asarray(b)) for a, b in zip(x, labels, strict=True)]


def stepper(step: Callable[..., Any], state: Any, batches: list[tuple[Any, Any]]) -> Timer:
    """Time a compiled `step(state, x, labels)`, which returns the next state and the loss."""
    import jax

    def timer():
        nonlocal state
        start = time.perf_counter()
        for x, labels in batches:
            state, loss = step(state, x, labels)
        jax.block_until_ready((state, loss))
        return (time.perf_counter() - start) / len(batches)

    return timer


def fnn(shape: tuple[int, ...], gradient: Any, scan: bool) -> Timer:
    """fnn's engine: step by step, or all steps in one program."""
    import jax
    import jax.numpy as jnp
    import optax

    from fnn import ops
    from fnn.layers import Activation, Conv, Dense, Flatten, MaxPool, Serial
    from fnn.loss import LOSSES
    from fnn.train import init, make_steps, make_update

    relu = Activation(ops.relu)
    blocks = [[Conv(n, 3, padding="SAME"), relu, MaxPool(2)] for n in (32, 64)]
    model = Serial([*blocks[0], *blocks[1], Flatten(), Dense(128), relu, Dense(CLASSES)])
    optimizer = optax.sgd(RATE)
    state = init(model, optimizer, (BATCH, *shape), seed=0)
    update = make_update(model, LOSSES["softmax_cross_entropy"](), optimizer, gradient)
    if not scan:
        return stepper(jax.jit(update, donate_argnums=0), state, on_device(shape))
    x, labels = (jnp.asarray(a.reshape(-1, *a.shape[2:])) for a in synthetic(shape))
    steps, batches = make_steps(update), jnp.arange(len(x)).reshape(STEPS, BATCH)

    def timer():
        nonlocal state
        start = time.perf_counter()
        state, loss = steps(state, x, labels, batches)
        jax.block_until_ready((state, loss))
        return (time.perf_counter() - start) / STEPS

    return timer


def plain_jax(shape: tuple[int, ...]) -> Timer:
    """What one writes without fnn."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def block(x, w, b):
        x = lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + b)
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def loss(params, x, labels):
        first, second, (w3, b3), (w4, b4) = params
        x = block(block(x, *first), *second).reshape(BATCH, -1)
        z = jax.nn.relu(x @ w3 + b3) @ w4 + b4
        return -jnp.mean(jnp.sum(jax.nn.one_hot(labels, CLASSES) * jax.nn.log_softmax(z), -1))

    @partial(jax.jit, donate_argnums=0)
    def step(params, x, labels):
        D, gradients = jax.value_and_grad(loss)(params, x, labels)
        return jax.tree.map(lambda p, g: p - RATE * g, params, gradients), D

    *space, channels = shape
    flat = space[0] // 4 * (space[1] // 4) * 64
    shapes = [(3, 3, channels, 32), (3, 3, 32, 64), (flat, 128), (128, CLASSES)]
    draw = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(jax.random.key(0), len(shapes))
    params = [(draw(k, s), jnp.zeros(s[-1])) for k, s in zip(keys, shapes, strict=True)]
    return stepper(step, params, on_device(shape))


def flax_nnx(shape: tuple[int, ...]) -> Timer:
    """Flax's present interface."""
    import optax
    from flax import nnx

    class CNN(nnx.Module):
        def __init__(self, *, rngs):
            *space, channels = shape
            self.conv1 = nnx.Conv(channels, 32, kernel_size=(3, 3), rngs=rngs)
            self.conv2 = nnx.Conv(32, 64, kernel_size=(3, 3), rngs=rngs)
            self.pool = partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))
            self.linear1 = nnx.Linear(space[0] // 4 * (space[1] // 4) * 64, 128, rngs=rngs)
            self.linear2 = nnx.Linear(128, CLASSES, rngs=rngs)

        def __call__(self, x):
            x = self.pool(nnx.relu(self.conv1(x)))
            x = self.pool(nnx.relu(self.conv2(x)))
            x = nnx.relu(self.linear1(x.reshape(x.shape[0], -1)))
            return self.linear2(x)

    def loss_fn(model, x, labels):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), labels).mean()

    @nnx.jit
    def train_step(model, optimizer, x, labels):
        loss, grads = nnx.value_and_grad(loss_fn)(model, x, labels)
        optimizer.update(model, grads)
        return loss

    model = CNN(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(RATE), wrt=nnx.Param)

    def step(state, x, labels):
        return state, train_step(model, optimizer, x, labels)

    return stepper(step, None, on_device(shape))


def flax_linen(shape: tuple[int, ...]) -> Timer:
    """Flax's older interface."""
    import jax
    import optax
    from flax import linen as nn
    from flax.training.train_state import TrainState

    class CNN(nn.Module):
        @nn.compact
        def __call__(self, x):
            for features in (32, 64):
                x = nn.relu(nn.Conv(features, kernel_size=(3, 3))(x))
                x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
            x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
            return nn.Dense(CLASSES)(x)

    @jax.jit
    def step(state, x, labels):
        def loss_fn(params):
            logits = state.apply_fn({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    batches, model = on_device(shape), CNN()
    params = model.init(jax.random.key(0), batches[0][0])["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.sgd(RATE))
    return stepper(step, state, batches)


def equinox(shape: tuple[int, ...]) -> Timer:
    """Equinox: one example without a batch axis, channels first; jax.vmap over the batch."""
    import equinox as eqx
    import jax
    import optax

    *space, channels = shape
    keys = jax.random.split(jax.random.key(0), 4)
    model = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(channels, 32, kernel_size=3, padding="SAME", key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.MaxPool2d(kernel_size=2, stride=2),
            eqx.nn.Conv2d(32, 64, kernel_size=3, padding="SAME", key=keys[1]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.MaxPool2d(kernel_size=2, stride=2),
            eqx.nn.Lambda(jax.numpy.ravel),
            eqx.nn.Linear(space[0] // 4 * (space[1] // 4) * 64, 128, key=keys[2]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Linear(128, CLASSES, key=keys[3]),
        ]
    )
    optim = optax.sgd(RATE)

    def loss_fn(model, x, labels):
        logits = jax.vmap(model)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @eqx.filter_jit
    def step(state, x, labels):
        model, opt_state = state
        loss, grads = eqx.filter_value_and_grad(loss_fn)(model, x, labels)
        updates, opt_state = optim.update(grads, opt_state, eqx.filter(model, eqx.is_array))
        return (eqx.apply_updates(model, updates), opt_state), loss

    state = (model, optim.init(eqx.filter(model, eqx.is_array)))
    return stepper(step, state, on_device(shape, channels_first=True))


def torch_eager(shape: tuple[int, ...], channels_last: bool) -> Timer:
    """PyTorch eager, on as many threads as there are cores."""
    import torch
    from torch import nn

    torch.set_num_threads(cores())
    memory = torch.channels_last if channels_last else torch.contiguous_format
    *space, channels = shape
    model = nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(space[0] // 4 * (space[1] // 4) * 64, 128), nn.ReLU()),
        nn.Linear(128, CLASSES),
    ).to(memory_format=memory)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    x, labels = map(torch.from_numpy, synthetic(shape))
    batches = [
        (a.permute(0, 3, 1, 2).contiguous(memory_format=memory), b.long())
        for a, b in zip(x, labels, strict=True)
    ]

    def timer():
        start = time.perf_counter()
        for a, b in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(a), b).backward()
            optimizer.step()
        return (time.perf_counter() - start) / len(batches)

    return timer


VARIANTS: dict[str, Callable[[tuple[int, ...]], Timer]] = {
    "fnn step": partial(fnn, gradient="manual", scan=False),
    "fnn scan": partial(fnn, gradient="manual", scan=True),
    "autodiff step": partial(fnn, gradient="autodiff", scan=False),
    "autodiff scan": partial(fnn, gradient="autodiff", scan=True),
    "jax step": plain_jax,
    "flax nnx": flax_nnx,
    "flax linen": flax_linen,
    "equinox": equinox,
    "torch": partial(torch_eager, channels_last=False),
    "torch last": partial(torch_eager, channels_last=True),
}
