"""Several devices: a mesh, and the layout of state and batches over it.

    placement = place(config, model, x_shape)       checks everything, allocates nothing
    state = placement.init(lambda: init(model, optimizer, x_shape, seed))
    steps = make_steps(make_update(model, loss, optimizer), placement, state)
    state, loss = steps(state, placement.resident(x), placement.resident(labels), batches)

The mesh has two axes. `data` splits batches; `model` splits those parameters that a rule of the
config splits. Its axes are automatic: the program is written as for one device, and XLA's
partitioner (GSPMD, Xu et al. 2021, arXiv:2105.04663) inserts the communication. So means over a
batch, such as batch norm's, are those of the whole batch.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ..config import Config
from ..errors import ConfigError, did_you_mean
from ..layers import Layer
from ..tree import leaf_path

DATA, MODEL = "data", "model"
Axes = tuple[str | None, ...]
"""The mesh axis that splits each dimension; None if it is not split."""


@dataclass(frozen=True)
class Placement:
    """A mesh, and the axes that split each parameter, by its path `1_dense/w`."""

    mesh: Mesh
    split: Mapping[str, Axes] = field(default_factory=dict)  # empty if no parameter is split

    def sharding(self, *axes: str | None) -> NamedSharding:
        """Return the layout that splits each dimension over its axis; without axes, copies."""
        while axes and axes[-1] is None:  # to equal the layouts of jit's outputs
            axes = axes[:-1]
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def layout(self, state: Any) -> Any:
        """Return the layout of every array in a state, or in anything that holds parameters.

        The optimiser's arrays for a parameter have its path below their own, and its layout. All
        other arrays, and those that cannot be split, are copied.
        """
        split = {tuple(path.split("/")): axes for path, axes in self.split.items()}

        def of(path: Any, leaf: Any) -> NamedSharding:
            names = tuple(leaf_path(path).split("/"))
            ends = (names[i:] for i in range(len(names)))
            axes = next((split[end] for end in ends if end in split), ())
            return self.sharding(*(() if _misfit(axes, leaf.shape, self.mesh) else axes))

        return jax.tree_util.tree_map_with_path(of, state)

    def init(self, function: Callable[[], Any]) -> Any:
        """Compute a state in its layout: no device ever holds the whole of a split array."""
        return jax.jit(function, out_shardings=self.layout(jax.eval_shape(function)))()

    def step(self, update: Callable[..., Any], state: Any, *batch: Any) -> Any:
        """Take a step on a split batch, and keep the state laid out; to be called under jit.

        A parameter that is split over `data` is collected before use: otherwise the partitioner
        may collect the batch instead. A batch that does not divide, such as the last of an epoch,
        is computed whole on every device.
        """

        def in_use(layout: NamedSharding) -> NamedSharding:
            return self.sharding(*(None if axis == DATA else axis for axis in layout.spec))

        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
            layout = jax.tree.map(in_use, self.layout(state.params))
            params = jax.lax.with_sharding_constraint(state.params, layout)
            after, loss = update(state._replace(params=params), *self.spread(batch))
            return jax.lax.with_sharding_constraint(after, self.layout(after)), loss

    def spread(self, batch: Any) -> Any:
        """Split arrays along their first axis if the mesh divides it; to be called under jit."""

        def of(a: Any) -> Any:
            return jax.lax.with_sharding_constraint(a, self._of_batch(len(a)))

        return jax.tree.map(of, batch)

    def resident(self, array: Any) -> jax.Array:
        """Return an array, which every process has, copied to every device."""
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, self.sharding(), array.__getitem__)

    def rows(self, batch_size: int) -> np.ndarray:
        """Return the examples of a batch that this process's devices take, in order."""
        devices: Any = self._of_batch(batch_size).addressable_devices_indices_map((batch_size,))
        parts = {part.indices(batch_size) for (part,) in devices.values()}
        return np.concatenate([np.arange(*part) for part in sorted(parts)])

    def batches(self, local: Any, batch_size: int) -> jax.Array:
        """Return batches (steps, batch size, ...), given this process's `rows` of them."""
        local = np.asarray(local)
        sharding = self.sharding(None, *self._of_batch(batch_size).spec)
        shape = (len(local), batch_size, *local.shape[2:])
        return jax.make_array_from_process_local_data(sharding, local, shape)

    def whole(self, tree: Any) -> Any:
        """Return a tree as whole NumPy arrays, in every process; every process must call this."""
        gather = jax.jit(lambda tree: tree, out_shardings=self.sharding())
        return jax.device_get(gather(tree))

    def _of_batch(self, size: int) -> NamedSharding:
        return self.sharding(DATA) if size % self.mesh.shape[DATA] == 0 else self.sharding()


