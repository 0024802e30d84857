"""Modules that are imported when they are first used.

The rows of algorithms and mixers are also the choices that ``--help`` lists, and it should not wait
for JAX: it takes a tenth of the time without.
"""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """Stands for a module until one of its names is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
