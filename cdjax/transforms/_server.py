"""What algorithms with a server share: the server's parameters, and when agents reach it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Int

from cdjax._types import OptState, Params


def server_params(state: OptState) -> Params:
    r"""The server's own parameters: EASGD's centre :math:`\tilde{x}` or Downpour's model.

    They are what to evaluate. The algorithm may stand anywhere in a chain.

    Args:
        state: the optimizer's state.

    Returns:
        One agent's parameters, leaves of shape ``(...)``.

    Raises:
        ValueError: if no part of the state belongs to a server.

    Example: ``evaluated = cdjax.server_params(cdjax.easgd(0.1).init(params))``
    """
    # By name, because the files that define these states import this one for the clocks.
    for name, field in (("EASGDState", "center"), ("DownpourState", "server")):
        for _, found in optax.tree.get_all_with_path(state, name):
            return getattr(found, field)
    raise ValueError("the optimizer has no server; average its agents with cdjax.mean_params")


def clocks_tick(
    step: Int[Array, ""], period: int, clocks: ArrayLike | None, num_agents: int
) -> Bool[Array, " agents"]:
    """Whether each agent's clock, the step plus its own offset, is a multiple of the period."""
    kind = step.dtype
    offsets = jnp.zeros(num_agents, kind) if clocks is None else jnp.asarray(clocks, kind)
    if offsets.shape != (num_agents,):
        raise ValueError(
            f"clocks has shape {offsets.shape}; expected one offset per agent, ({num_agents},)"
        )
    return (step + offsets) % period == 0


def check_clocks(clocks: ArrayLike | None) -> None:
    """Raises unless concrete ``clocks`` are a vector of whole numbers, or None."""
    if clocks is None or isinstance(clocks, Tracer):
        return
    offsets = np.asarray(clocks)
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise ValueError(f"clocks is {clocks!r}; expected one whole number per agent")
