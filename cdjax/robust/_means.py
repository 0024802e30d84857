"""Medians and trimmed means, for networks in which some agents send arbitrary values.

Yin, Chen, Ramchandran, Bartlett, *Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates*, ICML 2018, arXiv:1803.01498: the coordinate-wise median and trimmed mean, here
over an agent and its neighbours. In place of a value that does not arrive an agent takes its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from cdjax._checks import check_count, check_stacked, check_topology
from cdjax._trees import along_agents, map_floats
from cdjax._types import Mixer, Params
from cdjax.mixing._neighbors import slots_of
from cdjax.robust._links import Fault, Links, check_faults, failed_links, links_of
from cdjax.topology import Topology
from cdjax.topology._topology import agent_name


def trimmed_mean(topology: Topology, num_trimmed: int, *faults: Fault) -> Mixer:
    r"""A mixer that averages a neighbourhood's values without the extremes, number by number.

    .. math:: \text{mixed}^j = \frac{1}{m_j - 2b} \sum_{i = b + 1}^{m_j - b} x^{(i)}

    with :math:`x^{(1)} \le \dots \le x^{(m_j)}` the values of one parameter at agent j and its
    neighbours, in order. While no more than b of them are malicious, the result lies between honest
    values. The weights of Π are not used, and the mean over agents moves.

    Args:
        topology: its links say who hears whom.
        num_trimmed: b, how many values are cut off at either end, at least 0.
        *faults: a link fails if any of them says so.

    Returns:
        A mixer for stacked trees with N agents; with faults it needs the step. A value that is not
        a number counts as the largest; complex leaves are trimmed by real and imaginary part.

    Raises:
        ValueError: if an agent has too few neighbours to cut off that many.

    Example: ``mix = cdjax.robust.trimmed_mean(cdjax.topology.complete(10), num_trimmed=2)``

    Reference: Yin et al. (2018), Definition 2.
    """
    check_topology(topology)
    check_count("num_trimmed", num_trimmed, low=0)
    sizes = (_heard(topology) >= 0).sum(axis=1)
    smallest = int(np.argmin(sizes))
    if sizes[smallest] <= 2 * num_trimmed:
        name = agent_name(topology.labels, smallest)
        raise ValueError(
            f"num_trimmed is {num_trimmed}, but agent {name} hears {sizes[smallest]} agents, "
            f"itself included; give at most {(sizes[smallest] - 1) // 2}"
        )
    return _mean_of_middle(topology, num_trimmed, faults)


def median(topology: Topology, *faults: Fault) -> Mixer:
    r"""A mixer that takes the median over an agent and its neighbours, number by number.

    Of an even number of values it is the mean of the middle two. While more than half of the values
    are honest, it lies between two of them. The weights of Π are not used, and the mean moves.

    Args:
        topology: its links say who hears whom.
        *faults: a link fails if any of them says so.

    Returns:
        A mixer for stacked trees with N agents; with faults it needs the step. A value that is not
        a number counts as the largest; complex leaves get the medians of real and imaginary part.

    Example: ``mix = cdjax.robust.median(cdjax.topology.complete(10))``

    Reference: Yin et al. (2018), Definition 1.
    """
    check_topology(topology)
    sizes = (_heard(topology) >= 0).sum(axis=1, keepdims=True)
    return _mean_of_middle(topology, (sizes - 1) // 2, faults)


def _heard(topology: Topology) -> Int[np.ndarray, "agents slots"]:
    """Whom each agent hears, itself included; -1 in a slot that is not needed."""
    links, agents = topology.entries.off_diagonal, np.arange(topology.num_agents)
    codes = np.sort(np.append(links.codes, agents * (topology.num_agents + 1)))
    receivers, senders = np.divmod(codes, topology.num_agents)
    return np.append(senders, -1)[slots_of(receivers, topology.num_agents)]


class _Groups(NamedTuple):
    """Agents that hear the same ``senders`` (-1 in spare slots) share one result.

    ``is_kept`` says which of the values in order are averaged, ``of_agent`` names agents' groups.
    """

    senders: Int[Array | np.ndarray, "groups slots"]
    is_kept: Bool[np.ndarray, "groups slots"]
    of_agent: Int[np.ndarray, " agents"]


def _mean_of_middle(
    topology: Topology, num_trimmed: int | Int[np.ndarray, "agents 1"], faults: Sequence[Fault]
) -> Mixer:
    """The mean of each neighbourhood's values except the ``num_trimmed`` smallest and largest."""
    check_faults(faults)
    links, agents = links_of(topology.entries), np.arange(topology.num_agents)
    neighborhoods = _heard(topology)
    # Of m values in order, those of the ranks b to m − b − 1. Faults do not change m, because what
    # does not arrive is replaced and not left out, so the ranks do not depend on the step.
    ranks, sizes = np.arange(neighborhoods.shape[1]), (neighborhoods >= 0).sum(1, keepdims=True)
    is_kept = (num_trimmed <= ranks) & (ranks < sizes - num_trimmed)
    groups = _Groups(neighborhoods, is_kept, agents)
    if not faults:
        # On a complete graph everybody hears the same: one group, whose values are sorted once.
        # (With faults every agent may miss other neighbours, so each is a group of its own.)
        rows, first, of_agent = np.unique(
            neighborhoods, axis=0, return_index=True, return_inverse=True
        )
        groups = _Groups(rows, is_kept[first], of_agent.ravel())

    def mix(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        heard = groups
        if faults:
            fails = _in_slots(links, neighborhoods, failed_links(links, faults, step))
            heard = groups._replace(senders=jnp.where(fails, agents[:, None], neighborhoods))
        check_stacked(tree, len(agents))
        return map_floats(lambda x: _middle_mean(heard, x), tree)

    return mix


def _middle_mean(groups: _Groups, x: Shaped[Array, "agents ..."]) -> Shaped[Array, "agents ..."]:
    """Sorts each group's values of one leaf, and averages those of the kept ranks."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(_middle_mean(groups, x.real), _middle_mean(groups, x.imag))
    x = jnp.where(jnp.isnan(x), jnp.inf, x)
    # One array of shape (groups, ...) per slot. Empty slots come last, behind all kept ranks.
    values = [
        jnp.where(along_agents(slot >= 0, x), x[jnp.maximum(slot, 0)], jnp.inf)
        for slot in groups.senders.T
    ]
    ordered = _in_order(values)
    # Their mean is the first kept one plus the mean of the differences to it, of which equal values
    # have none: the mean of five equal values need not round to that value.
    first_ranks = groups.is_kept.argmax(axis=1)
    first = total = jnp.zeros([], x.dtype)
    for rank in np.unique(first_ranks):
        first = jnp.where(along_agents(first_ranks == rank, x), ordered[rank], first)
    for ranked, is_kept in zip(ordered, groups.is_kept.T, strict=True):
        if is_kept.any():  # else the compiler drops the comparisons that only this rank needs
            apart = jnp.where(ranked > first, ranked - first, 0)  # without ∞ − ∞
            total += jnp.where(along_agents(is_kept, x), apart, 0)
    return (first + total / along_agents(groups.is_kept.sum(axis=1), x))[groups.of_agent]


def _in_slots(
    links: Links, neighborhoods: Int[np.ndarray, "agents slots"], failed: Bool[Array, " links"]
) -> Bool[Array, "agents slots"]:
    """Whether each slot's link fails; the slot of an agent itself has no link and never fails."""
    agents = np.arange(len(neighborhoods))[:, None]
    is_link = (neighborhoods >= 0) & (neighborhoods != agents)
    # `nonzero` goes through the slots by receiver, then by sender, which is the order of the links.
    return jnp.zeros(neighborhoods.shape, bool).at[np.nonzero(is_link)].set(failed)


def _in_order(values: list[Array]) -> list[Array]:
    """Sorts equal-shaped arrays against each other, element by element.

    A sorting network: a fixed list of pairs of places, each brought in order by one minimum and one
    maximum. These are elementwise, so XLA fuses all of them into one pass that keeps the values of
    one parameter in registers. ``jnp.sort`` would first write the neighbours' values side by side,
    a copy of x for every slot.
    """
    values = list(values)
    for i, j in comparators(len(values)):
        values[i], values[j] = jnp.minimum(values[i], values[j]), jnp.maximum(values[i], values[j])
    return values


def comparators(num_values: int) -> Iterator[tuple[int, int]]:
    """Batcher's merge exchange: pairs of places to bring in order, one after another.

    Like Shell's sort it works with a stride that halves: after the pass of stride p the values at
    places i, i + p, i + 2p, ... rise for every i, and after the pass of stride 1 all of them do.
    Before the pass of stride p, both halves of such a sequence (every other value of it) rise
    already, and the pass merges them. It compares first the places i and i + p where bit p of i is
    0, then those where bit p is 1, i and i + d, at distances d that shrink from far to near:
    (2^k − 1) p for k down to 1. That is about m log2(m)² / 4 comparisons of m values.

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
