"""Models that walk: in every step they are at some of the agents, and learn from these.

Takezawa, Stich, *Scalable Decentralized Learning with Teleportation*, ICLR 2025, arXiv:2501.15259
(authors not verified).
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from cdjax._checks import check_count, check_num_agents


def visits(
    num_agents: int, num_models: int, *, first_step: int, num_steps: int, seed: int
) -> Int[np.ndarray, "steps models"]:
    """At which agents a few models are in each step: different ones, drawn afresh.

    Teleportation is no algorithm of its own: k models mix over a small graph of k, as k agents do
    in :func:`cdjax.adapt_then_combine`, and only their batches come from agents all over, see
    :func:`take_visited`. The graph they mix over does not grow with N.

    Args:
        num_agents: the number of agents N, who hold the data.
        num_models: k, at most N.
        first_step: the first of the steps, counted from 0.
        num_steps: the number of steps.
        seed: of the draws; a step's draw depends on it and on the step only.

    Returns:
        The agent that each model visits, int32, shape (num_steps, k).

    Raises:
        ValueError: if there are more models than agents.

    Example: ``visited = cdjax.data.visits(100, 8, first_step=0, num_steps=5, seed=0)``

    Reference: Takezawa & Stich (2025), Algorithm 1 (number not verified).
    """
    check_num_agents(num_agents)
    check_count("num_models", num_models, low=1)
    check_count("first_step", first_step, low=0)
    check_count("num_steps", num_steps, low=0)
    check_count("seed", seed, low=0)
    if num_models > num_agents:
        raise ValueError(
            f"num_models is {num_models}, more than the {num_agents} agents; take fewer models"
        )
    visited = np.empty((num_steps, num_models), np.int32)
    for row, step in enumerate(range(first_step, first_step + num_steps)):
        visited[row] = np.random.default_rng([seed, step]).permutation(num_agents)[:num_models]
    return visited


def take_visited(
    data: Any,
    indices: Int[Array | np.ndarray, "agents batch"],
    *,
    visited: Int[Array | np.ndarray, " models"],
) -> Any:
    """Gathers for every model the batch of the agent that it visits; may be called in ``jit``.

    Args:
        data: a stacked pytree, such as an :class:`AgentData`, leaves of shape ``(N, n_max, ...)``.
        indices: of each agent's samples, shape (N, batch), see :func:`batch_indices`.
        visited: of one step, shape (k,), see :func:`visits`.

    Returns:
        The tree with leaves of shape ``(k, batch, ...)``.

    Example::

        visited = cdjax.data.visits(8, 4, first_step=0, num_steps=5, seed=0)
        indices = cdjax.data.batch_indices(sizes, 2, first_step=0, num_steps=5, seed=0)
        batch = cdjax.data.take_visited((images, labels), indices[0], visited=visited[0])
    """
    rows = indices[visited]
    return jax.tree.map(lambda x: x[visited[:, None], rows], data)
