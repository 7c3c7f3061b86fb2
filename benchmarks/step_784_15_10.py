"""Time one training step of a 784-15-10 network: fnn, plain jax, and PyTorch eager.

    python benchmarks/step_784_15_10.py [--json] [--threads N]

The job: a sigmoid hidden layer, batches of 32 out of 60,000 resident examples of MNIST's shape
(synthetic: a step's time does not depend on the values), plain SGD; once with sigmoid outputs and
squared error, once with softmax outputs and cross-entropy. The variants:

    fnn manual, autodiff, backprop   `fnn.train.make_steps` over `make_update`, three gradients
    jax                              the same scan by hand: jax.grad and `p - rate * g`
    jax + optax                      the same, with `optax.sgd`
    torch eager                      nn.Linear, torch.optim.SGD, step by step; with one thread or
                                     one a core, whichever is faster here

All run in one process, in rounds: in each round every variant is timed once, in a new random
order, so that a noisy moment of the machine meets them all. A time is the median over rounds; a
ratio is the median, with quartiles, of the rounds' own ratios. Above 1, fnn is faster.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

from rounds import Timer, cores, interleave, ratio, show_ratios

EXAMPLES, INPUTS, HIDDEN, CLASSES, BATCH = 60_000, 784, 15, 10, 32
RATE = 0.1
STEPS = 128
"""Steps in one compiled call, of some 50 µs each: long to time, short to be interrupted in."""
TORCH_STEPS = 16
ROUNDS = 201
BAR_JAX, BAR_TORCH = 0.95, 5.0

Output = Literal["sigmoid", "softmax"]


def synthetic() -> tuple[Any, Any, Any]:
    """Draw x (n, 784), labels (n,), and an order of examples cut into batches (steps, 32)."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.random((EXAMPLES, INPUTS), dtype=np.float32)
    labels = rng.integers(CLASSES, size=EXAMPLES, dtype=np.int32)
    batches = rng.permutation(EXAMPLES)[: STEPS * BATCH].reshape(STEPS, BATCH).astype(np.int32)
    return x, labels, batches


def scan_timer(steps: Callable[..., Any], state: Any, *data: Any) -> Timer:
    """Time a compiled scan of steps, which donates its state, after one call to compile it."""
    import jax

    def timer():
        nonlocal state
        start = time.perf_counter()
        state, loss = steps(state, *data)
        loss.block_until_ready()
        return (time.perf_counter() - start) / STEPS

    state = jax.tree.map(lambda a: a.copy(), state)
    timer()
    return timer


def fnn_timers(output: Output, data: tuple[Any, ...]) -> dict[str, Timer]:
    """The engine, with each of its three ways to a gradient."""
    import optax

    from fnn import ops
    from fnn.layers import Activation, Dense, Flatten, Serial
    from fnn.loss import LOSSES
    from fnn.train import init, make_steps, make_update

    layers = [Flatten(), Dense(HIDDEN), Activation(ops.sigmoid), Dense(CLASSES)]
    if output == "sigmoid":
        model, loss = Serial([*layers, Activation(ops.sigmoid)]), LOSSES["squared_error"]()
    else:
        model, loss = Serial(layers), LOSSES["softmax_cross_entropy"]()
    optimizer = optax.sgd(RATE)
    state = init(model, optimizer, (BATCH, INPUTS), seed=0)
    return {
        f"fnn {gradient}": scan_timer(
            make_steps(make_update(model, loss, optimizer, gradient)), state, *data
        )
        for gradient in ("manual", "autodiff", "backprop")
    }


def jax_timers(output: Output, data: tuple[Any, ...]) -> dict[str, Timer]:
    """What one writes without fnn: a loss, jax.grad, a scan."""
    import jax
    import jax.numpy as jnp
    import optax

    def loss(params, x, labels):
        (w1, b1), (w2, b2) = params
        z = jax.nn.sigmoid(x @ w1 + b1) @ w2 + b2
        target = jax.nn.one_hot(labels, CLASSES)
        if output == "sigmoid":
            return jnp.sum((jax.nn.sigmoid(z) - target) ** 2) / (2 * BATCH)
        return -jnp.sum(target * jax.nn.log_softmax(z)) / BATCH

    def sgd_step(params, x, labels):
        D, gradients = jax.value_and_grad(loss)(params, x, labels)
        return jax.tree.map(lambda p, g: p - RATE * g, params, gradients), D

    optimizer = optax.sgd(RATE)

    def optax_step(state, x, labels):
        params, inner = state
        D, gradients = jax.value_and_grad(loss)(params, x, labels)
        changes, inner = optimizer.update(gradients, inner, params)
        return (optax.apply_updates(params, changes), inner), D

    def scanned(step):
        @partial(jax.jit, donate_argnums=0)
        def steps(state, x, labels, batches):
            state, losses = jax.lax.scan(lambda s, b: step(s, x[b], labels[b]), state, batches)
            return state, losses.mean()

        return steps

    k1, k2 = jax.random.split(jax.random.key(0))
    glorot = jax.nn.initializers.glorot_uniform()
    params = (
        (glorot(k1, (INPUTS, HIDDEN)), jnp.zeros(HIDDEN)),
        (glorot(k2, (HIDDEN, CLASSES)), jnp.zeros(CLASSES)),
    )
    return {
        "jax": scan_timer(scanned(sgd_step), params, *data),
        "jax + optax": scan_timer(scanned(optax_step), (params, optimizer.init(params)), *data),
    }


