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
the name of what it is the gradient of. An array that is read twice, as the input of a residual
block is, gets the sum of both gradients. All are functions of arrays: `jax.jit` compiles them.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .custom_op import Op, Saved
from .layers import Layer, OpLayer, graph, own_key
from .loss import Loss

Arrays = dict[str, jax.Array]
Path = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One call on the tape: the op, and what its arguments and its output are called."""

    op: Op
    statics: tuple[tuple[str, Any], ...]
    arguments: tuple[str | None, ...]  # None for what is neither an input nor a parameter
    output: str


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["saved", "constants", "state"],
    meta_fields=["steps", "parameters"],
)
@dataclass(frozen=True)
class Tape:
    """What the forward pass keeps for the backward pass: an op's residuals for each step."""

    steps: tuple[Step, ...]
    saved: tuple[Saved, ...]
    constants: tuple[tuple[jax.Array, ...], ...]  # cotangents, 0, of what an op returns beside y
    state: Any  # the layers' next
    parameters: tuple[tuple[Path, str], ...]  # the place of each, and what it is called


def forward(
    model: Layer,
    params: Any,
    state: Any,
    x: jax.Array,
    *,
    key: jax.Array | None = None,
    train: bool = False,
) -> tuple[Arrays, Tape]:
    """Run the model on x (batch, ...); return every array by name, and the tape.

    Raises TypeError for a layer that is not one call of an op.
    """
    values, names = {"x": x}, ["x"]
    steps, residuals, constants, parameters = [], [], [], []
    after: dict[str, Any] = {}
    k = plain = 0
    for path, layer, inputs in graph(model):
        if not isinstance(layer, OpLayer):
            raise TypeError(f"backprop: {layer.name} is not an OpLayer, one call of an op")
        own = _at(params, path)
        k, plain = (k + 1, 0) if own else (k, plain + 1)
        y = f"z{k}" if own else f"y{k}" if plain == 1 else f"y{k}_{plain}"
        labels = {name: f"{name}{k}" for name in own}
        values |= {labels[name]: own[name] for name in own}
        parameters += [((*path, name), labels[name]) for name in own]

        sources = [names[i] for i in inputs]
        layer_key = functools.reduce(own_key, path, key)
        call = layer.call(
            own, _at(state, path), values[sources[0]].shape, key=layer_key, train=train
        )
        outputs, saved = call.op.fwd(*map(values.get, sources), **call.arrays, **call.statics)
        values[y], next_state = call.finish(outputs)
        if next_state:
            _put(after, path, next_state)

        rest = call.op.arguments[len(sources) :]
        steps.append(
            Step(call.op, tuple(call.statics.items()), (*sources, *map(labels.get, rest)), y)
        )
        residuals.append(saved)
        others = outputs[1:] if isinstance(outputs, tuple) else ()
        constants.append(tuple(map(jnp.zeros_like, others)))
        names.append(y)
    values |= {f"y{k}": values[f"z{k}"] for k in _without_activation(values)}
    return values, Tape(tuple(steps), tuple(residuals), tuple(constants), after, tuple(parameters))


def backward(tape: Tape, dy: jax.Array) -> Arrays:
    """Return ∂D/∂v for every array v of the forward pass, given ∂D/∂y of the model's output."""
    gradients = {_output(tape): dy}
    for i in reversed(range(len(tape.steps))):
        step, constants = tape.steps[i], tape.constants[i]
        dy = gradients[step.output]
        cotangents = step.op.bwd(
            tape.saved[i], (dy, *constants) if constants else dy, **dict(step.statics)
        )
        for name, cotangent in zip(step.arguments, cotangents, strict=True):
            if name is not None and cotangent is not None:
                sum_so_far = gradients.get(name)
                gradients[name] = cotangent if sum_so_far is None else sum_so_far + cotangent
    return gradients | {f"y{k}": gradients[f"z{k}"] for k in _without_activation(gradients)}


def parameter_gradients(tape: Tape, gradients: Arrays) -> Any:
    """Arrange the parameters' gradients as the parameters are: a tree for an optimiser."""
    tree: dict[str, Any] = {}
    for path, name in tape.parameters:
        _put(tree, path, gradients[name])
    return tree


def value_and_grad(
    model: Layer, loss: Loss, reduce: str | None = None
) -> Callable[..., tuple[tuple[jax.Array, Any], Any]]:
    """Return a function of `params, state, x, labels, key, dD`, for a step of training.

    It returns `(D, state), gradients`, with gradients shaped as params, and `dD` times as large.
    The loss is computed in the dtype `reduce`, or in that of the model's output.
    """

    def function(params, state, x, labels, key=None, dD=1.0):
        values, tape = forward(model, params, state, x, key=key, train=True)
        y = values[_output(tape)]
        D, saved = loss.fwd(y.astype(reduce or y.dtype), labels)
        gradients = backward(tape, loss.bwd(saved, dD).astype(y.dtype))
        return (D, tape.state), parameter_gradients(tape, gradients)

    return function


def _output(tape: Tape) -> str:
    return tape.steps[-1].output if tape.steps else "x"


def _at(tree: Any, path: Path) -> dict[str, Any]:
    """The dict at `path`, empty where a layer has none."""
    return functools.reduce(lambda node, key: node.get(key, {}), path, tree)


def _put(tree: dict[str, Any], path: Path, value: Any) -> None:
    functools.reduce(lambda node, key: node.setdefault(key, {}), path[:-1], tree)[path[-1]] = value


def _without_activation(arrays: Arrays) -> list[int]:
    """The k whose zₖ is used as it is, so that yₖ = zₖ."""
    numbers = (int(name[1:]) for name in arrays if name[0] == "z")
    return [k for k in numbers if f"y{k}" not in arrays]
