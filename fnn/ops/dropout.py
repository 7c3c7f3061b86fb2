"""Dropout: parts of x are left out at random while a network is trained.

What is left out is drawn from a key. The backward rules draw it again, so a key is all that is
kept. Under jit, XLA draws once for both passes if there is memory to keep the drawing.
"""

import jax
import jax.numpy as jnp

from ..errors import ShapeError
from ..example import example, key, normal, values
from ..op import op
from .moments import wide

# The negative saturation -λα of the activation selu, by which alpha dropout replaces numbers.
_SATURATION = -1.7580993408473766


def _check(name, rate):
    if not 0 <= rate < 1:
        raise ValueError(f"{name}: rate must be at least 0 and below 1, got {rate!r}")


def _kept(key, rate, shape):
    """Draw for each place whether it is kept, with probability 1 - `rate` to within 2⁻³².

    Bits are compared with an integer: uniform numbers would differ where 64-bit types are on.
    """
    return jax.random.bits(key, shape, jnp.uint32) >= jnp.uint32(int(rate * 2**32))


def _thinned(x, key, rate, shape):
    """x/(1 - rate) where it is kept, 0 elsewhere; `shape` is that of the drawing."""
    if rate == 0:
        return x
    grown = (wide(x) * (1 / (1 - rate))).astype(x.dtype)
    return jnp.where(_kept(key, rate, shape), grown, 0)


def _channels(name, x):
    """The shape with one number for each example's channel."""
    if x.ndim < 2:
        raise ShapeError(f"{name}: expects (batch, ..., channels), got {x.shape}")
    return (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])


def _examples_of(name, x):
    """The shape with one number for each example."""
    if x.ndim < 1:
        raise ShapeError(f"{name}: expects (batch, ...), got {x.shape}")
    return (x.shape[0], *(1,) * (x.ndim - 1))


def _examples(*shapes):
    """Shapes, sizes 0 and 1, rates from 0 up, tails."""
    return (
        *(example(x=normal(*shape), key=key(), rate=0.4) for shape in shapes),
        example(x=normal(*shapes[0]), key=key(), rate=0.0),
        example(x=normal(*shapes[0]), key=key(), rate=0.96875),
        example(x=normal(*(1 for _ in shapes[0])), key=key(), rate=0.25),
        example(x=normal(0, *shapes[0][1:]), key=key(), rate=0.25),
        example(x=values([[1e4, -1e4, 0.0, 1e-30]] * 3), key=key(), rate=0.5, tags={"extreme"}),
        example(x=normal(32, 28, 28, 64), key=key(), rate=0.5, tags={"bench"}),
    )


@op(
    examples=_examples((5, 7), (2, 3, 4), (11,), ()),
    source="Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov 2014, JMLR 15",
)
def dropout(x, key, *, rate: float):
    """Set each number to 0 with probability `rate`, and let the others grow to make up for it.

        y = m x/(1 - p),   x̄ = m ȳ/(1 - p),   m = 0 with probability p = `rate`, 1 otherwise

    Shapes: x (...), one PRNG key -> y (...). Rate 0 is the identity. Saves the key. Raises
    ValueError unless 0 ≤ `rate` < 1.
    """
    return jnp.where(_kept(key, rate, x.shape), x / (1 - rate), 0)


@dropout.fwd
def dropout_fwd(x, key, *, rate):
    _check("dropout", rate)
    return _thinned(x, key, rate, x.shape), key


@dropout.bwd
def dropout_bwd(key, dy, *, rate):
    return _thinned(dy, key, rate, dy.shape), None


