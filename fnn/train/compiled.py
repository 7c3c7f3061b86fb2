"""Compiled programs that outlive the process, so that the next one need not compile them."""

import os
from pathlib import Path

import jax

from ..config import Config

SECONDS = 0.2
"""Programs that compile faster are not worth a file."""


def keep_compiled(config: Config) -> None:
    """Keep compiled programs where a config says: in a folder of the user's own cache.

    Who has told JAX of another folder (`JAX_COMPILATION_CACHE_DIR`) keeps that one.
    """
    name = config.compilation_cache
    if name is None or jax.config.values["jax_compilation_cache_dir"]:
        return
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(cache, "fnn", name)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS)
