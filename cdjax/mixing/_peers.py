"""Gossip: mixers in which every agent talks to one peer per step.

Who talks to whom is a function ``peers(step)`` that names one peer per agent; an agent that is its
own peer is silent. Random peers are drawn by ``fold_in(key, step)``, so that a run that starts
again at step k replays step k.

Jin, Yuan, Iandola, Keutzer, *How to scale distributed deep learning?*, 2016, arXiv:1611.04581.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, PRNGKeyArray

from cdjax._checks import (
    check_callable,
    check_indices,
    check_key,
    check_probability,
    check_stacked,
    check_step,
    check_topology,
)
from cdjax._trees import along_agents, map_floats
from cdjax._types import Mixer, Params
from cdjax.mixing._visits import is_divided, pulls_of_heard, pulls_of_senders
from cdjax.sharding import AXIS
from cdjax.topology import Topology


@runtime_checkable
class Peers(Protocol):
    """Names each agent's peer at a step; a silent agent is its own."""

    def __call__(self, step: int | Int[Array, ""]) -> Int[Array, " agents"]:
        """Returns the number of every agent's peer, shape (N,)."""
        ...


def random_peers(topology: Topology, key: PRNGKeyArray, *, probability: float = 1.0) -> Peers:
    """Draws one of its neighbours for every agent, independently of the other agents.

    Args:
        topology: a graph whose edges join possible peers; ``topology.complete(N)`` for all.
        key: of all draws.
        probability: p in [0, 1] that an agent talks at a step.

    Returns:
        A function from the step to peers, shape (N,): each a neighbour with the same chance, or the
        agent itself when it is silent or has no neighbour.

    Raises:
        ValueError: if the probability is out of its range.

    Example: ``mix = cdjax.mixing.pull(cdjax.mixing.random_peers(topology, key))``
    """
    check_topology(topology)
    check_key(key)
    check_probability("probability", probability)
    neighbors = [sorted(topology.graph[j]) or [j] for j in range(topology.num_agents)]
    degrees = np.array([len(row) for row in neighbors])
    table = np.array([row + row[:1] * (degrees.max() - len(row)) for row in neighbors])
    agents = np.arange(topology.num_agents)

    def peers(step: int | Int[Array, ""]) -> Int[Array, " agents"]:
        talk_key, peer_key = jax.random.split(jax.random.fold_in(key, step))
        talks = jax.random.bernoulli(talk_key, probability, agents.shape)
        drawn = jnp.asarray(table)[agents, jax.random.randint(peer_key, agents.shape, 0, degrees)]
        return jnp.where(talks, drawn, agents)

    return peers


