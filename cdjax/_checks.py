"""Validation at the edge: one voice for errors. Trusted code inside never calls these."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from cdjax._types import Params


def check_num_agents(num_agents: int) -> None:
    """Raises unless ``num_agents`` is a whole number of at least one agent."""
    if isinstance(num_agents, bool) or not isinstance(num_agents, (int, np.integer)):
        raise ValueError(f"num_agents must be a whole number, not {num_agents!r}")
    if num_agents < 1:
        raise ValueError(f"num_agents is {num_agents}; there must be at least 1 agent")


def check_stacked(tree: Params, num_agents: int, *, holder: str = "the topology") -> None:
    """Raises unless every leaf of ``tree`` leads with an agent axis of length ``num_agents``."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        shape = np.shape(leaf)
        if not shape or shape[0] != num_agents:
            leads = f"leading axis {shape[0]}" if shape else "no axes"
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"leaf '{name}' has {leads}, but {holder} has {num_agents} agents; "
                f"stack parameters with cdjax.replicate(params, {num_agents})"
            )


def stacked_size(tree: Params) -> int:
    """The number of agents of a stacked tree; raises if its leaves disagree."""
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise ValueError("the tree has no leaves, so it has no agent axis")
    num_agents = np.shape(leaves[0])[0] if np.ndim(leaves[0]) else 0
    check_stacked(tree, num_agents, holder="the first leaf")
    return num_agents


def check_params(params: Params | None, transform: str) -> Params:
    """The parameters; raises when ``tx.update`` was called without."""
    if params is None:
        raise ValueError(f"{transform} mixes parameters: call tx.update(grads, state, params)")
    return params


def check_range(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Raises unless a concrete ``value`` lies in the range; schedules and traced values pass."""
    if callable(value) or isinstance(value, Tracer):
        return
    inside = np.isfinite(value) & (value > low if low_open else value >= low)
    inside = inside & (value < high if high_open else value <= high)
    if not np.all(inside):
        left = f"{'(' if low_open or low == -math.inf else '['}{low:g}"
        right = f"{high:g}{')' if high_open or high == math.inf else ']'}"
        raise ValueError(f"{name} is {value}; it must lie in {left}, {right}")
