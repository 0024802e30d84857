"""Mixers for networks in which some agents send whatever they like.

Yin, Chen, Ramchandran, Bartlett, *Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates*, ICML 2018, arXiv:1803.01498: the coordinate-wise median and trimmed mean, here
over every agent's closed neighbourhood: the agent and its neighbours.

He, Karimireddy, Jaggi, *Byzantine-Robust Decentralized Learning via ClippedGossip*, 2022,
arXiv:2202.01545.

Links may fail besides, by the same faults as those of :func:`cdjax.robust.faulty`: an agent that
does not hear a neighbour takes its own value in that neighbour's place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cdjax._checks import check_count, check_range, check_stacked, check_topology
from cdjax._trees import along_agents
from cdjax._types import Mixer, Params, ScalarOrSchedule
from cdjax.mixing._dense import leafwise
from cdjax.mixing._neighbors import padded_columns
from cdjax.robust._links import (
    Fault,
    Links,
    check_faults,
    failed_links,
    heard_by_slot,
    links_of,
)
from cdjax.topology import Topology


def trimmed_mean(topology: Topology, num_trimmed: int, *faults: Fault) -> Mixer:
    r"""A mixer that averages what is left when the extremes are cut off, number by number.

    .. math:: \text{mixed}^j = \frac{1}{m_j - 2b} \sum_{i = b + 1}^{m_j - b} x^{(i)}

    with :math:`x^{(1)} \le \dots \le x^{(m_j)}` the values of one parameter at agent j and its
    neighbours, in order. While no more than b of them are malicious, the result lies between the
    smallest and the largest honest value. The weights of Π are not used, and the mean over agents
    moves.

    Args:
        topology: its links say who hears whom.
        num_trimmed: b, how many values are cut off at either end, at least 0.
        *faults: a link fails if any of them says so.

    Returns:
        A mixer for stacked trees with N agents. A value that is not a number counts as the largest;
        complex leaves are trimmed by their real and imaginary parts.

    Raises:
        ValueError: if an agent has too few neighbours to cut off so many.

    Example::

        mix = cdjax.robust.trimmed_mean(cdjax.topology.complete(10), num_trimmed=2)

    Reference: Yin et al. (2018), Definition 2.
    """
    check_topology(topology)
    check_count("num_trimmed", num_trimmed, low=0)
    neighborhoods = _closed_neighborhoods(topology)
    sizes = (neighborhoods >= 0).sum(axis=1)
    smallest = int(np.argmin(sizes))
    if sizes[smallest] <= 2 * num_trimmed:
        raise ValueError(
            f"num_trimmed is {num_trimmed}, but agent {smallest} hears {sizes[smallest]} agents, "
            f"itself included; give at most {(sizes[smallest] - 1) // 2}"
        )
    return _mean_of_middle(topology, neighborhoods, np.full(len(sizes), num_trimmed), faults)


def median(topology: Topology, *faults: Fault) -> Mixer:
    r"""A mixer that takes the median over an agent and its neighbours, number by number.

    Of an even number of values it is the mean of the middle two. While the honest ones are more
    than half, the result lies between the smallest and the largest honest value. The weights of Π
    are not used, and the mean over agents moves.

    Args:
        topology: its links say who hears whom.
        *faults: a link fails if any of them says so.

    Returns:
        A mixer for stacked trees with N agents. A value that is not a number counts as the largest;
        complex leaves have the medians of their real and imaginary parts.

    Example::

        mix = cdjax.robust.median(cdjax.topology.complete(10))

    Reference: Yin et al. (2018), Definition 1.
    """
    check_topology(topology)
    neighborhoods = _closed_neighborhoods(topology)
    sizes = (neighborhoods >= 0).sum(axis=1)
    return _mean_of_middle(topology, neighborhoods, (sizes - 1) // 2, faults)


def clipped_gossip(topology: Topology, radius: ScalarOrSchedule, *faults: Fault) -> Mixer:
    r"""A mixer in which no neighbour moves an agent by more than a radius times its weight.

    .. math:: \text{mixed}^j = x^j + \sum_{l \ne j} \Pi_{jl} \, \text{clip}(x^l - x^j, \tau), \qquad
              \text{clip}(z, \tau) = z \min(1, \tau / \|z\|)

    The norm is taken over all floating-point leaves of an agent together. With a symmetric Π the
    mean over agents stays.

    Args:
        topology: the graph and its mixing matrix of shape (N, N).
        radius: :math:`\tau`, at least 0, in the units of the parameters: a number, also infinite
            (nothing is clipped), or a schedule of the step.
        *faults: a link fails if any of them says so.

    Returns:
        A mixer for stacked trees with N agents. What is not at a finite distance is not heard.

    Raises:
        ValueError: if the radius is negative or not a number.

    Example::

        mix = cdjax.robust.clipped_gossip(topology, 1.0)

    Reference: He et al. (2022), Section 4.
    """
    check_topology(topology)
    if not (isinstance(radius, float) and radius == math.inf):
        check_range("radius", radius, low=0)
    check_faults(faults)
    links = links_of(topology.mixing_matrix)

    def mix(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        check_stacked(tree, topology.num_agents)
        leaves, structure = jax.tree.flatten(tree)
        floating = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.inexact)]
        own = [_widened(leaves[i]) for i in floating]
        tau = radius(step) if callable(radius) else radius
        failed = failed_links(links, faults, step)
        mixed = own
        for senders, weights in heard_by_slot(links, failed):
            differences = [x[senders] - x for x in own]
            norms = _norms(differences, topology.num_agents)
            scale = jnp.where(norms > tau, tau / jnp.maximum(norms, 1e-30), 1)
            heard = jnp.isfinite(norms)
            mixed = [
                m + jnp.where(along_agents(heard, d), along_agents(scale * weights, d) * d, 0)
                for m, d in zip(mixed, differences, strict=True)
            ]
        for i, x in zip(floating, mixed, strict=True):
            leaves[i] = x.astype(leaves[i].dtype)
        return jax.tree.unflatten(structure, leaves)

    return mix


def _closed_neighborhoods(topology: Topology) -> Int[np.ndarray, "agents slots"]:
    """Each agent's neighbours and itself; -1 in a slot that it does not need."""
    return padded_columns((topology.mixing_matrix != 0) | np.eye(topology.num_agents, dtype=bool))


