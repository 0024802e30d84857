"""Runs without some of their agents: who is left, and the graph among them."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np

from cdjax import Topology, topology
from experiments.run.errors import UsageError, blame


def living(num_agents: int, without: Sequence[int]) -> list[int]:
    """The numbers of the agents that are left of ``num_agents``."""
    return [agent for agent in range(num_agents) if agent not in without]


def restricted(graph: Topology, without: Sequence[int]) -> Topology:
    """The graph among the agents that are left.

    The weight that an agent gave to those that are gone goes back to itself, so that rows and
    columns still sum to one.

    Args:
        graph: the whole graph.
        without: the numbers of the agents that are gone.

    Returns:
        The topology on the rest, numbered anew from 0 in their order.

    Raises:
        UsageError: if there is no such agent, nobody is left, or the rest is not connected.
    """
    if not without:
        return graph
    gone = sorted({*without})
    if strangers := [agent for agent in gone if not 0 <= agent < graph.num_agents]:
        last = graph.num_agents - 1
        raise UsageError(f"--without-agents: {strangers[0]} is no agent; give numbers 0 to {last}")
    rest = living(graph.num_agents, gone)
    if not rest:
        raise UsageError(f"--without-agents: of {graph.num_agents} agents nobody is left")
    parts = [sorted(part) for part in nx.connected_components(graph.graph.subgraph(rest))]
    if len(parts) > 1:
        shown = " and ".join(map(str, parts[:4]))
        raise UsageError(f"--without-agents: without {gone} the graph falls apart into {shown}")
    matrix = graph.mixing_matrix[np.ix_(rest, rest)]
    matrix += np.diag(1 - matrix.sum(axis=1))
    with blame("--without-agents"):
        return topology.from_matrix(matrix, name=f"{graph.name} without {gone}")
