"""Activations: one number in, one number out, so the Jacobian is diagonal.

Every backward rule here is x̄ = f'(x) ȳ. Where f' is a function of y, the rule saves y: the
next layer saves the same array as its input, so it costs no memory of its own.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from ..custom_op import op
from ..example import Example, example, normal, values


def _examples(**statics) -> tuple[Example, ...]:
    """Ordinary numbers; sizes 0, 1 and scalar; tails; the kink at 0 from all sides; a large one."""
    large = () if statics else (example(x=normal(1024, 1024), tags={"bench"}),)
    tails = values(-1e4, -88.0, -30.0, -1e-4, 1e-4, 30.0, 88.0, 1e4)
    return (
        example(x=normal(4, 3), **statics),
        example(x=normal(2, 1, 5, scale=4.0), **statics),
        example(x=normal(), **statics),
        example(x=normal(1), **statics),
        example(x=normal(0, 3), **statics),
        example(x=tails, tags={"extreme"}, **statics),
        example(x=values(-1.0, -0.0, 0.0, 1.0), tags={"kink"}, **statics),
        *large,
    )


@op(examples=_examples(), reference=lambda x: x, source="the linear unit")
def identity(x):
    """Leave x as it is: the activation of a layer that has none.

        y = x,   x̄ = ȳ

    Shapes: x (...) -> y (...). Saves nothing.
    """
    return jnp.positive(x)


@identity.def_fwd
def identity_fwd(x):
    return x, None


@identity.def_bwd
def identity_bwd(residuals, dy):
    del residuals
    return dy


@op(
    reference=jax.nn.sigmoid,
    examples=_examples(),
    source="Rumelhart, Hinton & Williams 1986, doi:10.1038/323533a0",
)
def sigmoid(x):
    """Squash to (0, 1) by the logistic function.

        y = σ(x) = 1 / (1 + e⁻ˣ),   x̄ = y (1 - y) ȳ

    Shapes: x (...) -> y (...). Saves y. Exact at 0 and 1 where it saturates, never NaN.
    """
    return jnp.exp(-jnp.logaddexp(0.0, -x))


@sigmoid.def_fwd
def sigmoid_fwd(x):
    y = jax.lax.logistic(x)
    return y, y


@sigmoid.def_bwd
def sigmoid_bwd(y, dy):
    return y * (1 - y) * dy


@op(
    reference=lambda x: 2 * jax.nn.sigmoid(2 * x) - 1,
    examples=_examples(),
    source="LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, section 4.4",
)
def tanh(x):
    """Squash to (-1, 1) by the hyperbolic tangent.

        y = tanh(x) = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ),   x̄ = (1 - y²) ȳ

    Shapes: x (...) -> y (...). Saves y.
    """
    return jnp.tanh(x)


@tanh.def_fwd
def tanh_fwd(x):
    y = jnp.tanh(x)
    return y, y


@tanh.def_bwd
def tanh_bwd(y, dy):
    return (1 - y) * (1 + y) * dy


@op(
    reference=lambda x, *, subgradient_at_zero: jax.nn.relu(x),
    examples=(*_examples(), *_examples(subgradient_at_zero=0.5)),
    source="Nair & Hinton 2010, ICML",
)
def relu(x, *, subgradient_at_zero: float = 0.0):
    """Pass what is positive, stop the rest.

        y = max(x, 0),   x̄ = ȳ where x > 0,  s ȳ where x = 0,  0 elsewhere

    At the kink every s in [0, 1] is a subgradient; `subgradient_at_zero` states which.
    Where x is NaN, so is y, and x̄ = ȳ.
    Shapes: x (...) -> y (...). Saves y, or x where s is not 0 (y cannot tell 0 from below 0).
    """
    at_most_zero = jnp.where(x == 0, subgradient_at_zero * x, 0)
    return jnp.where(x <= 0, at_most_zero, x)


@relu.def_fwd
def relu_fwd(x, *, subgradient_at_zero):
    y = jnp.maximum(x, 0)
    return y, x if subgradient_at_zero else y


@relu.def_bwd
def relu_bwd(x_or_y, dy, *, subgradient_at_zero):
    dx = jnp.where(x_or_y <= 0, 0, dy)
    if subgradient_at_zero:
        dx = jnp.where(x_or_y == 0, subgradient_at_zero * dy, dx)
    return dx


@op(
    reference=lambda x, *, negative_slope: jax.nn.leaky_relu(x, negative_slope),
    examples=(
        *_examples(),
        *_examples(negative_slope=0.3),
        example(x=normal(4, 3), negative_slope=0.0),
        example(x=normal(4, 3), negative_slope=-0.5),
    ),
    source="Maas, Hannun & Ng 2013, ICML",
)
def leaky_relu(x, *, negative_slope: float = 0.01):
    """Pass what is positive, and a little of the rest, so that no unit dies.

        y = x where x > 0, a x elsewhere,   x̄ = ȳ where x > 0, a ȳ elsewhere

    At 0 the derivative is the negative side's, a = `negative_slope`.
    Shapes: x (...) -> y (...). Saves y, whose sign is x's, or x where a is not positive.
    """
    return jnp.where(x > 0, x, negative_slope * x)


@leaky_relu.def_fwd
def leaky_relu_fwd(x, *, negative_slope):
    y = jnp.where(x > 0, x, negative_slope * x)
    return y, y if negative_slope > 0 else x


@leaky_relu.def_bwd
def leaky_relu_bwd(x_or_y, dy, *, negative_slope):
    return jnp.where(x_or_y > 0, dy, negative_slope * dy)


@op(
    reference=jax.nn.softplus,
    examples=_examples(),
    source="Dugas, Bengio, Bélisle, Nadeau & Garcia 2000, NIPS",
)
def softplus(x):
    """Be a smooth relu.

        y = log(1 + eˣ),   x̄ = σ(x) ȳ = (1 - e⁻ʸ) ȳ

    Shapes: x (...) -> y (...). Saves y: 1 - e⁻ʸ is σ(x) to rounding, in both tails.
    """
    return jnp.logaddexp(x, 0.0)


@softplus.def_fwd
def softplus_fwd(x):
    # max(x, 0) and |x| written with where: as they have it, JAX's derivative of y at 0 would be 0.
    positive = x > 0
    y = jnp.where(positive, x, 0) + jnp.log1p(jnp.exp(jnp.where(positive, -x, x)))
    return y, y


@softplus.def_bwd
def softplus_bwd(y, dy):
    t = jnp.tanh(y / 2)  # 1 - e⁻ʸ = 2t / (1 + t); XLA's expm1 takes twice as long
    return 2 * t / (1 + t) * dy


@op(
    reference=lambda x, *, gradient: jnp.heaviside(x, 1.0),
    examples=(*_examples(gradient="zero"), *_examples()),
    source="Rosenblatt 1958; straight-through: Bengio, Léonard & Courville 2013, arXiv:1308.3432",
)
def step(x, *, gradient: Literal["zero", "straight_through"] = "straight_through"):
    """Fire or not: the hard threshold of the perceptron.

        y = 1 where x ≥ 0, 0 where x < 0, NaN where x is NaN

    The derivative is 0 wherever there is one, so nothing upstream can learn through it. The
    backward rule is therefore a choice: `"zero"` is the true derivative, x̄ = 0;
    `"straight_through"` lets the cotangent pass as if y were x, x̄ = ȳ.
    Shapes: x (...) -> y (...), of x's dtype. Saves nothing.
    """
    y = jnp.where(x >= 0, jnp.ones_like(x), jnp.where(x < 0, 0, jnp.nan))
    return y if gradient == "zero" else y + (x - jax.lax.stop_gradient(x))


@step.def_fwd
def step_fwd(x, *, gradient):
    if gradient not in ("zero", "straight_through"):
        raise ValueError(f"step: gradient must be 'zero' or 'straight_through', got {gradient!r}")
    return jnp.where(x >= 0, 1, jnp.where(x < 0, 0, x)), None


@step.def_bwd
def step_bwd(residuals, dy, *, gradient):
    del residuals
    return dy if gradient == "straight_through" else jnp.zeros_like(dy)
