"""An op, a layer, a dataset and a model of one's own, as somebody outside the package adds them."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

import fnn
from fnn.example import example, normal
from fnn.layers import Dense, OpLayer, Serial


@fnn.op(examples=[example(x=normal(4, 3), slope=0.5)], source="softsign: Turian et al. 2009")
def squash(x, *, slope: float = 1.0):
    """y = x/(1 + s|x|),   x̄ = ȳ/(1 + s|x|)², with s = `slope`."""
    return x / (1 + slope * jnp.abs(x))


@squash.def_fwd
def squash_fwd(x, *, slope):
    return x / (1 + slope * jnp.abs(x)), x


@squash.def_bwd
def squash_bwd(x, dy, *, slope):
    return dy / (1 + slope * jnp.abs(x)) ** 2


@fnn.layers.register("squash")
@dataclass(frozen=True)
class Squash(OpLayer):
    """Squash each number; see `squash`."""

    op = squash
    slope: float = 1.0


def quadrants(*, points: int = 64) -> fnn.data.Dataset:
    """Draw points of the plane, which are of class 1 where both coordinates have one sign."""
    x = np.random.default_rng(0).uniform(-1, 1, (points, 2)).astype(np.float32)
    y = (x.prod(1) > 0).astype(np.int32)
    return fnn.data.Dataset("quadrants", x, y, x, y, ("0", "1"))


def squashed(*, width: int = 16) -> Serial:
    """Classify points: dense, squash, dense."""
    return Serial([Dense(width), Squash(2.0), Dense(2)], "squashed")


fnn.data.DATASETS["quadrants"] = quadrants
fnn.models.MODELS["squashed"] = squashed
