"""Dropout: parts of x are left out at random while a network is trained.

All four ops draw m from a key: m = 0 with probability p = `rate`, 1 otherwise. Their backward rules
draw it again, so the key and the rate are all that is saved. Under jit, XLA draws once for both
passes if there is memory to keep the drawing. The rate is an array, so that one program serves many
rates. It is a constant and gets no gradient. A traced rate cannot be checked; if it is out of
range, y is NaN.
"""

import jax
import jax.numpy as jnp

from ..custom_op import op
from ..errors import ShapeError
from ..example import example, key, normal, values
from .norm_parts import at_least_float32

# The negative saturation -λα of the activation selu, by which alpha dropout replaces numbers.
_SATURATION = -1.7580993408473766


def _probability(name, rate, x):
    """The rate, a constant, in the dtype that x is computed in: no gradient passes through it."""
    if rate.shape != ():
        raise ShapeError(f"{name}: expects one rate, of shape (), got {rate.shape}")
    # Under jit, comparing a concrete array gives a tracer; its float can still be compared.
    if not isinstance(rate, jax.core.Tracer) and not 0 <= float(rate) <= 1:
        raise ValueError(f"{name}: rate must be from 0 to 1, got {rate}")
    return jax.lax.stop_gradient(rate).astype(jnp.finfo(at_least_float32(x).dtype).dtype)


def _valid(p, number, otherwise=jnp.nan):
    """The number, or NaN where p is no probability: a traced one cannot be refused."""
    return jnp.where((p >= 0) & (p <= 1), number, otherwise)


def _no_gradient(rate):
    """What a rule returns for the rate: zero, or None for an integer, which has no cotangent."""
    return jnp.zeros_like(rate) if jnp.issubdtype(rate.dtype, jnp.floating) else None


def _mask(key, p, shape):
    """Draw m as booleans: true with probability 1 - `p` to within 2⁻³².

    Bits are compared with an integer: uniform numbers would differ where 64-bit types are on.
    Nothing is dropped where p is no probability, so that all becomes NaN.
    """
    bound = _valid(p, p * 2.0**32, 0).astype(jnp.uint32)
    return (jax.random.bits(key, shape, jnp.uint32) >= bound) & (p != 1)  # 2³² is no uint32


def _definition(name, x, key, rate, shape):
    """Return m x/(1 - p), with one m for each number of `shape`."""
    p = _probability(name, rate, x)
    share = _valid(p, jnp.where(p == 1, 1, 1 - p))  # at 1 nothing is left
    return jnp.where(_mask(key, p, shape), x / share.astype(x.dtype), 0)


def _define_rules(dropout, mask_shape):
    """Define both rules of an op that drops by one m for each number of `mask_shape(name, x)`.

    The map is linear and symmetric, so that forward and backward are one function.
    """

    def scale(x, key, rate):
        """Return m x/(1 - p) as a product, which is rounded once."""
        p = _probability(dropout.name, rate, x)
        factor = _valid(p, jnp.where(p == 1, 0, 1 / (1 - p)))
        y = (at_least_float32(x) * factor).astype(x.dtype)
        return jnp.where(_mask(key, p, mask_shape(dropout.name, x)), y, 0)

    @dropout.def_fwd
    def fwd(x, key, rate):
        return scale(x, key, rate), (key, rate)

    @dropout.def_bwd
    def bwd(residuals, dy):
        key, rate = residuals
        return scale(dy, key, rate), None, _no_gradient(rate)


def _per_number(name, x):
    """The shape of x."""
    del name
    return x.shape


def _per_channel(name, x):
    """The shape with one number for each example's channel."""
    if x.ndim < 2:
        raise ShapeError(f"{name}: expects (batch, ..., channels), got {x.shape}")
    return (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])


def _per_example(name, x):
    """The shape with one number for each example."""
    if x.ndim < 1:
        raise ShapeError(f"{name}: expects (batch, ...), got {x.shape}")
    return (x.shape[0], *(1,) * (x.ndim - 1))


def _examples(*shapes):
    """Shapes, sizes 0 and 1, rates from 0 to 1, tails."""
    return (
        *(example(x=normal(*shape), key=key(), rate=0.4) for shape in shapes),
        example(x=normal(*shapes[0]), key=key(), rate=0.0, tags={"extreme"}),
        example(x=normal(*shapes[0]), key=key(), rate=0.96875),
        example(x=normal(*shapes[0]), key=key(), rate=1.0, tags={"extreme"}),
        example(x=normal(*(1 for _ in shapes[0])), key=key(), rate=0.25),
        example(x=normal(0, *shapes[0][1:]), key=key(), rate=0.25),
        example(x=values([[1e4, -1e4, 0.0, 1e-30]] * 3), key=key(), rate=0.5, tags={"extreme"}),
        example(x=normal(32, 28, 28, 64), key=key(), rate=0.5, tags={"bench"}),
    )


