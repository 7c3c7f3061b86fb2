"""Several devices: a mesh, and where on it the state and the batches of a training run live.

    placement = place(config, model, x_shape)       everything is checked, nothing allocated
    state = placement.init(lambda: init(model, optimizer, x_shape, seed))
    steps = make_steps(placement.update(make_update(model, loss, optimizer)))
    state, loss = steps(state, placement.resident(x), placement.resident(labels), batches)

The mesh has two axes. `data` splits batches; `model` splits those parameters that a rule of the
config splits. Its axes are automatic: the program is written as for one device, and XLA's
partitioner (GSPMD, Xu et al. 2021, arXiv:2105.04663) puts in the communication. So means over a
batch, batch norm's among them, are those of the whole batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ..config import Config
from ..errors import ConfigError, did_you_mean
from ..layers import Layer
from .plan import abstract_init

DATA, MODEL = "data", "model"
_WHOLE = PartitionSpec()


@dataclass(frozen=True)
class Placement:
    """A mesh, and how the parameters that are split are split, by path: `1_dense/w`."""

    mesh: Mesh
    split: Mapping[str, PartitionSpec] = field(default_factory=dict)

    def sharding(self, *axes: str | None) -> NamedSharding:
        """Return the layout that splits each dimension over that axis; of none, whole copies."""
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def state(self, state: Any) -> Any:
        """Return the layout of every array in a state, or in anything that holds parameters.

        What an optimiser keeps for each parameter lies as the parameter does: it has the same
        path, below the optimiser's own. What cannot be split so, and all else, is copied.
        """
        split = {tuple(path.split("/")): spec for path, spec in self.split.items()}

        def of(path: Any, leaf: Any) -> NamedSharding:
            names = tuple(_path(path).split("/"))
            specs = (split[names[i:]] for i in range(len(names)) if names[i:] in split)
            spec = next(specs, _WHOLE)
            fits = _misfit(spec, leaf.shape, self.mesh) is None
            return NamedSharding(self.mesh, spec if fits else _WHOLE)

        return jax.tree_util.tree_map_with_path(of, state)

    def init(self, function: Callable[[], Any]) -> Any:
        """Compute a state where it will live: no device ever holds the whole of what is split."""
        return jax.jit(function, out_shardings=self.state(jax.eval_shape(function)))()

    def update(self, update: Callable[..., Any]) -> Callable[..., Any]:
        """Return a step that splits its batch, and leaves the state as it was laid out.

        A batch that does not divide, as the last of an epoch may not, is computed on every device.
        """

        def placed(state: Any, *batch: Any) -> Any:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                after, *told = update(state, *self.spread(batch))
                return jax.lax.with_sharding_constraint(after, self.state(after)), *told

        return placed

    def spread(self, batch: Any) -> Any:
        """Split arrays along their first axis, if the mesh divides it; to be called under jit."""

        def of(a: Any) -> Any:
            return jax.lax.with_sharding_constraint(a, self._of_batch(len(a)))

        return jax.tree.map(of, batch)

    def resident(self, array: Any) -> jax.Array:
        """Copy to every device an array that every process has whole."""
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, self.sharding(), array.__getitem__)

    def rows(self, batch_size: int) -> np.ndarray:
        """Return which examples of a batch this process's devices take, in order."""
        held: Any = self._of_batch(batch_size).addressable_devices_indices_map((batch_size,))
        parts = {part.indices(batch_size) for (part,) in held.values()}
        return np.concatenate([np.arange(*part) for part in sorted(parts)])

    def batches(self, local: Any, batch_size: int) -> jax.Array:
        """Return batches (steps, batch size, ...) of which this process read its own `rows`."""
        local = np.asarray(local)
        sharding = self.sharding(None, *self._of_batch(batch_size).spec)
        shape = (len(local), batch_size, *local.shape[2:])
        return jax.make_array_from_process_local_data(sharding, local, shape)

    def whole(self, tree: Any) -> Any:
        """Return NumPy arrays of all of it; every process must call this, and each gets them."""
        gather = jax.jit(lambda tree: tree, out_shardings=self.sharding())
        return jax.device_get(gather(tree))

    def _of_batch(self, size: int) -> NamedSharding:
        return self.sharding(DATA) if size % self.mesh.shape[DATA] == 0 else self.sharding()


