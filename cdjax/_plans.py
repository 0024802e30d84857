"""The plans that were measured to be the fastest, by backend.

``python -m benchmarks.plans`` writes plans.json from the results of ``python -m
benchmarks.accelerator``, with the device and the date.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

import jax


def measured_plan(kind: str, num_agents: int) -> str | None:
    """The fastest plan of ``agent_map`` for functions of a kind; None if it was not measured.

    It is that of the smallest measured number of agents that is not below the given one, or else of
    the largest: compiling the plan ``unroll`` takes a time in proportion to that number.

    Args:
        kind: such as ``convolution float32``, the functions that hold such an operation.
        num_agents: the number of agents N.
    """
    fastest = _tables().get(jax.default_backend(), {}).get("agent_map", {}).get(kind)
    if not fastest:
        return None
    measured = sorted(map(int, fastest))
    return fastest[str(next((n for n in measured if n >= num_agents), measured[-1]))]


@functools.cache
def _tables() -> dict[str, Any]:
    return json.loads(resources.files("cdjax").joinpath("plans.json").read_text())