@op(
    examples=_examples((5, 7), (2, 3, 4), (11,), ()),
    source="Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov 2014, JMLR 15",
)
def dropout(x, key, rate):
    """Set each number to 0 with probability `rate`, and let the others grow to make up for it.

        y = m x/(1 - p),   x̄ = m ȳ/(1 - p),   one m for each number

    m = 0 with probability p = `rate`, 1 otherwise.
    Shapes: x (...), one PRNG key, one rate -> y (...). Saves the key and the rate, which gets no
    gradient. Rate 0 is the identity; at rate 1, y and x̄ are 0. Raises ValueError unless
    0 ≤ `rate` ≤ 1; with a traced rate out of range, y is NaN instead.
    """
    return _definition("dropout", x, key, rate, x.shape)


_define_rules(dropout, _per_number)


@op(
    examples=_examples((5, 7), (2, 3, 4), (2, 2, 2, 5)),
    source="Tompson, Goroshin, Jain, LeCun & Bregler 2015, arXiv:1411.4280",
)
def channel_dropout(x, key, rate):
    """Drop whole channels of an example: at all its places, or at none.

        y = m x/(1 - p),   x̄ = m ȳ/(1 - p),   one m for each example and channel

    m, key, rate and errors as in dropout. Neighbouring places are alike, and what one of them loses
    the others would still tell.
    Shapes: x (batch, ..., channels), one PRNG key, one rate -> y as x. Saves the key and the rate.
    """
    return _definition("channel_dropout", x, key, rate, _per_channel("channel_dropout", x))


_define_rules(channel_dropout, _per_channel)


@op(
    examples=_examples((5, 7), (4, 3, 2), (7,)),
    source="Huang, Sun, Liu, Sedra & Weinberger 2016, arXiv:1603.09382",
)
def drop_path(x, key, rate):
    """Drop whole examples: of a residual branch, so that the depth becomes stochastic.

        y = m x/(1 - p),   x̄ = m ȳ/(1 - p),   one m for each example

    m, key, rate and errors as in dropout. The paper scales at inference instead.
    Shapes: x (batch, ...), one PRNG key, one rate -> y as x. Saves the key and the rate.
    """
    return _definition("drop_path", x, key, rate, _per_example("drop_path", x))


_define_rules(drop_path, _per_example)


def _alpha_map(rate, x):
    """p, the a and b by which alpha dropout restores mean 0 and variance 1, and a α' + b.

    No product is added to: XLA rounds both at once where the rate is traced, and one by one where
    it is a constant. A network would then not learn the same bits with either.
    """
    p = _probability("alpha_dropout", rate, x)
    a = 1 / (-_SATURATION * jnp.sqrt((1 - p) * (p + _SATURATION**-2)))
    a = jnp.where(p == 1, 0, a)
    numbers = a, -a * p * _SATURATION, a * (1 - p) * _SATURATION
    return p, *(_valid(p, number) for number in numbers)


@op(
    examples=_examples((5, 7), (2, 3, 4), (11,), ()),
    source="Klambauer, Unterthiner, Mayr & Hochreiter 2017, arXiv:1706.02515",
)
def alpha_dropout(x, key, rate):
    """Set each number to selu's negative limit with probability `rate`, keeping mean and variance.

        y = a (m x + (1 - m) α') + b,   x̄ = a m ȳ
        a = ((1 - p)(1 + p α'²))^-½,   b = -a p α',   α' = -λα = -1.758...

    m, key, rate and errors as in dropout. Numbers of mean 0 and variance 1 stay so.
    Shapes: x (...), one PRNG key, one rate -> y (...). Saves the key and the rate.
    """
    p, a, b, _ = _alpha_map(rate, x)
    x = jnp.where(_mask(key, p, x.shape), x, _SATURATION)
    return a.astype(x.dtype) * x + b.astype(x.dtype)


@alpha_dropout.def_fwd
def alpha_dropout_fwd(x, key, rate):
    p, a, b, dropped = _alpha_map(rate, x)
    y = jnp.where(_mask(key, p, x.shape), a * at_least_float32(x) + b, dropped)
    return y.astype(x.dtype), (key, rate)


@alpha_dropout.def_bwd
def alpha_dropout_bwd(residuals, dy):
    key, rate = residuals
    p, a, *_ = _alpha_map(rate, dy)
    dx = (at_least_float32(dy) * a).astype(dy.dtype)
    return jnp.where(_mask(key, p, dy.shape), dx, 0), None, _no_gradient(rate)
