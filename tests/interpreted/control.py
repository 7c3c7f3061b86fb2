"""Nested programs, programs that draw random numbers, and programs left to XLA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .sums import pooled, windowed
from .table import normal, section


@section(roundings=8)
def control():
    x = normal(4, 3)

    def step(carry, x):
        total, last = carry
        return (total + x, x), (total * last, x[0])

    for reverse in (False, True):
        yield functools.partial(lax.scan, step, reverse=reverse), (x[0], x[1]), x
    yield lambda x: lax.scan(lambda c, _: (c * 2, None), x, None, 3), x
    yield lambda x: lax.scan(step, (x[0], x[1]), x[:0]), x
    yield lambda x: lax.scan(lambda c, x: (c + lax.scan(step, (x, x), c)[0][0][0], x[0]), x, x), x
    yield jax.grad(lambda x: lax.scan(step, (x[0], x[1]), x)[1][0].sum()), x
    yield lambda p, x: lax.cond(p, lambda x: x + 1, lambda x: x * 2, x), np.bool_(True), x
    for which in (-3, 0, 1, 2, 9):
        branches = [lambda x: x, lambda x: -x, lambda x: x * 2]
        yield lambda i, x, b=branches: lax.switch(i, b, x), np.int32(which), x
    yield lambda x: lax.platform_dependent(x, cpu=lax.neg, default=lax.exp), x
    yield lambda x: lax.platform_dependent(x, cuda=lax.neg, default=lax.exp), x
    yield jax.jit(jax.nn.relu), x


@section(roundings=4)
def keys():
    key, old = jax.random.key(3), jax.random.PRNGKey(4)
    yield lambda k: jax.random.normal(k, (3,), np.float64), key
    yield lambda k: jax.random.bernoulli(k, 0.3, (3,)), old
    yield lambda k: jax.random.split(k, (1, 2)).T, key
    draw = jax.vmap(lambda k: jax.random.uniform(jax.random.split(k)[1], (3,)))
    yield draw, jax.random.split(key, 4)
    yield jax.vmap(lambda k, i: jax.random.fold_in(k, i), (None, 0)), key, np.arange(3)
    yield lambda k: jnp.where(np.array([True, False]), k, jax.random.split(k)), key
    yield lambda k: jnp.concatenate([jax.random.split(k)[1:], k[None]]), key
    yield lambda i: jax.random.normal(jax.random.key(i), (3,), np.float32), np.int32(5)
    yield lambda k: lax.scan(lambda k, _: tuple(jax.random.split(k)), k, None, 3), key


BENT = (lambda a, b: a + a, lambda a, b: b + np.float32(2), lambda a, b: a * b + b)
LARGEST = pooled(lax.max, -np.inf)
LEFT_TO_XLA = {
    "a scatter that applies a function": (lambda x: x.at[np.array([1])].apply(lax.neg), normal(3)),
    "words of another size": (lambda x: lax.bitcast_convert_type(x, np.uint8), normal(3)),
    "the tangent of a window's maximum": (lambda x: jax.jvp(LARGEST, (x,), (x,)), normal(5, 6)),
    "no keys": (lambda: jax.random.split(jax.random.key(0), 0),),
    "a loop without a length": (
        lambda x: lax.while_loop(lambda x: x < 9, lax.exp, x),
        np.float32(0),
    ),
    **{
        f"a window's reduction, {i}": (functools.partial(windowed, function=f), normal(5, 6))
        for i, f in enumerate(BENT)
    },
}
