"""What a changed config means for a training that goes on under it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from .. import config as configs
from ..config import Config
from ..config.loader import read_yaml
from ..errors import ConfigError
from .checkpoint import Checkpoint
from .run import Experiment

MEANING = {
    "name": "what the report calls the run",
    "seed": "another order of the examples; the parameters were drawn from the old seed",
    "data": "other examples from here on",
    "model": "other layers, which take the parameters as they are",
    "loss": "another divergence from here on",
    "optimizer": "other steps from here on; what the optimizer has gathered is kept",
    "train.epochs": "another end",
    "train": "another rule from here on",
    "gradient": "the same gradients, to rounding, by other means",
    "precision": "other roundings from here on",
    "mesh": "another layout over devices; the same numbers, to rounding",
    "sharding": "another layout over devices; the same numbers, to rounding",
    "distributed": "other processes; the same numbers, to rounding",
    "checkpoint": "other checkpoints; the same numbers, to rounding",
    "compare": "the same numbers; a comparison with jax.grad at the end, or none",
    "compilation_cache": "another place for compiled programs; the same numbers",
}
"""By the beginning of a key; the longest counts."""


SAME_STEPS = (
    *("name", "train.epochs", "train.converge", "train.early_stopping", "gradient", "mesh"),
    *("sharding", "distributed", "checkpoint", "compare", "compilation_cache"),
)
"""Beginnings of keys on which no step depends, but for its rounding."""


class Change(NamedTuple):
    """A key of a config whose value is another one than the checkpoint was trained with."""

    key: str
    before: Any  # None where there was none
    after: Any
    meaning: str


def changes(found: Checkpoint, config: Config) -> list[Change]:
    """Return what differs between a config and the one that a checkpoint was trained with."""
    before, after = (
        dict(_flat(read_yaml(text, "config.yaml")[0]))
        for text in (found.metadata["config"], configs.dump(config))
    )
    return [
        Change(key, before.get(key), after.get(key), _meaning(key))
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]


def same_since(found: Checkpoint | None, config: Config) -> int:
    """Return the step from which on training took the steps that a config says."""
    if found is None:
        return 0
    keys = (change.key + "." for change in changes(found, config))
    same = all(key.startswith(tuple(start + "." for start in SAME_STEPS)) for key in keys)
    return found.metadata["same_since"] if same else found.step


def check_position(run: Experiment, found: Checkpoint) -> None:
    """Check that a position still means the same, and lies within the training.

    Raises ConfigError where an epoch would have another number of steps, or training has come
    further than it is to go.
    """
    before, after = found.metadata["steps_an_epoch"], run.steps_per_epoch
    epochs, come = run.config.train.epochs, -(-found.step // before)
    if come > epochs:
        raise ConfigError(
            f"{run.config.where('train.epochs')}: train.epochs: {epochs}, and training has come to "
            f"epoch {come}; make it {come} or more"
        )
    if before != after:
        keys = [c.key for c in changes(found, run.config)]
        keys = [key for key in keys if key.split(".")[0] == "data" or key == "train.batch_size"]
        raise ConfigError(
            f"cannot resume: an epoch has {after} steps now, and had {before} "
            f"({', '.join(keys) or 'the data has changed'}); put that back, or train anew with "
            "fnn run"
        )


def _meaning(key: str) -> str:
    """Return the meaning of the longest beginning of the key that has one."""
    parts = key.split(".")
    beginnings = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((MEANING[start] for start in beginnings if start in MEANING), "another experiment")


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every scalar of nested mappings and lists with its dotted key."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
