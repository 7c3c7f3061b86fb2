"""Does the rule run on arguments that are split over several devices?"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from .passes import backward, both_ways, call
from .probes import GIVEN, Probing
from .programs import start
from .trials import Answers, Trial

KINDS = {"auto mesh": AxisType.Auto, "explicit mesh": AxisType.Explicit}


def check(
    probing: Probing, trials: Sequence[Trial], capabilities: dict[str, bool | None]
) -> Answers:
    """Split the first axis of the first array, and all axes that share it, over two devices.

    Enters in `capabilities` whether each kind of mesh works, on one device if there are not two;
    None without such an axis. Where XLA splits the program, the numbers are compared.
    """
    capabilities |= dict.fromkeys([*KINDS, "shard_map"])
    count = min(2, jax.device_count())
    first = (t for t in trials if t.probe is GIVEN and _rows(t))
    trial = next((t for t in first if _rows(t) % count == 0), None)
    if trial is None:
        return
    split = [_spec(np.shape(dy), _rows(trial)) for dy in trial.dys]
    rowwise = all(split)
    with jax.enable_x64(True):
        for name, kind in KINDS.items():
            if kind == AxisType.Auto or rowwise:
                mesh = jax.make_mesh((count,), ("data",), axis_types=(kind,))
                try:
                    got = _on_mesh(probing, trial, mesh)
                except Exception:
                    capabilities[name] = False
                    continue
                capabilities[name] = True
                for mismatch in trial.compare("ct", got, trial.got["ct"][: len(got)]):
                    yield "devices", mismatch
        if rowwise:
            mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,))
            capabilities["shard_map"] = _in_shard_map(probing, trial, mesh)


def _on_mesh(probing: Probing, trial: Trial, mesh: Any) -> list[Any]:
    """Return the cotangents; nothing on an explicit mesh or on one device, where it only traces."""
    function, arguments = probing.subject.function, trial.case.arguments

    def cotangents(arrays: Any, dys: Any) -> list[Any]:
        return both_ways(function, arguments, arrays, dys)[1]

    with jax.set_mesh(mesh):
        on_mesh = [
            [jax.device_put(a, NamedSharding(mesh, _spec(a.shape, _rows(trial)))) for a in arrays]
            for arrays in _arrays(trial)
        ]
        if mesh.size > 1 and mesh.axis_types == (AxisType.Auto,):
            return list(jax.device_get(start(cotangents, *on_mesh).result()(*on_mesh)))
        jax.eval_shape(cotangents, *on_mesh)
        return []


def _in_shard_map(probing: Probing, trial: Trial, mesh: Any) -> bool:
    """Whether the function can be differentiated inside shard_map."""
    function, arguments = probing.subject.function, trial.case.arguments
    arrays, dys = _arrays(trial)
    specs = [tuple(_spec(a.shape, _rows(trial)) for a in part) for part in (arrays, dys)]

    def local(arrays: Any) -> list[Any]:
        def one(*arrays: Any) -> tuple[Any, ...]:
            return tuple(call(function, arguments, arrays))

        inside = jax.shard_map(one, mesh=mesh, in_specs=specs[0], out_specs=specs[1])
        return list(inside(*arrays))

    try:
        jax.eval_shape(lambda: backward(local, arrays, arguments.places)[1](dys))
    except Exception:
        return False
    return True


def _rows(trial: Trial) -> int:
    """Return the length of the first array's first axis, 0 if it has none."""
    leaves = [leaf for leaf in trial.case.arguments.leaves if leaf.kind != "key"]
    return next((leaf.shape[0] for leaf in leaves if leaf.shape), 0)


def _spec(shape: tuple[int, ...], rows: int) -> PartitionSpec:
    return PartitionSpec("data") if shape[:1] == (rows,) else PartitionSpec()


def _arrays(trial: Trial) -> tuple[list[jax.Array], list[jax.Array]]:
    return [jnp.asarray(v) for v in trial.values], [jnp.asarray(dy) for dy in trial.dys]
