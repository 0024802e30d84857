"""Clocks of agents that do not all talk to the server in the same step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, ArrayLike, Bool, Int


def clocks_tick(
    step: Int[Array, ""], period: int, clocks: ArrayLike | None, num_agents: int
) -> Bool[Array, " agents"]:
    """Whether each agent's clock, the step plus its own offset, is a multiple of the period."""
    offsets = jnp.zeros(num_agents, jnp.int32) if clocks is None else jnp.asarray(clocks)
    if offsets.shape != (num_agents,):
        raise ValueError(
            f"clocks has shape {offsets.shape}; expected one offset an agent, ({num_agents},)"
        )
    return (step + offsets) % period == 0