def torch_timers(output: Output, x: Any, labels: Any, batches: Any) -> dict[str, Timer]:
    """PyTorch eager, at its best; targets are one-hot beforehand where the loss wants them so."""
    import torch
    from torch import nn

    layers = [nn.Linear(INPUTS, HIDDEN), nn.Sigmoid(), nn.Linear(HIDDEN, CLASSES)]
    x, target = torch.from_numpy(x), torch.from_numpy(labels).long()
    loss: Callable[..., Any] = nn.functional.cross_entropy
    if output == "sigmoid":
        layers.append(nn.Sigmoid())
        target = nn.functional.one_hot(target, CLASSES).float()
        loss = lambda y, d: ((y - d) ** 2).sum() / (2 * BATCH)  # noqa: E731
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    chosen = [torch.from_numpy(b).long() for b in batches[:TORCH_STEPS]]

    def timer(threads):
        torch.set_num_threads(threads)
        start = time.perf_counter()
        for batch in chosen:
            optimizer.zero_grad()
            loss(model(x[batch]), target[batch]).backward()
            optimizer.step()
        return (time.perf_counter() - start) / TORCH_STEPS

    timers = {n: partial(timer, n) for n in {1, cores()}}
    trial = {n: statistics.median(t() for _ in range(9)) for n, t in timers.items()}
    best = min(trial, key=trial.__getitem__)
    return {f"torch eager, {best} thread{'s' * (best > 1)}": timers[best]}


def judge(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Compare the engine with the fastest plain loop, with torch, and with its other gradients."""
    median = {name: statistics.median(times) for name, times in seconds.items()}
    rows = []
    for peer, bar in (("jax", BAR_JAX), ("torch", BAR_TORCH)):
        rivals = [name for name in seconds if name.startswith(peer)]
        if rivals:
            best = min(rivals, key=lambda name: median[name])
            row = ratio(seconds, best, "fnn manual")
            rows.append({**row, "bar": bar, "met": row["median"] >= bar})
    rows += [ratio(seconds, f"fnn {g}", "fnn manual") for g in ("autodiff", "backprop")]
    return rows


def environment() -> dict[str, Any]:
    """Say what the times are of."""
    from fnn.runs.folder import environment

    names = ("device", "python", "jax", "jaxlib", "optax", "numpy")
    versions = {name: value for name, value in environment(0).items() if name in names}
    return versions | {"system": platform.system(), "cores": cores()}


def measure(output: Output, with_torch: bool) -> dict[str, Any]:
    """Time every variant of the job with this output."""
    import jax.numpy as jnp

    x, labels, batches = synthetic()
    data = tuple(jnp.asarray(a) for a in (x, labels, batches))
    timers = fnn_timers(output, data) | jax_timers(output, data)
    if with_torch:
        timers |= torch_timers(output, x, labels, batches)
    seconds = interleave(timers, ROUNDS)
    return {
        "output": output,
        "us_per_step": {name: 1e6 * statistics.median(t) for name, t in seconds.items()},
        "ratios": judge(seconds),
    }


def show(job: dict[str, Any]) -> None:
    """Print one job's times and ratios."""
    print(f"\n784-15-10, sigmoid hidden, {job['output']} out, batch {BATCH}\n")
    for name, us in job["us_per_step"].items():
        print(f"  {name:24}{us:9.1f} µs a step")
    print()
    show_ratios(job["ratios"], 40, 3)


def torch_version() -> str | None:
    """Return torch's version, or None where it is not installed."""
    try:
        return version("torch")
    except ModuleNotFoundError:
        return None


def main() -> None:
    """Measure both outputs, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--threads", type=int, help="cores to use; all by default")
    arguments = parser.parse_args()
    if arguments.threads:  # before jax and torch are imported and count the cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])

    torch = torch_version()
    results: dict[str, Any] = {"environment": environment() | {"torch": torch}}
    if not arguments.json:
        print(", ".join(f"{k} {v}" for k, v in results["environment"].items()))
        if torch is None:
            print("torch is not installed: its variants are skipped")
    results["jobs"] = []
    for output in ("sigmoid", "softmax"):
        results["jobs"].append(measure(output, torch is not None))
        if not arguments.json:
            show(results["jobs"][-1])
    if arguments.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
