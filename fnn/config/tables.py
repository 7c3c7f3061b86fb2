"""The tables that a config's names are looked up in, each imported when it is first asked for."""

import functools
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Table = Mapping[str, Callable[..., Any]]

_SEARCH = "its line search needs the loss at other parameters, a function that no step has"
_TREE = "it takes a tree like the parameters, which no config can write"
LEFT_OUT = {  # of optax's optimisers, with the reason
    "freeze": _TREE,
    "lbfgs": _SEARCH,
    "lookahead": "it needs two copies of the parameters",
    "optimistic_adam": "optax deprecates it; use optimistic_adam_v2",
    "scale_by_backtracking_linesearch": _SEARCH,
    "scale_by_zoom_linesearch": _SEARCH,
    "selective_transform": _TREE,
    "with_extra_args_support": "it changes nothing",
}


@dataclass(frozen=True)
class Kind:
    """What a name may stand for: how its table is had, and how its callables are called."""

    phrase: str
    plural: str
    load: Callable[[], Table]
    inputs: int = 0  # leading arguments that come when it is built, not from the config
    left_out: Mapping[str, str] = field(default_factory=dict)  # name -> why it is not in the table
    is_pure: bool = True  # building it reads no file, so that a config is checked by building it


def _datasets() -> Table:
    from ..data import DATASETS

    return DATASETS


def _transforms() -> Table:
    from ..data import TRANSFORMS

    return TRANSFORMS


def _layers() -> Table:
    from ..layers import LAYERS
    from ..models import MODELS

    return ChainMap(MODELS, LAYERS)  # a view: later layers and models are found as well


def _losses() -> Table:
    from ..loss import LOSSES

    return LOSSES


def _initializers() -> Table:
    from ..init import INITIALIZERS

    return INITIALIZERS


def _optimizers() -> Table:
    from .optax_tables import optimizers

    return optimizers()


def _schedules() -> Table:
    from .optax_tables import schedules

    return schedules()


KINDS = {
    "dataset": Kind("a dataset", "datasets", _datasets, is_pure=False),
    "transform": Kind("a transform", "transforms", _transforms, inputs=1, is_pure=False),
    "layer": Kind("a layer", "layers", _layers),
    "loss": Kind("a loss", "losses", _losses),
    "initializer": Kind("an initializer", "initializers", _initializers),
    "optimizer": Kind("an optimizer", "optimizers", _optimizers, left_out=LEFT_OUT),
    "schedule": Kind("a schedule", "schedules", _schedules),
}


@functools.cache
def table(kind: str) -> Table:
    """Return the table that names of this kind are looked up in."""
    return KINDS[kind].load()
