"""Time one training step of a small convolutional network: fnn, Flax, Equinox, PyTorch eager.

    python benchmarks/step_small_cnn.py [--json] [--cores N ...] [--input NAME ...] [--rounds N]

The job: conv 32, relu, max_pool 2, conv 64, relu, max_pool 2, flatten, dense 128, relu, dense 10;
windows 3×3 with padding SAME, batches of 64 that are in memory (synthetic: a step's time does not
depend on the values), softmax cross-entropy, plain SGD. The variants:

    fnn step, fnn scan      `fnn.train.make_update` compiled by itself; `fnn.train.make_steps`
    autodiff step, scan     the same with JAX's derivatives of the definitions
    jax step                plain jax: lax.conv_general_dilated, reduce_window, jax.grad
    flax nnx, flax linen    a model as Flax's documentation writes it, optax.sgd, step compiled
    equinox                 a model as Equinox's documentation writes it, the same
    torch, torch last       PyTorch eager, torch.optim.SGD; memory as NCHW and as channels_last

Each variant runs in a process of its own, kept to the same cores, so that no library's threads
meet another's; one works at a time. In each round every variant takes some steps once, in a new
random order, so that a noisy moment of the machine meets them all. A time is the median over
rounds; a ratio is the median, with quartiles, of the rounds' own ratios. Above 1, fnn is faster.
A variant whose library is not installed is left out, and said so.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

INPUTS = {"28x28x1": (28, 28, 1), "32x32x3": (32, 32, 3)}
BATCH, CLASSES, RATE = 64, 10, 0.01
STEPS = 8
"""Steps a round, of some 10 ms each."""
PAUSE = 0.02
"""Seconds between two variants' turns, in which waiting threads fall asleep."""
BARS = {"torch": 1.0, "flax": 3.0, "equinox": 3.0}

Timer = Callable[[], float]
"""Takes `STEPS` steps, and returns seconds a step."""


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
OURS = ("fnn step", "fnn scan")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def work(pipe: Any, name: str, shape: tuple[int, ...], count: int) -> None:
    """Be one variant: compile, say so, and time a round whenever told to."""
    # before a library is imported and counts the cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    try:
        timer = VARIANTS[name](shape)
    except ModuleNotFoundError as error:
        pipe.send(f"{error.name} is not installed")
        return
    for _ in range(2):
        timer()
    pipe.send(None)
    while pipe.recv():
        pipe.send(timer())


@contextmanager
def workers(names: list[str], shape: tuple[int, ...], count: int) -> Any:
    """Start a process for each variant; give `{name: take a round}` and `{name: why it cannot}`."""
    context = multiprocessing.get_context("spawn")
    pipes, skipped, processes = {}, {}, []
    try:
        for name in names:
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, name, shape, count), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            reason = ours.recv()
            if reason is None:
                pipes[name] = ours
            else:
                skipped[name] = reason

        def turn(pipe):
            time.sleep(PAUSE)
            pipe.send(True)
            return pipe.recv()

        yield {name: partial(turn, pipe) for name, pipe in pipes.items()}, skipped
        for pipe in pipes.values():
            pipe.send(False)
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def interleave(timers: dict[str, Timer], rounds: int) -> dict[str, list[float]]:
    """Time every variant once a round, in random order."""
    shuffle = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name in shuffle.sample(list(timers), len(timers)):
            seconds[name].append(timers[name]())
    return seconds


def ratio(seconds: dict[str, list[float]], other: str, ours: str) -> dict[str, Any]:
    """Return median and quartiles of the rounds' ratios of times, `other` over `ours`."""
    each = [a / b for a, b in zip(seconds[other], seconds[ours], strict=True)]
    low, middle, high = statistics.quantiles(each, n=4)
    return {"other": other, "ours": ours, "median": middle, "quartiles": [low, high]}


def judge(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Compare fnn with the faster form of each peer, and with JAX's derivatives."""
    median = {name: statistics.median(times) for name, times in seconds.items()}
    found = []
    for ours in (name for name in OURS if name in seconds):
        for peer in ("torch", "flax", "equinox", "jax", "autodiff"):
            rivals = [name for name in seconds if name.startswith(peer)]
            if rivals:
                best = min(rivals, key=lambda name: median[name])
                row = ratio(seconds, best, ours)
                if peer in BARS:
                    row |= {"bar": BARS[peer], "met": row["median"] >= BARS[peer]}
                found.append(row)
    return found


def measure(name: str, count: int, rounds: int, variants: list[str]) -> dict[str, Any]:
    """Time the variants on inputs of one size, on so many cores."""
    with workers(variants, INPUTS[name], count) as (timers, skipped):
        seconds = interleave(timers, rounds)
    return {
        "input": name,
        "cores": count,
        "ms_per_step": {name: 1e3 * statistics.median(t) for name, t in seconds.items()},
        "skipped": skipped,
        "ratios": judge(seconds),
    }


def show(found: dict[str, Any]) -> None:
    """Print one job's times and ratios."""
    print(f"\nsmall_cnn, {found['input']}, batch {BATCH}, cores {found['cores']}\n")
    for name, ms in found["ms_per_step"].items():
        print(f"  {name:16}{ms:9.2f} ms a step")
    for name, reason in found["skipped"].items():
        print(f"  {name:16}left out: {reason}")
    print()
    for row in found["ratios"]:
        low, high = row["quartiles"]
        bar = f"   bar {row['bar']}: {'met' if row['met'] else 'NOT MET'}" if "bar" in row else ""
        name = f"{row['other']} / {row['ours']}"
        print(f"  {name:28}{row['median']:7.2f}  [{low:.2f}, {high:.2f}]{bar}")


def environment() -> dict[str, Any]:
    """Say what the times are of."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {"system": platform.system(), "python": platform.python_version()}
    for package in ("jax", "jaxlib", "flax", "equinox", "optax", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def main() -> None:
    """Measure every size on every number of cores, and print tables or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--cores", type=int, nargs="+", default=sorted({1, cores()}))
    parser.add_argument("--input", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()

    found: dict[str, Any] = {"environment": environment(), "jobs": []}
    if not arguments.json:
        print(", ".join(f"{k} {v}" for k, v in found["environment"].items()))
    for name in arguments.input:
        for count in arguments.cores:
            found["jobs"].append(measure(name, count, arguments.rounds, arguments.variants))
            if not arguments.json:
                show(found["jobs"][-1])
    if arguments.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
