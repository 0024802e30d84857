"""Which links carry a message in a step: of mixers and peers that change with it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from cdjax._checks import check_callable, check_mixer
from cdjax._types import Mixer
from cdjax.mixing import Peers
from cdjax.network._clock import Heard
from cdjax.network._links import Links


def heard_through(mix: Mixer, links: Links) -> Heard:
    """The links that a mixer uses in a step: where its mixing matrix is not zero.

    The matrix of a step is what the mixer makes of the identity, so that this holds for every
    linear mixer: schedules, random graphs, and those over links that fail, for which nobody waits.

    Args:
        mix: a mixer for N agents.
        links: those of all edges that it may use.

    Returns:
        A function of the step; it takes N² numbers per step.

    Example::

        mix = cdjax.mixing.random_matchings(matchings, key)
        heard = cdjax.network.heard_through(mix, wires)
    """
    check_mixer(mix)

    def heard(step: int | Int[Array, ""]) -> Bool[Array, " links"]:
        matrix = mix(jnp.eye(links.num_agents), step)
        return matrix[jnp.asarray(links.receivers), jnp.asarray(links.senders)] != 0

    return heard


def heard_from_peers(peers: Peers, links: Links) -> Heard:
    """The links from each agent's peer to the agent, as ``cdjax.mixing.pull`` uses them.

    Args:
        peers: from the step to each agent's peer.
        links: those of all edges between possible peers.

    Returns:
        A function of the step.
    """
    check_callable("peers", peers, "a function of the step, as of cdjax.mixing.random_pairs")
    return lambda step: _joins(peers(step), links.receivers, links.senders)


def sent_to_peers(peers: Peers, links: Links) -> Heard:
    """The links from each agent to its peer, as ``cdjax.mixing.push`` uses them.

    Args:
        peers: from the step to each agent's peer; a silent agent is its own.
        links: those of all edges between possible peers.

    Returns:
        A function of the step.
    """
    check_callable("peers", peers, "a function of the step, as of cdjax.mixing.random_peers")
    return lambda step: _joins(peers(step), links.senders, links.receivers)


def _joins(
    peers: Int[Array, " agents"],
    agents: Int[np.ndarray, " links"],
    others: Int[np.ndarray, " links"],
) -> Bool[Array, " links"]:
    """Whether each link joins an agent to its peer."""
    return peers[jnp.asarray(agents)] == jnp.asarray(others, peers.dtype)