def random_pairs(topology: Topology, key: PRNGKeyArray) -> Peers:
    """Draws disjoint pairs of neighbours, until no two free agents are neighbours.

    The edges come in a random order, and each pairs its agents if both are still free. On a
    complete graph all agents are paired, except for one where N is odd.

    Args:
        topology: a graph whose edges join possible pairs; ``topology.complete(N)`` for all.
        key: of all draws.

    Returns:
        A function from the step to peers, shape (N,): the partner, whose peer is the agent in turn,
        or the agent itself when it has none.

    Example: ``mix = cdjax.mixing.pull(cdjax.mixing.random_pairs(topology, key))``
    """
    check_topology(topology)
    check_key(key)
    agents = np.arange(topology.num_agents, dtype=np.int32)
    first, second = np.array(topology.graph.edges, np.int32).reshape(-1, 2).T

    def match_favorites(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        ranks, partners = carry
        best = jnp.zeros(len(agents), ranks.dtype).at[first].max(ranks).at[second].max(ranks)
        agree = (ranks > 0) & (ranks == best[first]) & (ranks == best[second])
        # An index beyond the last agent drops what the other edges would write.
        ends = (jnp.where(agree, end, len(agents)) for end in (first, second))
        for end, other in zip(ends, (second, first), strict=True):
            partners = partners.at[end].set(other, mode="drop")
        free = partners == agents
        return jnp.where(free[first] & free[second], ranks, 0), partners

    def peers(step: int | Int[Array, ""]) -> Int[Array, " agents"]:
        # Of each edge, the highest first; 0 where one of its agents is no longer free.
        ranks = 1 + jax.random.permutation(jax.random.fold_in(key, step), len(first))
        # Going through the edges one by one would take as many rounds as there are edges. Instead
        # all agents that are each other's favourite, over their best free edge, pair at once: no
        # edge of a higher rank can take either of them. The best free edge of all always joins such
        # agents, and no two ranks tie, so every round pairs somebody and the loop ends.
        start = (ranks, jnp.asarray(agents))
        return jax.lax.while_loop(lambda carry: jnp.any(carry[0]), match_favorites, start)[1]

    return peers


def pull(peers: Peers, *, mesh: Mesh | None = None, axis: str = AXIS) -> Mixer:
    r"""Every agent averages with its peer.

    .. math:: x^j \leftarrow (x^j + x^{p(j)}) / 2

    With :func:`random_pairs` both sides take the same average, and the mean over agents stays; with
    :func:`random_peers` it stays only in expectation, and only on regular graphs.

    Args:
        peers: from the step to each agent's peer.
        mesh: the devices over which the agents are divided, if they are: then one block of agents
            after another visits each device, and of distances at which nobody talks none; otherwise
            each device gathers all agents.
        axis: the name of the agents' axis of the mesh.

    Returns:
        A mixer; it needs the step.

    Reference: Jin et al. (2016), pull-gossip.
    """

    def average(peer: Int[Array, " agents"], tree: Params) -> Params:
        if not is_divided(mesh, axis):
            return map_floats(lambda x: (x + x[peer]) / 2, tree)
        pulls = pulls_of_heard(tree, peer[None], mesh, axis)
        return map_floats(lambda x, pull: x + pull / 2, tree, pulls)

    return _along_peers(peers, "pull", average)


def push(peers: Peers, *, mesh: Mesh | None = None, axis: str = AXIS) -> Mixer:
    r"""Every agent sends to its peer, and averages what arrives with its own parameters.

    .. math:: x^j \leftarrow \Big( x^j + \sum_{p(l) = j} x^l \Big) / (1 + |\{ l : p(l) = j \}|)

    Args:
        peers: from the step to each agent's peer.
        mesh: the devices over which the agents are divided, if they are: then one block of agents
            after another visits each device, and of distances at which nobody talks none; otherwise
            each device gathers all agents.
        axis: the name of the agents' axis of the mesh.

    Returns:
        A mixer; it needs the step.

    Example: ``mix = cdjax.mixing.push(cdjax.mixing.random_peers(topology, key))``

    Reference: Jin et al. (2016), push-gossip.
    """

    def average(peer: Int[Array, " agents"], tree: Params) -> Params:
        sends = peer != jnp.arange(len(peer), dtype=peer.dtype)
        num_terms = jnp.ones(len(peer)).at[peer].add(sends.astype(float))
        pulls = pulls_of_senders(tree, peer[None], mesh, axis)  # of itself a silent agent has none
        return map_floats(lambda x, pull: x + pull / along_agents(num_terms, x), tree, pulls)

    return _along_peers(peers, "push", average)


def _along_peers(
    peers: Peers, name: str, average: Callable[[Int[Array, " agents"], Params], Params]
) -> Mixer:
    """The mixer that averages along the step's peers."""
    check_callable("peers", peers, "a function of the step, as of cdjax.mixing.random_pairs")

    def mix(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        peer = peers(check_step(step, name))
        if np.ndim(peer) != 1:
            raise ValueError(
                f"peers gave shape {np.shape(peer)}; give every agent's peer, shape (N,)"
            )
        check_indices("peers", peer, len(peer), "agents")
        check_stacked(tree, len(peer), holder="peers")
        return average(jnp.asarray(peer), tree)

    return mix
