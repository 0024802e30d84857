"""Graph families. Each returns a :class:`Topology` of N agents; every family allows N = 1.

Names and shapes follow networkx. Every family takes ``num_agents``, N, and ``weights``, which turn
the graph into the mixing matrix, see :func:`from_graph`; with the default, regular graphs get the
paper's uniform matrix. A size or an option that does not fit raises a ValueError that names one
that does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np

from cdjax._checks import check_choice, check_num_agents, check_range, check_whole
from cdjax.topology._builders import from_graph, from_matrix, weighed
from cdjax.topology._entries import in_order
from cdjax.topology._graphs import (
    connected_draw,
    cycle_laplacian,
    hypercube_laplacian,
    path_laplacian,
    powers_of_two,
    product_laplacian,
    rectangle_sides,
    star_laplacian,
)
from cdjax.topology._topology import Topology
from cdjax.topology._weights import DEFAULT, Weights


def create(name: str, num_agents: int, *, weights: Weights = DEFAULT, **options: Any) -> Topology:
    """The topology of a family, by the family's name.

    Args:
        name: a key of ``FAMILIES``.
        num_agents: N, at least 1.
        weights: see :func:`from_graph`.
        **options: the family's own options.

    Raises:
        ValueError: if the name is unknown, or the family raises it.

    Example: ``topology = cdjax.topology.create("torus", 12, rows=2)``
    """
    check_choice("topology", name, FAMILIES)
    return FAMILIES[name](num_agents, weights, **options)


def ring(num_agents: int, weights: Weights = DEFAULT) -> Topology:
    r"""Agent j with j ± 1 mod N. Eigenvalues :math:`(1 + 2 \cos(2 \pi k / N)) / 3` for N ≥ 3."""
    check_num_agents(num_agents)
    return from_graph(nx.cycle_graph(num_agents), weights, name="ring")


def complete(num_agents: int, weights: Weights = DEFAULT) -> Topology:
    r"""Every agent with every other: :math:`\Pi = 11^\top / N`."""
    check_num_agents(num_agents)
    return from_graph(nx.complete_graph(num_agents), weights, name="complete")


def star(num_agents: int, weights: Weights = DEFAULT) -> Topology:
    r"""Agent 0, the hub, with all others. :math:`\lambda_2 = 1 - 1 / N` for N ≥ 3."""
    check_num_agents(num_agents)
    graph, laplacian = nx.star_graph(num_agents - 1), star_laplacian(num_agents)
    return weighed(graph, weights, name="star", laplacian=laplacian)


def path(num_agents: int, weights: Weights = DEFAULT) -> Topology:
    """Agents in a line, j with j ± 1."""
    check_num_agents(num_agents)
    graph, laplacian = nx.path_graph(num_agents), path_laplacian(num_agents)
    return weighed(graph, weights, name="path", laplacian=laplacian)


def grid(num_agents: int, weights: Weights = DEFAULT, *, rows: int | None = None) -> Topology:
    """A rectangle of agents, numbered row by row; each has four neighbours, fewer at the border.

    Args:
        num_agents: N, a product of two numbers of at least 2.
        weights: see :func:`from_graph`.
        rows: rows of the rectangle; by default, it is as square as N allows.

    Raises:
        ValueError: if N does not fit; the error names sizes that do.
    """
    rows, columns = rectangle_sides("grid", num_agents, rows)
    graph = nx.convert_node_labels_to_integers(nx.grid_2d_graph(rows, columns))
    laplacian = product_laplacian(path_laplacian(rows), path_laplacian(columns))
    return weighed(graph, weights, name=f"grid {rows}×{columns}", laplacian=laplacian)


def torus(num_agents: int, weights: Weights = DEFAULT, *, rows: int | None = None) -> Topology:
    """A rectangle that wraps around: a :func:`grid`, and made like one, without a border."""
    rows, columns = rectangle_sides("torus", num_agents, rows)
    graph = nx.convert_node_labels_to_integers(nx.grid_2d_graph(rows, columns, periodic=True))
    laplacian = product_laplacian(cycle_laplacian(rows), cycle_laplacian(columns))
    return weighed(graph, weights, name=f"torus {rows}×{columns}", laplacian=laplacian)


def hypercube(num_agents: int, weights: Weights = DEFAULT) -> Topology:
    """Agents whose numbers differ in one bit; N is a power of two."""
    check_num_agents(num_agents)
    bits = powers_of_two(int(num_agents))
    if 1 << len(bits) != num_agents:
        nearest = f"the nearest are {bits[-1]} and {2 * bits[-1]}"
        raise ValueError(f"a hypercube's num_agents is a power of two, not {num_agents}; {nearest}")
    # The labels, tuples of bits, sort as numbers. To networkx a cube of 0 dimensions has no nodes.
    graph = nx.hypercube_graph(len(bits)) if bits else nx.empty_graph(1)
    graph = nx.convert_node_labels_to_integers(graph, ordering="sorted")
    return weighed(graph, weights, name="hypercube", laplacian=hypercube_laplacian(num_agents))


def exponential(num_agents: int, weights: Weights = DEFAULT, *, directed: bool = False) -> Topology:
    r"""Agent j with :math:`j \pm 2^k` mod N. For N = 4, 8, ... the gap is :math:`2 / \log_2 N`.

    Args:
        num_agents: N.
        weights: see :func:`from_graph`; not for the directed graph, whose weights are fixed.
        directed: the static exponential graph as published: agent j receives from
            :math:`j + 2^k` only, all weights :math:`1 / (1 + \lceil \log_2 N \rceil)`. Its Π is
            doubly stochastic but not symmetric, so Assumption 2 does not hold: CDSGD and ATC work,
            but the complex eigenvalues make CDMSGD, whose momentum includes the mixing, unstable.
            For even N the gap is :math:`2 / (1 + \lceil \log_2 N \rceil)`.

    Raises:
        ValueError: if ``weights`` are given for the directed graph.

    Reference: Ying et al. (2021), *Exponential Graph is Provably Efficient for Decentralized Deep
    Training*, arXiv:2110.13363, eq. 5 and Proposition 1.
    """
    check_num_agents(num_agents)
    hops = powers_of_two(int(num_agents))
    if not directed:
        return from_graph(nx.circulant_graph(num_agents, hops), weights, name="exponential")
    if weights not in (DEFAULT, "uniform"):
        raise ValueError(f"weights {weights!r} need an undirected graph; leave them out")
    agents = np.arange(num_agents)
    shifts = np.array([0, *hops])
    senders = (agents[:, None] + shifts) % num_agents
    parts = np.repeat(agents, len(shifts)), senders.ravel(), np.full(senders.size, 1 / len(shifts))
    entries = in_order(num_agents, *parts)
    return from_matrix(entries, name="directed exponential", validate=False)


def erdos_renyi(
    num_agents: int, weights: Weights = DEFAULT, *, probability: float | None = None, seed: int = 0
) -> Topology:
    r"""Every edge with the same probability, redrawn until the graph is connected.

    Args:
        num_agents: N.
        weights: see :func:`from_graph`.
        probability: of each edge, in (0, 1]; by default :math:`\min(1, 2 \ln N / N)`, twice the
            connectivity threshold.
        seed: of the draws.

    Raises:
        ValueError: if an argument is out of its range, or none of a thousand draws is connected.
    """
    check_num_agents(num_agents)
    if probability is None:
        probability = min(1.0, 2 * math.log(max(num_agents, 2)) / num_agents)
    check_range("probability", probability, low=0, high=1, low_open=True)
    draw = partial(nx.fast_gnp_random_graph, num_agents, probability)
    remedy = f"probability {probability:g} is too small for {num_agents} agents; raise it"
    return from_graph(connected_draw(draw, seed=seed, remedy=remedy), weights, name="erdos_renyi")


def watts_strogatz(
    num_agents: int,
    weights: Weights = DEFAULT,
    *,
    degree: int = 4,
    probability: float = 0.3,
    seed: int = 0,
) -> Topology:
    """A small world: a ring lattice with some edges rewired, redrawn until it is connected.

    Args:
        num_agents: N; up to ``degree`` agents form a complete graph.
        weights: see :func:`from_graph`.
        degree: neighbours of each agent in the lattice, even and at least 2.
        probability: of rewiring each edge, in [0, 1].
        seed: of the draws.

    Raises:
        ValueError: if an argument is out of its range, or none of a thousand draws is connected.
    """
    check_num_agents(num_agents)
    check_range("probability", probability, low=0, high=1)
    check_whole("degree", degree)
    if degree < 2 or degree % 2:
        raise ValueError(f"degree is {degree}; it must be even and at least 2")
    if num_agents <= degree:
        return from_graph(nx.complete_graph(num_agents), weights, name="watts_strogatz")
    draw = partial(nx.watts_strogatz_graph, num_agents, degree, probability)
    remedy = f"degree {degree} is too small for {num_agents} agents; raise it"
    graph = connected_draw(draw, seed=seed, remedy=remedy)
    return from_graph(graph, weights, name="watts_strogatz")


def random_regular(
    num_agents: int, weights: Weights = DEFAULT, *, degree: int = 4, seed: int = 0
) -> Topology:
    """Every agent with ``degree`` random others, redrawn until the graph is connected.

    Args:
        num_agents: N; up to ``degree + 1`` agents form a complete graph.
        weights: see :func:`from_graph`.
        degree: at least 2; N times degree must be even.
        seed: of the draws.

    Raises:
        ValueError: if N and degree do not fit, or none of a thousand draws is connected.
    """
    check_num_agents(num_agents)
    check_whole("degree", degree)
    if num_agents <= degree + 1:
        return from_graph(nx.complete_graph(num_agents), weights, name="random_regular")
    if degree < 2:
        raise ValueError(f"degree is {degree}; a connected graph needs at least 2")
    if num_agents * degree % 2:
        remedy = f"take degree {degree - 1} or {degree + 1}, or {num_agents + 1} agents"
        raise ValueError(f"num_agents {num_agents} times degree {degree} is odd; {remedy}")
    draw = partial(nx.random_regular_graph, degree, num_agents)
    remedy = f"degree {degree} is too small for {num_agents} agents; raise it"
    graph = connected_draw(draw, seed=seed, remedy=remedy)
    return from_graph(graph, weights, name="random_regular")


def binary_tree(num_agents: int, weights: Weights = DEFAULT) -> Topology:
    """Agent j's parent is agent (j − 1) // 2."""
    check_num_agents(num_agents)
    return from_graph(nx.full_rary_tree(2, num_agents), weights, name="binary_tree")


_FIXED = (ring, complete, star, path, grid, torus, hypercube, exponential, binary_tree)
_RANDOM = (erdos_renyi, watts_strogatz, random_regular)
FAMILIES: Mapping[str, Callable[..., Topology]] = MappingProxyType(
    {family.__name__: family for family in (*_FIXED, *_RANDOM)}
)
