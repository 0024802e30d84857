"""Mixers that change from step to step: periods, cycles, and gossip with random peers.

None holds a state: each is a function of the step, random ones by ``fold_in(key, step)``, so that a
run that starts again at step k replays step k.

Who talks to whom is a function ``peers(step)`` that names one peer an agent; an agent that is its
own peer stays silent. :func:`random_peers` and :func:`random_pairs` draw them, :func:`pull` and
:func:`push` mix along them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from cdjax._checks import (
    check_callable,
    check_count,
    check_key,
    check_mixer,
    check_probability,
    check_stacked,
    check_topology,
)
from cdjax._types import Mixer, Params
from cdjax.topology import Topology


@runtime_checkable
class Peers(Protocol):
    """Names each agent's peer at a step; a silent agent is its own."""

    def __call__(self, step: int | Int[Array, ""]) -> Int[Array, " agents"]:
        """Returns the number of every agent's peer, shape (N,)."""
        ...


def every(period: int, mix: Mixer) -> Mixer:
    """Mixes at the last of every ``period`` steps and leaves the tree alone at the others.

    The inner mixer reads the round, ``step // period``, in place of the step: a cycle of mixers
    advances by one a mix, whatever the period.

    Args:
        period: τ, in steps, at least 1.
        mix: the mixer.

    Returns:
        A mixer that acts at the steps τ − 1, 2τ − 1, ...

    Raises:
        ValueError: if the period is below 1.

    Example::

        mix = cdjax.mixing.every(10, cdjax.mixing.auto(topology))
    """
    check_count("period", period, low=1)
    check_mixer(mix)
    if period == 1:
        return mix

    def mix_at_last_step(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        is_last = (step + 1) % period == 0
        return jax.lax.cond(is_last, mix, _leave_alone, tree, step // period)

    return mix_at_last_step


def cycle(*mixers: Mixer) -> Mixer:
    """Mixes with one mixer after another: step k with number k mod the number of mixers.

    Args:
        mixers: at least one.

    Returns:
        A mixer; each of ``mixers`` is told the step.

    Raises:
        ValueError: without a mixer.

    Example::

        mix = cdjax.mixing.cycle(*(cdjax.mixing.dense(topology) for topology in one_peer_graphs))
    """
    if not mixers:
        raise ValueError("cycle needs at least one mixer")
    for mix in mixers:
        check_mixer(mix)

    def mix_in_turn(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        return jax.lax.switch(step % len(mixers), mixers, tree, jnp.asarray(step))

    return mix_in_turn


def random_peers(topology: Topology, key: PRNGKeyArray, *, probability: float = 1.0) -> Peers:
    """Draws for every agent, by itself, one of its neighbours.

    Args:
        topology: its graph's edges are the possible talks; ``topology.complete(N)`` for all.
        key: of all draws.
        probability: p in [0, 1] that an agent talks at a step.

    Returns:
        A function from the step to peers, shape (N,): each a neighbour with the same chance, or the
        agent itself when it is silent or has no neighbour.

    Raises:
        ValueError: if the probability is out of its range.

    Example::

        mix = cdjax.mixing.pull(cdjax.mixing.random_peers(cdjax.topology.ring(8), key))
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

    The edges come in a random order and each pairs its agents if both are still free. On a complete
    graph all agents are paired, but for one where N is odd.

    Args:
        topology: its graph's edges are the possible pairs; ``topology.complete(N)`` for all.
        key: of all draws.

    Returns:
        A function from the step to peers, shape (N,): the partner, whose peer is the agent in turn,
        or the agent itself when it has none.

    Example::

        mix = cdjax.mixing.pull(cdjax.mixing.random_pairs(cdjax.topology.complete(8), key))
    """
    check_topology(topology)
    check_key(key)
    agents = np.arange(topology.num_agents)
    first, second = np.array(topology.graph.edges, int).reshape(-1, 2).T

    def match_favorites(
        carry: tuple[Int[Array, "agents agents"], Int[Array, " agents"]],
    ) -> tuple[Int[Array, "agents agents"], Int[Array, " agents"]]:
        ranks, partners = carry
        favorites = jnp.argmax(ranks, axis=1)
        agree = (favorites[favorites] == agents) & jnp.any(ranks, axis=1)
        partners = jnp.where(agree, favorites, partners)
        free = partners == agents
        return jnp.where(jnp.logical_and.outer(free, free), ranks, 0), partners

    def peers(step: int | Int[Array, ""]) -> Int[Array, " agents"]:
        order = 1 + jax.random.permutation(jax.random.fold_in(key, step), len(first))
        ranks = jnp.zeros((len(agents), len(agents)), order.dtype)
        ranks = ranks.at[first, second].set(order).at[second, first].set(order)
        # Two agents whose best free edge is the same one are a pair. The best edge of all always
        # is such, and no two ranks tie, so every round pairs somebody.
        start = (ranks, jnp.asarray(agents))
        return jax.lax.while_loop(_some_edge_is_free, match_favorites, start)[1]

    return peers


def pull(peers: Peers) -> Mixer:
    r"""Every agent averages with its peer: :math:`x^j \leftarrow (x^j + x^{p(j)}) / 2`.

    With :func:`random_pairs` the average is the same on both sides and the mean over agents stays;
    with :func:`random_peers` it stays in expectation alone, on regular graphs.

    Args:
        peers: from the step to each agent's peer.

    Returns:
        A mixer.

    Reference: Jin, Yuan, Iandola, Keutzer (2016), *How to scale distributed deep learning?*,
    arXiv:1611.04581, pull-gossip.
    """
    check_callable("peers", peers, "a function of the step, as of cdjax.mixing.random_pairs")

    def mix(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        peer = peers(step)
        check_stacked(tree, len(peer), holder="peers")
        return _map_floats(lambda x: (x + x[peer]) / 2, tree)

    return mix


def push(peers: Peers) -> Mixer:
    r"""Every agent sends to its peer, and averages what arrives with its own.

    .. math:: x^j \leftarrow \Big( x^j + \sum_{p(l) = j} x^l \Big) / (1 + |\{ l : p(l) = j \}|)

    Args:
        peers: from the step to each agent's peer.

    Returns:
        A mixer.

    Reference: Jin, Yuan, Iandola, Keutzer (2016), *How to scale distributed deep learning?*,
    arXiv:1611.04581, push-gossip.
    """
    check_callable("peers", peers, "a function of the step, as of cdjax.mixing.random_pairs")

    def mix(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        peer = peers(step)
        check_stacked(tree, len(peer), holder="peers")
        sends = peer != jnp.arange(len(peer))
        num_terms = jnp.ones(len(peer)).at[peer].add(sends)

        def average(x: Array) -> Array:
            total = x.at[peer].add(jax.vmap(jnp.multiply)(sends, x))
            return jax.vmap(jnp.divide)(total, num_terms.astype(x.dtype))

        return _map_floats(average, tree)

    return mix


def _leave_alone(tree: Params, step: Int[Array, ""]) -> Params:
    del step
    return tree


def _some_edge_is_free(carry: tuple[Array, Array]) -> Array:
    return jnp.any(carry[0])


def _map_floats(mix_leaf: Callable[[Array], Array], tree: Params) -> Params:
    """Mixes floating-point leaves, in float32 at least; counters pass unchanged."""

    def leaf(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return mix_leaf(x.astype(jnp.promote_types(x.dtype, jnp.float32))).astype(x.dtype)

    return jax.tree.map(leaf, tree)
