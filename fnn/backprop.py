"""Backpropagation written out: no jax.grad, and every derivative kept.

The forward pass goes through the layers and stores every zₖ and yₖ,

    y₀ = x (flattened),   zₖ = yₖ₋₁ Wₖ + bₖ,   yₖ = fₖ(zₖ),   D = div(y_K, d)

and the backward pass goes through them in reverse, each step one op's backward rule:

    ∂D/∂y_K = ∇div,   ∂D/∂zₖ = fₖ'(zₖ)ᵀ ∂D/∂yₖ,
    ∂D/∂Wₖ = yₖ₋₁ᵀ ∂D/∂zₖ,   ∂D/∂bₖ = Σ ∂D/∂zₖ,   ∂D/∂yₖ₋₁ = ∂D/∂zₖ Wₖᵀ

    values, tape = backprop.forward(model, params, state, x)
    D, saved = loss.fwd(values["y3"], labels)
    gradients = backprop.backward(tape, loss.bwd(saved))
    gradients["z2"], gradients["w1"], gradients["x"]

Names: `x` the input, `y0` what a first layer without parameters makes of it, `z1`, `w1`, `b1`
the first layer with parameters, `y1` its activation (`z1` itself where none follows), and so on;
where several layers without parameters follow each other, `y1`, `y1_2`, `y1_3`. A gradient has
the name of what it is the gradient of. All are functions of arrays, so `jax.jit` compiles them.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from .layers import Layer, OpLayer, Serial
from .loss import Loss
from .op import Saved

Arrays = dict[str, jax.Array]


@dataclass(frozen=True)
class Step:
    """One layer on the tape: what it is, where its parameters are, what its arrays are called."""

    layer: OpLayer
    path: tuple[str, ...]
    x: str
    y: str
    k: int


@functools.partial(jax.tree_util.register_dataclass, data_fields=["saved"], meta_fields=["steps"])
@dataclass(frozen=True)
class Tape:
    """What the forward pass keeps for the backward pass: an op's residuals for each step."""

    steps: tuple[Step, ...]
    saved: tuple[Saved, ...]


def forward(model: Layer, params: Any, state: Any, x: jax.Array) -> tuple[Arrays, Tape]:
    """Run the model on x (batch, ...); return every array by name, and the tape.

    Raises TypeError for a layer that is not one call of an op.
    """
    values, saved = {"x": x}, []
    steps = tuple(_steps(model))
    for step in steps:
        own = _at(params, step.path)
        values |= {f"{name}{step.k}": value for name, value in own.items()}
        y, kept = step.layer.op.fwd(
            values[step.x], **own, **_at(state, step.path), **step.layer.statics
        )
        values[step.y] = y
        saved.append(kept)
    values |= {f"y{k}": values[f"z{k}"] for k in _without_activation(steps)}
    return values, Tape(steps, tuple(saved))


def backward(tape: Tape, dy: jax.Array) -> Arrays:
    """Return ∂D/∂v for every array v of the forward pass, given ∂D/∂y of the model's output."""
    gradients = {tape.steps[-1].y if tape.steps else "x": dy}
    for step, saved in zip(reversed(tape.steps), reversed(tape.saved), strict=True):
        op = step.layer.op
        cotangents = op.bwd(saved, gradients[step.y], **step.layer.statics)
        for name, cotangent in zip(op.arguments, cotangents, strict=True):
            if cotangent is not None:
                gradients[step.x if name == op.arguments[0] else f"{name}{step.k}"] = cotangent
    gradients |= {f"y{k}": gradients[f"z{k}"] for k in _without_activation(tape.steps)}
    return gradients


def parameter_gradients(tape: Tape, gradients: Arrays, params: Any) -> Any:
    """Arrange the parameters' gradients as the parameters are: a tree for an optimiser."""
    tree: dict[str, Any] = {}
    for step in tape.steps:
        names = _at(params, step.path)
        if names:
            node = functools.reduce(lambda t, key: t.setdefault(key, {}), step.path, tree)
            node |= {name: gradients[f"{name}{step.k}"] for name in names}
    return tree


def value_and_grad(model: Layer, loss: Loss) -> Callable[..., tuple[tuple[jax.Array, Any], Any]]:
    """Return a function of `params, state, x, labels` as `jax.value_and_grad` would make it.

    It returns `(D, state), gradients`, with gradients shaped as params.
    """

    def function(params, state, x, labels):
        values, tape = forward(model, params, state, x)
        D, saved = loss.fwd(values[tape.steps[-1].y], labels)
        gradients = backward(tape, loss.bwd(saved))
        return (D, state), parameter_gradients(tape, gradients, params)

    return function


def _steps(model: Layer) -> Iterator[Step]:
    """Name what each layer reads and writes."""
    x, k, plain = "x", 0, 0
    for path, layer in leaves(model):
        if not isinstance(layer, OpLayer):
            raise TypeError(f"backprop: {layer.name} is not an OpLayer, one call of an op")
        if layer.op.arguments[1:]:
            k, plain, y = k + 1, 0, f"z{k + 1}"
        else:
            plain += 1
            y = f"y{k}" if plain == 1 else f"y{k}_{plain}"
        yield Step(layer, path, x, y, k)
        x = y


def leaves(model: Layer, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Layer]]:
    """Yield every layer that holds no others, with its path in the parameters."""
    if not isinstance(model, Serial):
        yield path, model
        return
    for key, layer in model.keyed():
        yield from leaves(layer, (*path, key))


def _at(tree: Any, path: tuple[str, ...]) -> dict[str, Any]:
    """The dict at `path`, empty where a layer has none."""
    return functools.reduce(lambda node, key: node.get(key, {}), path, tree)


def _without_activation(steps: tuple[Step, ...]) -> list[int]:
    """The k whose zₖ is used as it is, so that yₖ = zₖ."""
    written = {step.y for step in steps}
    return [step.k for step in steps if step.y == f"z{step.k}" and f"y{step.k}" not in written]
