"""Eight virtual devices, strict promotion of dtypes and ranks, programs kept, for every test."""

import contextlib
import gc
import os
import tempfile
import time
from pathlib import Path

os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir(), "fnn-tests"))  # compiled programs
# With the first two flags XLA compiles in two thirds of the time; what tests compile hardly runs.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        *("--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"),
        "--xla_force_host_platform_device_count=8",
    ]
)

import jax

gc.set_threshold(50_000, 10, 10)  # tracing makes millions of objects, few of them in cycles

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SETTLED = 60.0
"""Seconds after which a file is taken to be whole: JAX writes programs in place."""


def programs_folder():
    """This worker's folder of compiled programs, with all that earlier runs compiled in it.

    Workers do not share one, since they would read what another has half written.
    """
    folder = Path(tempfile.gettempdir(), f"fnn-tests-programs-{jax.__version__}")
    own = folder / os.environ.get("PYTEST_XDIST_WORKER", "one")
    own.mkdir(parents=True, exist_ok=True)
    for entry in folder.glob("*/*-cache"):
        with contextlib.suppress(OSError):  # it is there already, or another run removes it
            if time.time() - entry.stat().st_mtime > SETTLED:
                os.link(entry, own / entry.name)
    return str(own)


jax.config.update("jax_compilation_cache_dir", programs_folder())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(items):
    """Begin with the files whose tests take longest, so that no worker ends with one of them."""
    first = ("test_ops.py", "test_distributed.py")
    items.sort(key=lambda item: item.path.name not in first)
