"""Chooses the plan that mixes a topology fastest."""

from __future__ import annotations

import functools
import math

import jax
from jax.sharding import Mesh

from cdjax._checks import check_topology
from cdjax._types import Mixer
from cdjax.mixing._dense import dense
from cdjax.mixing._exchange import exchange
from cdjax.mixing._neighbors import neighbor_table, neighbors
from cdjax.mixing._shifts import shifts, shifts_of
from cdjax.sharding import AXIS
from cdjax.topology import Topology
from cdjax.topology._entries import MOST_DENSE


def auto(topology: Topology, mesh: Mesh | None = None, *, axis: str = AXIS) -> Mixer:
    """The mixer of the plan that suits the topology, see :func:`choose`.

    Args:
        topology: the graph and its mixing matrix.
        mesh: the devices over which the agents are divided, if they are: then the mixer is
            :func:`exchange`, which gathers nothing.
        axis: the name of the agents' axis of the mesh.

    Returns:
        A mixer equal to ``dense(topology)`` up to rounding.

    Example: ``tx = cdjax.cdsgd(0.01, cdjax.mixing.auto(topology))``
    """
    check_topology(topology)
    if mesh is not None and mesh.shape.get(axis, 0) != 1:
        return exchange(topology, mesh, axis=axis)

    # At the first mix, not here: counting devices starts the backend, and a program of several
    # processes has to connect them before that.
    @functools.cache
    def chosen() -> Mixer:
        plans = {"dense": dense, "shifts": shifts, "neighbors": neighbors}
        return plans[choose(topology)](topology)

    return lambda tree, step=0: chosen()(tree, step)


def choose(topology: Topology) -> str:
    """The name of the plan that :func:`auto` takes.

    - ``dense`` for a graph of many edges: where an agent would read more than 8 + 2√N rows of x;
    - ``shifts`` for a sparse Π with no more diagonals than an agent has neighbours (ring, path,
      grid, exponential) on several devices, over which the agent axis may be sharded;
    - ``neighbors`` for the rest.

    Args:
        topology: the graph and its mixing matrix.

    Returns:
        ``dense``, ``neighbors`` or ``shifts``.

    Example: ``mix = getattr(cdjax.mixing, cdjax.mixing.choose(topology))(topology)``
    """
    check_topology(topology)
    rows_read = neighbor_table(topology.entries).cost
    if product_is_faster(rows_read, topology.num_agents) and topology.num_agents <= MOST_DENSE:
        return "dense"
    # A shift is a pass over x like a row read, but the shift by 0 is the agent's own row.
    num_shifts = len(shifts_of(topology.entries))
    return "shifts" if jax.device_count() > 1 and num_shifts <= 1 + rows_read else "neighbors"


def product_is_faster(rows_read: int, num_agents: int) -> bool:
    """Whether to multiply by all of Π rather than have every agent read so many rows of x."""
    # From so many rows read on, the product with Π is faster than reading neighbours, on 2 CPU
    # cores with AVX2 in float32; the lower number is for 32M parameters in all and steps in a
    # compiled loop, the higher one for 2M parameters or one step per dispatch into donated memory:
    #   N     16     64     256
    #   rows  9–>14  17–32  31–68
    return rows_read > 8 + 2 * math.sqrt(num_agents)
