"""Every test has eight virtual devices, strict promotion and a cache of compiled programs."""

import contextlib
import gc
import os
import tempfile
import time
from pathlib import Path

os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir(), "fnn-tests"))  # compiled programs
# The first two flags cut compile time by a third; the slower programs hardly run in tests.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        *("--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"),
        "--xla_force_host_platform_device_count=8",
    ]
)

import jax

gc.set_threshold(50_000, 10, 10)  # tracing creates millions of objects, few of them in cycles

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SETTLED = 60.0
"""Age in seconds at which a program's file counts as complete: JAX writes it in place."""


def programs_folder():
    """Return this worker's folder of compiled programs, with links to those of earlier runs.

    Workers share no folder, since one could read a file that another is writing.
    """
    folder = Path(tempfile.gettempdir(), f"fnn-tests-programs-{jax.__version__}")
    own = folder / os.environ.get("PYTEST_XDIST_WORKER", "one")
    own.mkdir(parents=True, exist_ok=True)
    for entry in folder.glob("*/*-cache"):
        with contextlib.suppress(OSError):  # it exists already, or another run removes it
            if time.time() - entry.stat().st_mtime > SETTLED:
                os.link(entry, own / entry.name)
    return str(own)


jax.config.update("jax_compilation_cache_dir", programs_folder())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(items):
    """Begin with the slowest files, so that no worker ends with one of them."""
    first = ("test_ops.py", "test_distributed.py")
    items.sort(key=lambda item: item.path.name not in first)
