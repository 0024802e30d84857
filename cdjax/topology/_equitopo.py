"""EquiTopo: random circulant graphs whose contraction does not depend on the number of agents.

Song, Li, Jin, Shi, Yan, Yin, Yuan, *Communication-Efficient Topologies for Decentralized Learning
with O(1) Consensus Rate*, NeurIPS 2022, arXiv:2210.07881.
"""

from __future__ import annotations

import math

import networkx as nx
import numpy as np

from cdjax._checks import check_count, check_num_agents
from cdjax.topology._builders import from_matrix
from cdjax.topology._topology import Topology

_MOST_DRAWS = 1000


def equistatic(
    num_agents: int, num_draws: int | None = None, *, directed: bool = False, seed: int = 0
) -> Topology:
    r"""The mean of random basis graphs: the agents hear others at a few random distances.

    .. math:: \Pi = \frac 1 M \sum_{m = 1}^M A^{(a_m)}, \quad
              A^{(a)} = \frac 1 N I + \frac{N - 1}{N} S^a, \quad (S x)^j = x^{(j + 1) \bmod N}

    with distances a drawn from 1..N−1, independently; the mean of all N − 1 basis matrices is
    :math:`11^\top / N`. It is symmetrized, :math:`(\Pi + \Pi^\top) / 2`, unless it is directed,
    and redrawn until it is connected.

    Args:
        num_agents: N.
        num_draws: M; by default :math:`\lceil 2 \ln N \rceil`.
        directed: whether agents hear at distances a only, and not at −a; then Π is doubly
            stochastic, but not symmetric.
        seed: of the draws.

    Returns:
        The topology; all its diagonals are constant, which :func:`cdjax.mixing.shifts` uses.

    Raises:
        ValueError: if N or M is below 1, or none of a thousand draws is connected.

    Example: ``topology = cdjax.topology.equistatic(32, 8)``

    Reference: Song et al. (2022), Algorithms 1 and 2, D- and U-EquiStatic (numbers not verified).
    """
    check_num_agents(num_agents)
    if num_draws is None:
        num_draws = max(1, math.ceil(2 * math.log(num_agents)))
    check_count("num_draws", num_draws, low=1)
    check_count("seed", seed, low=0)
    rng, agents = np.random.default_rng(seed), np.arange(num_agents)
    name = "directed equistatic" if directed else "equistatic"
    for _ in range(_MOST_DRAWS):
        distances = rng.integers(1, max(2, num_agents), size=num_draws)
        matrix = np.eye(num_agents) / num_agents
        for distance in distances.tolist():
            share = (num_agents - 1) / num_agents / num_draws
            matrix[agents, (agents + distance) % num_agents] += share
        if not directed:
            matrix = (matrix + matrix.T) / 2
        topology = from_matrix(matrix, name=name, validate=False)
        if nx.is_connected(topology.graph):
            return topology
    raise ValueError(
        f"num_draws is {num_draws}; none of {_MOST_DRAWS} draws connects {num_agents} agents; give "
        "more"
    )
