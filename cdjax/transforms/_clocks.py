"""Clocks of agents that do not all talk to the server in the same step."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
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


def check_clocks(clocks: ArrayLike | None) -> None:
    """Raises unless concrete ``clocks`` are a vector of whole numbers, or None."""
    if clocks is None or isinstance(clocks, Tracer):
        return
    offsets = np.asarray(clocks)
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise ValueError(f"clocks is {clocks!r}; expected one whole number an agent")
