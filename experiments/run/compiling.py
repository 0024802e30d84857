"""How programs are compiled: kept on the disk, and with little effort for what runs once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def keep_compilations() -> None:
    """Keeps compiled programs on the disk, so that only the first run of a kind compiles."""
    if not jax.config.jax_compilation_cache_dir:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(caches / "cdjax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def jit_once(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """``jax.jit`` for a program that runs once.

    On a CPU, LLVM's optimization is most of the time that such a program takes, and convolutions
    and products, which are calls of libraries, do without it.
    """
    if jax.default_backend() == "cpu":
        options["compiler_options"] = {"xla_backend_optimization_level": 0}
    return jax.jit(fn, **options)