def _mean_of_middle(
    topology: Topology,
    neighborhoods: Int[np.ndarray, "agents slots"],
    num_trimmed: Int[np.ndarray, " agents"],
    faults: Sequence[Fault],
) -> Mixer:
    """The mean of each neighbourhood's values but the ``num_trimmed`` smallest and largest."""
    check_faults(faults)
    links, num_agents = links_of(topology.mixing_matrix), topology.num_agents
    kinds = np.column_stack([neighborhoods, num_trimmed])
    if faults:
        kind_of_agent = np.arange(num_agents)
    else:
        # Agents that hear the same, all of a complete graph, share the work.
        kinds, kind_of_agent = np.unique(kinds, axis=0, return_inverse=True)
    members, trimmed = kinds[:, :-1], kinds[:, -1]
    sizes = (members >= 0).sum(axis=1)

    def real_leaf(
        senders: Int[Array | np.ndarray, "kinds slots"], x: Float[Array, "agents ..."]
    ) -> Float[Array, "agents ..."]:
        x = jnp.where(jnp.isnan(x), jnp.inf, x)
        # Empty slots come last in the order, where no agent looks.
        values = [
            jnp.where(along_agents(column >= 0, x), x[jnp.maximum(column, 0)], jnp.inf)
            for column in senders.T
        ]
        total = jnp.zeros([], x.dtype)
        for rank, ranked in enumerate(_in_order(values)):
            is_kept = (trimmed <= rank) & (rank < sizes - trimmed)
            if is_kept.any():
                total += jnp.where(along_agents(is_kept, x), ranked, 0)
        return (total / along_agents(sizes - 2 * trimmed, x))[kind_of_agent.ravel()]

    def mix(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        senders = members
        if faults:
            fails = _in_slots(links, neighborhoods, failed_links(links, faults, step))
            senders = jnp.where(fails, np.arange(num_agents)[:, None], members)

        def mix_leaf(x: Array) -> Array:
            if jnp.iscomplexobj(x):
                return jax.lax.complex(real_leaf(senders, x.real), real_leaf(senders, x.imag))
            return real_leaf(senders, x)

        return leafwise(num_agents, mix_leaf)(tree)

    return mix


def _in_slots(
    links: Links, neighborhoods: Int[np.ndarray, "agents slots"], failed: Bool[Array, " links"]
) -> Bool[Array, "agents slots"]:
    """Whether the link fails on which each slot's agent is heard; none leads to an agent itself."""
    agents = np.arange(len(neighborhoods))[:, None]
    is_link = (neighborhoods >= 0) & (neighborhoods != agents)
    # Links come in this order too: by receiver, and by sender.
    return jnp.zeros(neighborhoods.shape, bool).at[np.nonzero(is_link)].set(failed)


def _in_order(values: list[Array]) -> list[Array]:
    """Sorts equal-shaped arrays against each other, element by element.

    By minima and maxima, which fuse: ``jnp.sort`` would take a copy of x for every neighbour.
    """
    values = list(values)
    for i, j in comparators(len(values)):
        values[i], values[j] = jnp.minimum(values[i], values[j]), jnp.maximum(values[i], values[j])
    return values


def comparators(num_values: int) -> Iterator[tuple[int, int]]:
    """Batcher's merge exchange: pairs of places to bring in order, one after another.

    Reference: Knuth (1998), *The Art of Computer Programming* 3, section 5.2.2, Algorithm M.
    """
    stride = top = 1 << max(0, (num_values - 1).bit_length() - 1)
    while stride:
        width, remainder, distance = top, 0, stride
        while True:
            for i in range(num_values - distance):
                if i & stride == remainder:
                    yield i, i + distance
            if width == stride:
                break
            distance, width, remainder = width - stride, width >> 1, stride
        stride >>= 1


def _widened(x: Array) -> Array:
    return jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))


def _norms(leaves: list[Array], num_agents: int) -> Float[Array, " agents"]:
    squares = [jnp.sum(jnp.square(jnp.abs(x)), axis=tuple(range(1, x.ndim))) for x in leaves]
    return jnp.sqrt(sum(squares, start=jnp.zeros(num_agents)))
