"""Where the agents of a graph stand in a picture of it.

Kamada, Kawai, *An Algorithm for Drawing General Undirected Graphs*, Information Processing Letters
1989.

Fruchterman, Reingold, *Graph Drawing by Force-directed Placement*, Software: Practice and
Experience 1991.
"""

from __future__ import annotations

import networkx as nx
import numpy as np
from jaxtyping import Float

from cdjax.topology._spectrum import closed_form
from cdjax.topology._topology import Topology

# Kamada and Kawai's springs between all pairs take half a second for so many agents, and time with
# the cube of their number; Fruchterman and Reingold's, with the square, take seconds for these.
_MOST_BY_PAIRS = 40
_MOST_BY_FORCES = 500


def positions(topology: Topology) -> Float[np.ndarray, "agents 2"]:
    """The agents' places in the square [-1, 1]², the same at every call.

    Graphs that look the same from every agent in turn (ring, complete, exponential) stand on a
    circle, and so do those that are too large for springs; springs between the agents draw others.
    """
    num_agents, graph = topology.num_agents, topology.graph
    if num_agents == 1:
        return np.zeros((1, 2))
    turns_into_itself = closed_form(topology.entries, None) is not None
    if turns_into_itself or num_agents > _MOST_BY_FORCES:
        angles = np.pi / 2 - 2 * np.pi * np.arange(num_agents) / num_agents  # clockwise from above
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if num_agents <= _MOST_BY_PAIRS and nx.is_connected(graph):
        places = nx.kamada_kawai_layout(graph)
    else:
        # From random places grids would end up folded; eigenvectors put equal agents into one.
        apart = 0.05 * np.random.default_rng(0).standard_normal((num_agents, 2))
        start = {agent: at + apart[agent] for agent, at in nx.spectral_layout(graph).items()}
        places = nx.spring_layout(graph, pos=start, seed=0)
    found = np.array([places[agent] for agent in range(num_agents)])
    found = found - (found.min(axis=0) + found.max(axis=0)) / 2
    return found / max(np.max(np.abs(found)), 1e-12)
