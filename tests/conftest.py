"""Eight virtual devices, strict promotion of dtypes and ranks, for every test."""

import os
import tempfile
from pathlib import Path

os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir(), "fnn-tests"))  # compiled programs
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
