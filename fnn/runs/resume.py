"""The meaning of a changed config for a training that continues under it."""

from typing import Any, NamedTuple

from .. import config as configs
from ..config import Config
from ..config.source import flatten, read_yaml
from ..errors import ConfigError
from .checkpoint import Checkpoint
from .prepare import Experiment

MEANING = {
    "name": "what the report calls the run",
    "seed": "another order of the examples; the parameters were drawn from the old seed",
    "data": "other examples from here on",
    "model": "other layers, which take the parameters as they are",
    "loss": "another divergence from here on",
    "optimizer": "other steps from here on; the state of the optimizer is kept",
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
"""By the beginning of a key; the longest that matches counts."""

SAME_STEPS = (
    *("name", "train.epochs", "train.converge", "train.early_stopping", "gradient", "mesh"),
    *("sharding", "distributed", "checkpoint", "compare", "compilation_cache"),
)
"""Beginnings of keys on which no step depends, except for rounding."""


class Change(NamedTuple):
    """A key of a config whose value differs from the one in the checkpoint."""

    key: str
    before: Any  # None where there was none
    after: Any
    meaning: str


def changes(checkpoint: Checkpoint, config: Config) -> list[Change]:
    """Return the differences between a config and the one that a checkpoint was trained with."""
    before, after = (
        flatten(read_yaml(text, "config.yaml")[0])
        for text in (checkpoint.metadata["config"], configs.dump(config))
    )
    return [
        Change(key, before.get(key), after.get(key), _meaning(key))
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]


def same_since(checkpoint: Checkpoint | None, config: Config) -> int:
    """Return the step since which training has taken the steps that a config describes."""
    if checkpoint is None:
        return 0
    keys = (change.key + "." for change in changes(checkpoint, config))
    same = all(key.startswith(tuple(start + "." for start in SAME_STEPS)) for key in keys)
    return checkpoint.metadata["same_since"] if same else checkpoint.step


def check_position(experiment: Experiment, checkpoint: Checkpoint) -> None:
    """Check that the position of a checkpoint keeps its meaning, and lies within the training.

    Raises ConfigError if an epoch has another number of steps now, or if training has begun more
    epochs than the config has.
    """
    config = experiment.config
    before, after = checkpoint.metadata["steps_an_epoch"], experiment.steps_per_epoch
    epochs, epoch = config.train.epochs, -(-checkpoint.step // before)
    if epoch > epochs:
        raise ConfigError(
            f"{config.where('train.epochs')}: train.epochs: {epochs}, and training has come to "
            f"epoch {epoch}; make it {epoch} or more"
        )
    if before != after:
        keys = [c.key for c in changes(checkpoint, config)]
        keys = [key for key in keys if key.split(".")[0] == "data" or key == "train.batch_size"]
        raise ConfigError(
            f"cannot resume: an epoch has {after} steps now, and had {before} "
            f"({', '.join(keys) or 'the data has changed'}); put that back, or train from the "
            "first step with fnn run"
        )


def _meaning(key: str) -> str:
    """Return the meaning of the longest beginning of the key that has one."""
    parts = key.split(".")
    beginnings = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((MEANING[start] for start in beginnings if start in MEANING), "another experiment")
