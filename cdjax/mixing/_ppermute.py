"""Mixing where one agent is one device: code already inside of pmap, shard_map or a named vmap."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from cdjax._checks import check_topology
from cdjax._trees import map_floats_together, scalar_like, widened
from cdjax._types import Mixer, Params
from cdjax.mixing._dense import row_sums
from cdjax.mixing._rounds import Round, cut_into_rounds, send
from cdjax.topology import Topology


def ppermute(topology: Topology, axis_name: str) -> Mixer:
    r"""A mixer for code in which every device along a mapped axis is one agent.

    .. math:: \text{mixed}^j = x^j + \sum_r \Pi_{j, l_r(j)} (x^{l_r(j)} - x^j)

    with :math:`l_r(j)` the agent from which agent j receives in round r. There are as many rounds
    of collective permutes as the most neighbours that an agent has.

    Args:
        topology: the graph and its mixing matrix; agent j is the device of index j.
        axis_name: the axis of ``jax.pmap``, ``jax.shard_map`` or ``jax.vmap(axis_name=...)``.

    Returns:
        A mixer for the tree of one agent, without an agent axis. It raises ValueError where the
        axis is not of length N. Leaves that are not floating point (counters) pass unchanged.

    Example::

        mix = cdjax.mixing.ppermute(topology, "agents")
        mixed = jax.vmap(mix, axis_name="agents")(params)  # or jax.pmap, on 8 devices

    Reference: Jiang et al. (2017), eq. 5, the term :math:`\sum_l \pi_{jl} x_k^l`.
    """
    check_topology(topology)
    num_agents = topology.num_agents
    rounds, weights = _rounds_and_weights(topology)

    def mix(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        del step
        size = lax.axis_size(axis_name)
        if size != num_agents:
            raise ValueError(
                f"axis {axis_name!r} has length {size}, but the topology has {num_agents} agents; "
                "one device is one agent here, for several see cdjax.mixing.exchange"
            )
        own_weights = jnp.asarray(weights)[lax.axis_index(axis_name)]

        def mix_leaves(leaves: list[Array]) -> list[Array]:
            # Leaves travel as they are, and are widened where they arrive.
            own = [widened(x) for x in leaves]
            moved = [jnp.zeros_like(x) for x in own]
            for links, weight in zip(rounds, own_weights[1:], strict=True):
                arrived = send(leaves, axis_name, links)
                moved = [
                    m + scalar_like(weight, x) * (widened(y) - x)
                    for m, x, y in zip(moved, own, arrived, strict=True)
                ]
            mixed = [
                scalar_like(own_weights[0], x) * x + m for x, m in zip(own, moved, strict=True)
            ]
            return [m.astype(x.dtype) for m, x in zip(mixed, leaves, strict=True)]

        return map_floats_together(mix_leaves, tree)

    return mix


def _rounds_and_weights(
    topology: Topology,
) -> tuple[list[Round], Float[np.ndarray, "agents terms"]]:
    """The rounds, and the weights of an agent's own leaves and of those that each round brings."""
    # A link's weight, until the first round that uses the link: an idle link may repeat a real one.
    # A device is an agent here, so the whole matrix is small.
    matrix = topology.mixing_matrix
    weight_left = matrix * ~np.eye(len(matrix), dtype=bool)
    receivers, senders = np.nonzero(weight_left)
    # Shift by shift: all links of a ring that go the same way are one round.
    order = np.argsort((receivers - senders) % len(matrix), kind="stable")
    links = np.stack([senders, receivers], axis=1)[order]
    idle = _idle_links(weight_left != 0)
    rounds = cut_into_rounds(np.concatenate([links, idle]), len(matrix))
    weights = [row_sums(topology.entries)]
    for links in rounds:
        senders, receivers = np.array(links).T
        received = np.zeros(len(matrix))
        received[receivers] = weight_left[receivers, senders]
        weight_left[receivers, senders] = 0.0
        weights.append(received)
    return rounds, np.stack(weights, axis=1)


def _idle_links(linked: Bool[np.ndarray, "agents agents"]) -> Int[np.ndarray, "links 2"]:
    """Links of no weight that make every round a permutation, the only kind that vmap supports.

    With them every agent sends and receives as often as the busiest one. What an agent lacks both
    ways is filled up by links to itself, the rest by links between agents that lack one way.
    """
    sends_and_receives = linked.sum(axis=0), linked.sum(axis=1)
    busiest = np.max(sends_and_receives)
    to_self = busiest - np.max(sends_and_receives, axis=0)
    agents = np.arange(len(linked))
    loops = np.repeat(agents, to_self)
    rest = [np.repeat(agents, busiest - counts - to_self) for counts in sends_and_receives]
    return np.stack([np.concatenate([loops, ends]) for ends in rest], axis=1)