def place(config: Config, model: Layer, x_shape: tuple[int, ...]) -> Placement:
    """Return the placement of a config, for batches of `x_shape`.

    Without a mesh in the config it has one device, or all devices of all processes.

    Raises ConfigError, with the line, if devices, batch and parameters do not fit.
    """
    mesh = make_mesh(config)
    if x_shape[0] % mesh.shape[DATA]:
        raise ConfigError(
            f"{config.where('train.batch_size')}: a batch of {x_shape[0]} examples does not split "
            f"into the {mesh.shape[DATA]} equal parts of mesh.data; make it a multiple"
        )
    params = jax.eval_shape(lambda key: model.init(key, x_shape)[0], jax.random.key(0))
    shapes = {leaf_path(at): leaf.shape for at, leaf in jax.tree_util.tree_leaves_with_path(params)}
    return Placement(mesh, _split(config, shapes, mesh))


def one_device() -> Placement:
    """Return the placement of everything on this process's first device."""
    return Placement(_mesh(1, 1, jax.local_devices()))


def make_mesh(config: Config) -> Mesh:
    """Return the mesh of a config, over the first devices.

    Raises ConfigError if there are too few, or if a process would have none.
    """
    devices, several = jax.devices(), jax.process_count() > 1
    size, model = (config.mesh.data, config.mesh.model) if config.mesh else (1, 1)
    takes_all = size == "all" or (several and config.mesh is None)
    data = max(1, len(devices) // model) if takes_all else int(size)
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
    return _mesh(data, model, devices)


def _mesh(data: int, model: int, devices: Sequence[Any]) -> Mesh:
    kinds = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, model), (DATA, MODEL), kinds, devices=devices[: data * model])


def _split(config: Config, shapes: Mapping[str, tuple[int, ...]], mesh: Mesh) -> dict[str, Axes]:
    """Return the axes of each parameter, if any is split; the first rule that matches counts."""

    def error(pattern: str, message: str) -> ConfigError:
        where = config.where(("sharding", pattern))
        return ConfigError(f"{where}: sharding: {pattern!r} {message}")

    for pattern in config.sharding:
        if not any(fnmatchcase(path, pattern) for path in shapes):
            hint = did_you_mean(pattern, shapes) or f"; the parameters are {', '.join(shapes)}"
            raise error(pattern, f"matches no parameter{hint}")
    split: dict[str, Axes] = dict.fromkeys(shapes, ())
    for path, shape in shapes.items():
        rules = ((p, rule) for p, rule in config.sharding.items() if fnmatchcase(path, p))
        for pattern, rule in itertools.islice(rules, 1):
            split[path] = _axes(rule, shape, mesh)
            if wrong := _misfit(split[path], shape, mesh):
                raise error(pattern, f"cannot split {path}, of shape {shape}: {wrong}")
    return split if any(map(any, split.values())) else {}


def _axes(rule: Any, shape: tuple[int, ...], mesh: Mesh) -> Axes:
    """Return the axes that a rule gives a parameter of this shape."""
    if isinstance(rule, tuple):
        return rule
    divisible = [n if n % mesh.shape[DATA] == 0 else 0 for n in shape]
    if rule == "replicate" or not any(divisible):
        return (None,) * len(shape)
    largest = divisible.index(max(divisible))
    return tuple(DATA if i == largest else None for i in range(len(shape)))


def _misfit(axes: Axes, shape: tuple[int, ...], mesh: Mesh) -> str | None:
    """Return the reason why an array cannot be split over these axes; None if it can."""
    if len(axes) != len(shape):
        return f"the rule has {len(axes)} axes, one for each dimension"
    for i, (n, axis) in enumerate(zip(shape, axes, strict=True)):
        if axis is not None and n % mesh.shape[axis]:
            return f"dimension {i} is {n}, no multiple of the {mesh.shape[axis]} of {axis!r}"
    return None
