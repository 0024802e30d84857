"""The systems that are compared with cdjax, and the interpreters where they are installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._peers.processes import Entrant


class System(NamedTuple):
    """A peer: the names of its module and of ours that runs it, and how to install it."""

    module: str
    runner: str
    install: str


SYSTEMS = {
    "torch": System("torch", "torch_forms", "pip install torch"),
    "decent-bench": System(
        "decent_bench", "decent_bench_steps", "pip install 'decent-bench[torch]', with Python 3.13"
    ),
    "drjax": System("drjax", "drjax_rounds", "pip install drjax"),
    "fedjax": System("fedjax", "fedjax_rounds", "pip install fedjax"),
    "blazefl": System(
        "blazefl", "blazefl_rounds", "pip install blazefl numpy tqdm, with Python 3.12 or later"
    ),
    "flwr": System("flwr", "flwr_rounds", "pip install 'flwr[simulation]' torch numpy"),
    "decent-dp": System("decent_dp", "decent_dp_steps", "pip install decent-dp numpy"),
}


def entrant_of(
    system: str,
    function: str,
    interpreters: Mapping[str, str],
    *,
    title: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Entrant:
    """The program of a system that a function of its module makes."""
    path = f"benchmarks._peers.{SYSTEMS[system].runner}:{function}"
    python = interpreters.get(system, sys.executable)
    return Entrant(title or system, path, system, options or {}, python=python)


def read_interpreters(pairs: Sequence[str]) -> dict[str, str]:
    """The interpreter of each system that has one of its own, from ``SYSTEM=/path/to/python``."""
    interpreters: dict[str, str] = {}
    for pair in pairs:
        system, _, python = pair.partition("=")
        if system not in SYSTEMS or not Path(python).is_file():
            systems = ", ".join(SYSTEMS)
            raise ValueError(f"{pair} is not SYSTEM=/path/to/python with one of {systems}")
        interpreters[system] = python
    return interpreters


def is_installed(system: str, interpreters: Mapping[str, str]) -> bool:
    """Whether a system is there; if not, prints how to install it."""
    python = interpreters.get(system, sys.executable)
    code = f"import sys, importlib.util as u; sys.exit(not u.find_spec({SYSTEMS[system].module!r}))"
    if subprocess.run([python, "-c", code], check=False).returncode:
        print(f"{system} is not installed in {python}: {SYSTEMS[system].install}")
        return False
    return True