def place(config: Config, model: Layer, x_shape: tuple[int, ...]) -> Placement:
    """Return the placement that a config asks for, for batches of `x_shape`.

    Without a mesh in the config that is one device, or all devices of all processes.

    Raises ConfigError, with the line, where devices, batch and parameters do not fit.
    """
    mesh = make_mesh(config)
    if x_shape[0] % mesh.shape[DATA]:
        raise ConfigError(
            f"{config.where('train.batch_size')}: a batch of {x_shape[0]} examples does not split "
            f"into the {mesh.shape[DATA]} equal parts of mesh.data; make it a multiple"
        )
    params, _ = abstract_init(model, x_shape)
    shapes = {_path(at): leaf.shape for at, leaf in jax.tree_util.tree_leaves_with_path(params)}
    return Placement(mesh, _split(config, shapes, mesh))


def make_mesh(config: Config) -> Mesh:
    """Return the mesh that a config asks for, over the first devices there are.

    Raises ConfigError where there are too few, or where a process would have none.
    """
    devices, several = jax.devices(), jax.process_count() > 1
    asked, model = (config.mesh.data, config.mesh.model) if config.mesh else (1, 1)
    takes_all = asked == "all" or (several and config.mesh is None)
    data = max(1, len(devices) // model) if takes_all else int(asked)
    count, where = data * model, config.where("mesh")
    if count > len(devices):
        kind = devices[0].platform
        hint = f"; a CPU shows as {count} with JAX_NUM_CPU_DEVICES={count}" if kind == "cpu" else ""
        raise ConfigError(
            f"{where}: mesh: data {data} × model {model} takes {count} devices, and there are "
            f"{len(devices)} ({kind}); make the mesh smaller{hint}"
        )
    if several and count < len(devices):
        raise ConfigError(
            f"{where}: mesh: data {data} × model {model} takes {count} of the {len(devices)} "
            f"devices of {jax.process_count()} processes; with several processes, take all: "
            "`data: all`"
        )
    kinds = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, model), (DATA, MODEL), kinds, devices=devices[:count])


def _split(
    config: Config, shapes: Mapping[str, tuple[int, ...]], mesh: Mesh
) -> dict[str, PartitionSpec]:
    """Return the parameters that the config's rules split; the first rule that matches counts."""
    for pattern in config.sharding:
        if not any(fnmatchcase(path, pattern) for path in shapes):
            hint = did_you_mean(pattern, shapes) or f"; the parameters are {', '.join(shapes)}"
            raise ConfigError(
                f"{config.where(('sharding', pattern))}: sharding: {pattern!r} matches no "
                f"parameter{hint}"
            )
    split = {}
    for path, shape in shapes.items():
        rules = ((p, rule) for p, rule in config.sharding.items() if fnmatchcase(path, p))
        pattern, rule = next(rules, ("", "replicate"))
        spec = _spec(rule, shape, mesh)
        if wrong := _misfit(spec, shape, mesh):
            raise ConfigError(
                f"{config.where(('sharding', pattern))}: sharding: {pattern!r} cannot split "
                f"{path}, of shape {shape}: {wrong}"
            )
        if any(spec):
            split[path] = spec
    return split


def _spec(rule: Any, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Return what a rule says of a parameter of this shape."""
    if rule == "replicate":
        return _WHOLE
    if rule != "fsdp":
        return PartitionSpec(*rule)
    divisible = [n if n % mesh.shape[DATA] == 0 else 0 for n in shape]
    if not any(divisible):
        return _WHOLE
    largest = divisible.index(max(divisible))
    return PartitionSpec(*(DATA if i == largest else None for i in range(len(shape))))


def _misfit(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> str | None:
    """Say why an array cannot be split so; None if it can."""
    if spec != _WHOLE and len(spec) != len(shape):
        return f"the rule is for {len(spec)} dimensions"
    for i, (n, axis) in enumerate(zip(shape, spec, strict=False)):
        if axis is not None and n % mesh.shape[axis]:
            return f"dimension {i} is {n}, not a multiple of {axis}'s {mesh.shape[axis]}"
    return None


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")
