"""Mixing by reading neighbours: a table of them, and one row of x per slot of the table."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cdjax._checks import check_topology
from cdjax._trees import along_agents
from cdjax._types import Mixer
from cdjax.mixing._dense import leafwise, pulls_to_others, row_sums, weighted
from cdjax.topology import Topology
from cdjax.topology._entries import Entries, entries_of

# In rows read by every agent: a full row measures one (two CPU cores, N up to 4096) and is a pass
# over x of its own.
_FULL_ROW_COST = 2


class NeighborTable(NamedTuple):
    """Π off its diagonal in sparse form: a padded table, except for agents with a full row.

    A slot of the table that agent j does not need holds j itself, with weight zero. The distinct
    rows of Π with so many neighbours that the table would be wide are in ``full_rows``;
    ``row_of_agent`` says which of them is agent j's, or -1 if it reads the table.
    """

    senders: Int[np.ndarray, "agents slots"]
    weights: Float[np.ndarray, "agents slots"]
    full_rows: Float[np.ndarray, "rows agents"]
    row_of_agent: Int[np.ndarray, " agents"]

    @property
    def cost(self) -> int:
        """How many rows of x an agent reads, besides its own."""
        return self.senders.shape[1] + _FULL_ROW_COST * len(self.full_rows)


def neighbors(topology: Topology) -> Mixer:
    r"""A mixer in which every agent reads only its neighbours' parameters.

    .. math:: \text{mixed}^j = x^j + \sum_{l \in N(j)} \Pi_{jl} (x^l - x^j)

    Under jit the sum and what follows it (the optimizer's update) are one pass that reads one row
    of x per neighbour and writes no other copy of x. The few agents of a graph that have far more
    neighbours (a star's hub) get their row by a product, which agents with equal rows share.

    Args:
        topology: the graph and its mixing matrix of shape (N, N).

    Returns:
        A mixer equal to ``dense(topology)`` up to rounding.

    Example: ``mix = cdjax.mixing.neighbors(cdjax.topology.random_regular(1024, degree=4))``

    Reference: Jiang et al. (2017), eq. 5, the term :math:`\sum_l \pi_{jl} x_k^l`.
    """
    check_topology(topology)
    table = neighbor_table(topology.entries)
    sums, reads_table = row_sums(topology.entries), table.row_of_agent < 0

    def mix_leaf(x: Array) -> Array:
        moved = jnp.zeros_like(x)
        # One take per slot: taken all at once, the neighbours would be a copy of x each.
        for senders, weights in zip(table.senders.T, table.weights.T, strict=True):
            moved += weighted(weights, x[senders] - x)
        mixed = weighted(sums, x) + moved
        if reads_table.all():
            return mixed
        # Not jnp.sum, which would not write the differences down: for rows of more than 16384
        # numbers XLA:CPU takes 4 to 15 times as long for it (16 to 256 agents, a compiled loop).
        full = weighted(sums, x[:1]) + pulls_to_others(table.full_rows, x)[table.row_of_agent]
        return jnp.where(along_agents(reads_table, x), mixed, full)

    return leafwise(topology.num_agents, mix_leaf)


def neighbor_table(matrix: Entries | Float[np.ndarray, "agents agents"]) -> NeighborTable:
    """The cheapest table for a mixing matrix of shape (N, N)."""
    entries = entries_of(matrix)
    links = entries.off_diagonal
    full_rows, row_of_agent = _full_rows(entries)
    links = links.where(row_of_agent[links.receivers] < 0)

    numbers = slots_of(links.receivers, entries.num_agents)
    agents = np.arange(entries.num_agents)[:, None]
    # One more in the end, for the slots that are not needed: -1 is its number.
    senders = np.where(numbers >= 0, np.append(links.senders, 0)[numbers], agents)
    weights = np.append(links.weights, 0.0)[numbers]
    return NeighborTable(senders, weights, full_rows, row_of_agent)


def slots_of(rows: Int[np.ndarray, " entries"], num_rows: int) -> Int[np.ndarray, "rows slots"]:
    """The numbers of each row's entries in a list by row; rows with fewer are filled up with -1."""
    counts = np.bincount(rows, minlength=num_rows)
    table = np.full((num_rows, np.max(counts, initial=0)), -1)
    # `rows` rises, so that searchsorted finds where each row's entries begin in the list.
    table[rows, np.arange(len(rows)) - np.searchsorted(rows, rows)] = np.arange(len(rows))
    return table


def _full_rows(
    entries: Entries,
) -> tuple[Float[np.ndarray, "rows agents"], Int[np.ndarray, " agents"]]:
    """Takes agents off the table as long as that lowers the cost; their rows, and whose they are.

    The table is as wide as the largest degree of the agents on it, so taking any others than those
    of the largest degrees off does not narrow it. One scan by falling degree therefore finds the
    best choice: after ``count`` agents the cost is the next degree for the table, and
    ``_FULL_ROW_COST`` for every distinct row among the agents that are off it. On a star the hub
    goes; on a complete graph all agents share one row, so all go, and the table is empty.
    """
    degrees = np.bincount(entries.off_diagonal.receivers, minlength=entries.num_agents)
    order = np.argsort(-degrees, kind="stable")
    widths = [*degrees[order], 0]  # of the table, by how many agents are off it
    best, num_full, distinct, rows = widths[0], 0, {}, np.full(entries.num_agents, -1)
    starts = np.searchsorted(entries.receivers, np.arange(entries.num_agents + 1))
    # Rows that are equal by construction differ by rounding.
    weights = np.round(entries.weights, 12)
    for count, agent in enumerate(order, start=1):
        row = slice(starts[agent], starts[agent + 1])
        kept = weights[row] != 0
        key = entries.senders[row][kept].tobytes(), weights[row][kept].tobytes()
        rows[agent] = distinct.setdefault(key, len(distinct))
        row_cost = _FULL_ROW_COST * len(distinct)
        if row_cost >= best:  # rows only get more, so nothing better follows
            break
        if row_cost + widths[count] < best:
            best, num_full = row_cost + widths[count], count
    rows[order[num_full:]] = -1  # these stay on the table
    holders = np.array([np.argmax(rows == row) for row in range(rows.max() + 1)], int)
    return entries.rows(holders), rows
