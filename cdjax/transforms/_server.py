"""The parameters that a server holds beside its agents'."""

from __future__ import annotations

import jax
import optax

from cdjax._types import Params
from cdjax.transforms._downpour import DownpourState
from cdjax.transforms._easgd import EASGDState


def server_params(state: optax.OptState) -> Params:
    r"""The server's own parameters: EASGD's centre :math:`\tilde{x}` or Downpour's model.

    They are what these algorithms train and what to evaluate. The transformation may stand anywhere
    in a chain.

    Args:
        state: the optimizer's state.

    Returns:
        One agent's parameters, leaves of shape ``(...)``.

    Raises:
        ValueError: if no part of the state belongs to a server.

    Example::

        test_accuracy(cdjax.replicate(cdjax.server_params(opt_state), num_agents))
    """
    for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, EASGDState | DownpourState)):
        if isinstance(node, EASGDState):
            return node.center
        if isinstance(node, DownpourState):
            return node.server
    raise ValueError("the optimizer has no server; average its agents with cdjax.mean_params")