@op(
    examples=_examples((5, 7), (2, 3, 4), (2, 2, 2, 5)),
    source="Tompson, Goroshin, Jain, LeCun & Bregler 2015, arXiv:1411.4280",
)
def channel_dropout(x, key, *, rate: float):
    """Drop whole channels of an example: at all its places, or at none.

        y = m x/(1 - p),   x̄ = m ȳ/(1 - p),   one m for each example and channel

    m = 0 with probability p = `rate`, 1 otherwise. Neighbouring places are alike, and what one of
    them loses the others would still tell.
    Shapes: x (batch, ..., channels), one PRNG key -> y as x. Rate 0 is the identity. Saves the
    key. Raises ValueError unless 0 ≤ `rate` < 1.
    """
    kept = _kept(key, rate, _channels("channel_dropout", x))
    return jnp.where(kept, x / (1 - rate), 0)


@channel_dropout.fwd
def channel_dropout_fwd(x, key, *, rate):
    _check("channel_dropout", rate)
    return _thinned(x, key, rate, _channels("channel_dropout", x)), key


@channel_dropout.bwd
def channel_dropout_bwd(key, dy, *, rate):
    return _thinned(dy, key, rate, _channels("channel_dropout", dy)), None


@op(
    examples=_examples((5, 7), (4, 3, 2), (7,)),
    source="Huang, Sun, Liu, Sedra & Weinberger 2016, arXiv:1603.09382",
)
def drop_path(x, key, *, rate: float):
    """Drop whole examples: of a residual branch, so that the depth becomes stochastic.

        y = m x/(1 - p),   x̄ = m ȳ/(1 - p),   one m for each example

    m = 0 with probability p = `rate`, 1 otherwise. The paper scales at inference instead.
    Shapes: x (batch, ...), one PRNG key -> y as x. Rate 0 is the identity. Saves the key. Raises
    ValueError unless 0 ≤ `rate` < 1.
    """
    return jnp.where(_kept(key, rate, _examples_of("drop_path", x)), x / (1 - rate), 0)


@drop_path.fwd
def drop_path_fwd(x, key, *, rate):
    _check("drop_path", rate)
    return _thinned(x, key, rate, _examples_of("drop_path", x)), key


@drop_path.bwd
def drop_path_bwd(key, dy, *, rate):
    return _thinned(dy, key, rate, _examples_of("drop_path", dy)), None


def _alpha_map(rate):
    """The a and b by which alpha dropout restores mean 0 and variance 1."""
    a = ((1 - rate) * (1 + rate * _SATURATION**2)) ** -0.5
    return a, -a * rate * _SATURATION


@op(
    examples=_examples((5, 7), (2, 3, 4), (11,), ()),
    source="Klambauer, Unterthiner, Mayr & Hochreiter 2017, arXiv:1706.02515",
)
def alpha_dropout(x, key, *, rate: float):
    """Set each number to selu's negative limit with probability `rate`, keeping mean and variance.

        y = a (m x + (1 - m) α') + b,   x̄ = a m ȳ
        a = ((1 - p)(1 + p α'²))^-½,   b = -a p α',   α' = -λα = -1.758...

    m = 0 with probability p = `rate`, 1 otherwise. Numbers of mean 0 and variance 1 stay so.
    Shapes: x (...), one PRNG key -> y (...). Rate 0 is the identity. Saves the key. Raises
    ValueError unless 0 ≤ `rate` < 1.
    """
    a, b = _alpha_map(rate)
    return a * jnp.where(_kept(key, rate, x.shape), x, _SATURATION) + b


@alpha_dropout.fwd
def alpha_dropout_fwd(x, key, *, rate):
    _check("alpha_dropout", rate)
    if rate == 0:
        return x, key
    a, b = _alpha_map(rate)
    kept = _kept(key, rate, x.shape)
    return jnp.where(kept, a * wide(x) + b, a * _SATURATION + b).astype(x.dtype), key


@alpha_dropout.bwd
def alpha_dropout_bwd(key, dy, *, rate):
    if rate == 0:
        return dy, None
    grown = (wide(dy) * _alpha_map(rate)[0]).astype(dy.dtype)
    return jnp.where(_kept(key, rate, dy.shape), grown, 0), None
