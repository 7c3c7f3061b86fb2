"""A run's model in forms that others read: safetensors, and StableHLO.

safetensors: the parameters and the layers' state by path (`1_dense/w`), with the config as
metadata. StableHLO: the function from inputs to outputs as the test examples went through it,
with its numbers inside, for batches of any size.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from . import config as configs
from .config import Config
from .errors import FnnError
from .layers import Layer
from .report.run import Reader, read_arrays, read_summary
from .runs.folder import named_arrays, version, write_bytes
from .train.evaluate import outputs
from .train.precision import widen
from .tree import leaf_path

PLATFORMS = ("cpu", "cuda", "tpu")

Part = TypeVar("Part")


@dataclass(frozen=True)
class Trained:
    """What a run learnt: a model with its parameters and its layers' state."""

    config: Config
    model: Layer
    params: Any
    layers: Any
    x_shape: tuple[int, ...]  # of one example


def export(run: Path, to: str, out: Path | None = None) -> Path:
    """Write a run's model to `out`, by default RUN/model.FORM; return where.

    Raises FnnError for a run folder that is not complete, and where `out` cannot be written;
    then nothing is.
    """
    content = FORMS[to](load_trained(run))
    file = out or run / f"model.{to}"
    write_bytes(file, content)
    return file


def load_trained(run: Path) -> Trained:
    """Read a run's model from config.yaml, summary.json (for its inputs), parameters and state.

    Raises ConfigError, or FnnError for a file that is missing, damaged or of another model.
    """
    config = configs.load(run / "config.yaml")
    x_shape = _read(run / "summary.json", read_summary).x_shape
    if not x_shape or min(x_shape) < 1:
        raise FnnError(f"{run / 'summary.json'}: expected x_shape to be sizes, got {x_shape}")
    model = config.build_model()
    shapes = jax.eval_shape(lambda key: model.init(key, (1, *x_shape))[:2], jax.random.key(0))
    files = (run / "parameters.npz", run / "state.npz")
    params, layers = (
        _filled(tree, _read(file, read_arrays), file) if tree else tree
        for tree, file in zip(shapes, files, strict=True)
    )
    return Trained(config, model, params, layers, x_shape)


def _read(file: Path, parse: Callable[[Path], Part]) -> Part:
    reader = Reader(file.parent)
    content = reader.read(file.name, parse, None)
    if content is None:
        raise FnnError(
            f"{file.parent}: {reader.problems[file.name]}; it is written when a run ends: "
            "let this one end, or train it again"
        )
    return content


def _filled(tree: Any, arrays: Mapping[str, np.ndarray], file: Path) -> Any:
    """Return a tree of shapes with the arrays of those paths in their places."""

    def array(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = leaf_path(path)
        value = arrays.get(name)
        if value is None or value.shape != leaf.shape or value.dtype.kind not in "fiub":
            got = "nothing" if value is None else f"{value.dtype} of shape {value.shape}"
            raise FnnError(
                f"{file}: {name}: the model of config.yaml has numbers of shape {leaf.shape} "
                f"there, the file {got}; they are not of one run"
            )
        return value

    return jax.tree_util.tree_map_with_path(array, tree)


def to_safetensors(trained: Trained) -> bytes:
    """Return parameters and state by path; the metadata hold the config and fnn's version."""
    arrays = named_arrays(trained.params) | named_arrays(trained.layers)
    words = {"config": configs.dump(trained.config), "fnn": version("fnn") or "unknown"}
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return safetensors.numpy.save(whole, words)


def to_stablehlo(trained: Trained) -> bytes:
    """Return the function x (n, *x_shape) float32 -> y, serialised by `jax.export`.

    `jax.export.deserialize(content).call(x)` runs it on any of PLATFORMS, for any n. It is for
    inference: custom_vjp leaves the values alone behind, and a derivative of it is an error.
    Where an op has other code for each platform (`lax.platform_dependent`), all of it is inside,
    and where it runs chooses.
    """
    (n,) = jax.export.symbolic_shape("n")
    x = jax.ShapeDtypeStruct((n, *trained.x_shape), jnp.float32)

    def model(x):
        precision = trained.config.precision
        return widen(outputs(trained.model, precision, trained.params, trained.layers, x))

    with _without_source_locations():
        return bytes(jax.export.export(jax.jit(model), platforms=PLATFORMS)(x).serialize())


@contextlib.contextmanager
def _without_source_locations() -> Iterator[None]:
    """Keep the paths of this machine's source files out of the programs compiled meanwhile."""
    option = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


FORMS = {"safetensors": to_safetensors, "stablehlo": to_stablehlo}
"""What a model can be exported to, by name."""
