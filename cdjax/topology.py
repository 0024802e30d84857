"""Graph families. Each returns a :class:`Topology` of N agents; one agent works everywhere.

Names and shapes follow networkx. ``weights`` turns the graph into the mixing matrix, see
:func:`from_graph`; with the default, regular graphs get the paper's uniform matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np

from cdjax._checks import check_num_agents, check_range
from cdjax._topology import Topology as Topology
from cdjax._topology import Weights, unknown_name
from cdjax._topology import from_edge_list as from_edge_list
from cdjax._topology import from_graph as from_graph
from cdjax._topology import from_matrix as from_matrix

_METROPOLIS = "metropolis_hastings"
_MAX_DRAWS = 1000


def create(name: str, num_agents: int, weights: Weights = _METROPOLIS, **options: Any) -> Topology:
    """The topology of a family given by name, ``create("ring", 16)``.

    Args:
        name: a key of ``FAMILIES``.
        num_agents: N, at least 1.
        weights: see :func:`from_graph`.
        **options: what the family takes besides.

    Returns:
        The topology.

    Raises:
        ValueError: if the name is unknown, or the family raises it.
    """
    if name not in FAMILIES:
        raise ValueError(unknown_name("topology", name, list(FAMILIES)))
    return FAMILIES[name](num_agents, weights, **options)


def ring(num_agents: int, weights: Weights = _METROPOLIS) -> Topology:
    r"""Agent j with j ± 1 mod N. Eigenvalues :math:`(1 + 2 \cos(2 \pi k / N)) / 3` for N ≥ 3."""
    check_num_agents(num_agents)
    return from_graph(nx.cycle_graph(num_agents), weights, name="ring")


def complete(num_agents: int, weights: Weights = _METROPOLIS) -> Topology:
    r"""Everybody with everybody: :math:`\Pi = 11^\top / N`."""
    check_num_agents(num_agents)
    return from_graph(nx.complete_graph(num_agents), weights, name="complete")


def star(num_agents: int, weights: Weights = _METROPOLIS) -> Topology:
    r"""Agent 0, the hub, with everybody else. :math:`\lambda_2 = 1 - 1 / N` for N ≥ 3."""
    check_num_agents(num_agents)
    return from_graph(nx.star_graph(num_agents - 1), weights, name="star")


def path(num_agents: int, weights: Weights = _METROPOLIS) -> Topology:
    """Agents in a line, j with j ± 1."""
    check_num_agents(num_agents)
    return from_graph(nx.path_graph(num_agents), weights, name="path")


def grid(num_agents: int, weights: Weights = _METROPOLIS, *, rows: int | None = None) -> Topology:
    """A rectangle of agents, each with its four neighbours, fewer at the border.

    Args:
        num_agents: N, a product of two numbers of at least 2.
        weights: see :func:`from_graph`.
        rows: rows of the rectangle; by default as square as N allows.

    Returns:
        The topology; agents are numbered row by row.

    Raises:
        ValueError: if N does not fit; it names sizes that do.
    """
    sides = _rectangle("grid", num_agents, rows)
    return from_graph(nx.grid_2d_graph(*sides), weights, name=_named("grid", sides))


def torus(num_agents: int, weights: Weights = _METROPOLIS, *, rows: int | None = None) -> Topology:
    """A rectangle of agents that wraps around, each with four neighbours.

    Args:
        num_agents: N, a product of two numbers of at least 2.
        weights: see :func:`from_graph`.
        rows: rows of the rectangle; by default as square as N allows.

    Returns:
        The topology; agents are numbered row by row.

    Raises:
        ValueError: if N does not fit; it names sizes that do.
    """
    sides = _rectangle("torus", num_agents, rows)
    return from_graph(nx.grid_2d_graph(*sides, periodic=True), weights, name=_named("torus", sides))


def hypercube(num_agents: int, weights: Weights = _METROPOLIS) -> Topology:
    """Agents whose numbers differ in one bit.

    Args:
        num_agents: N, a power of two.
        weights: see :func:`from_graph`.

    Returns:
        The topology.

    Raises:
        ValueError: if N is no power of two; it names the nearest ones.
    """
    check_num_agents(num_agents)
    if num_agents & (num_agents - 1):
        below = 1 << num_agents.bit_length() - 1
        raise ValueError(
            f"a hypercube's num_agents is a power of two, not {num_agents}; "
            f"the nearest are {below} and {2 * below}"
        )
    return _circulant_like(
        "hypercube", num_agents, weights, lambda j: (j ^ bit for bit in _powers_of_two(num_agents))
    )


def exponential(
    num_agents: int, weights: Weights = _METROPOLIS, *, directed: bool = False
) -> Topology:
    r"""Agent j with :math:`j \pm 2^k` mod N: degree of about 2 log2 N, a gap of about 1 / log2 N.

    Args:
        num_agents: N.
        weights: see :func:`from_graph`; the directed graph has its own.
        directed: the static exponential graph as published: agent j receives from
            :math:`j + 2^k` alone, all weights :math:`1 / (1 + \lceil \log_2 N \rceil)`. Its Π is
            doubly stochastic but not symmetric, so Assumption 2 does not hold: CDSGD and ATC work,
            but the complex eigenvalues make CDMSGD's momentum inside of consensus diverge.

    Returns:
        The topology. The directed one's gap is :math:`2 / (1 + \lceil \log_2 N \rceil)` for even N.

    Raises:
        ValueError: if other ``weights`` are asked for on the directed graph.

    Reference: Ying et al. (2021), *Exponential Graph is Provably Efficient for Decentralized Deep
    Training*, arXiv:2110.13363, eq. 5 and Proposition 1.
    """
    check_num_agents(num_agents)
    hops = _powers_of_two(num_agents)
    if not directed:
        return _circulant_like(
            "exponential", num_agents, weights, lambda j: ((j + hop) % num_agents for hop in hops)
        )
    if weights not in (_METROPOLIS, "uniform"):
        raise ValueError(f"weights {weights!r} need an undirected graph; leave them out")
    identity = np.eye(num_agents)
    matrix = sum((np.roll(identity, hop, axis=1) for hop in hops), start=identity)
    return from_matrix(matrix / (1 + len(hops)), name="directed exponential", validate=False)


def erdos_renyi(
    num_agents: int,
    weights: Weights = _METROPOLIS,
    *,
    probability: float | None = None,
    seed: int = 0,
) -> Topology:
    r"""Every edge with the same probability, redrawn until the graph is connected.

    Args:
        num_agents: N.
        weights: see :func:`from_graph`.
        probability: of an edge, in (0, 1]; by default :math:`\min(1, 2 \ln N / N)`, twice the
            threshold of connectedness.
        seed: of the first draw.

    Returns:
        The topology.

    Raises:
        ValueError: if no draw of a thousand is connected.
    """
    check_num_agents(num_agents)
    if probability is None:
        probability = min(1.0, 2 * math.log(max(num_agents, 2)) / num_agents)
    check_range("probability", probability, low=0, high=1, low_open=True)
    return _connected_draw(
        "erdos_renyi",
        weights,
        lambda rng: nx.gnp_random_graph(num_agents, probability, seed=rng),
        seed=seed,
        remedy=f"probability {probability:g} is too small for {num_agents} agents; raise it",
    )


def watts_strogatz(
    num_agents: int,
    weights: Weights = _METROPOLIS,
    *,
    degree: int = 4,
    probability: float = 0.3,
    seed: int = 0,
) -> Topology:
    """A small world: a ring of near neighbours, some edges rewired, redrawn until connected.

    Args:
        num_agents: N; at most ``degree`` agents form a complete graph.
        weights: see :func:`from_graph`.
        degree: near neighbours of an agent, even and at least 2.
        probability: that an edge is rewired, in [0, 1].
        seed: of the first draw.

    Returns:
        The topology.

    Raises:
        ValueError: if an argument is out of its range, or no draw of a thousand is connected.
    """
    check_num_agents(num_agents)
    check_range("probability", probability, low=0, high=1)
    if degree < 2 or degree % 2:
        raise ValueError(f"degree is {degree}; it must be even and at least 2")
    return _connected_draw(
        "watts_strogatz",
        weights,
        lambda rng: (
            nx.watts_strogatz_graph(num_agents, min(degree, num_agents), probability, seed=rng)
            if num_agents > degree
            else nx.complete_graph(num_agents)
        ),
        seed=seed,
        remedy=f"degree {degree} is too small for {num_agents} agents; raise it",
    )


def random_regular(
    num_agents: int, weights: Weights = _METROPOLIS, *, degree: int = 4, seed: int = 0
) -> Topology:
    """Every agent with ``degree`` others, at random, redrawn until connected.

    Args:
        num_agents: N; at most ``degree`` agents form a complete graph.
        weights: see :func:`from_graph`.
        degree: at least 2; N times degree must be even.
        seed: of the first draw.

    Returns:
        The topology.

    Raises:
        ValueError: if N and degree do not fit, or no draw of a thousand is connected.
    """
    check_num_agents(num_agents)
    if degree < 2:
        raise ValueError(f"degree is {degree}; a connected graph needs at least 2")
    if num_agents > degree and num_agents * degree % 2:
        raise ValueError(
            f"num_agents {num_agents} times degree {degree} is odd; "
            f"take degree {degree - 1} or {degree + 1}"
        )
    return _connected_draw(
        "random_regular",
        weights,
        lambda rng: (
            nx.random_regular_graph(degree, num_agents, seed=rng)
            if num_agents > degree
            else nx.complete_graph(num_agents)
        ),
        seed=seed,
        remedy=f"degree {degree} is too small for {num_agents} agents; raise it",
    )


def binary_tree(num_agents: int, weights: Weights = _METROPOLIS) -> Topology:
    """Agent j's parent is agent (j − 1) // 2."""
    check_num_agents(num_agents)
    return from_graph(nx.full_rary_tree(2, num_agents), weights, name="binary_tree")


FAMILIES: Mapping[str, Callable[..., Topology]] = MappingProxyType(
    {
        family.__name__: family
        for family in (
            ring, complete, star, path, grid, torus, hypercube, exponential, erdos_renyi,
            watts_strogatz, random_regular, binary_tree,
        )
    }
)  # fmt: skip


def _rectangle(family: str, num_agents: int, rows: int | None) -> tuple[int, int]:
    check_num_agents(num_agents)
    if rows is not None:
        if rows < 1 or num_agents % rows:
            raise ValueError(f"rows is {rows}; it must divide num_agents, {num_agents}")
        return rows, num_agents // rows
    if not _fits_rectangle(num_agents):
        fitting = (n for n in range(num_agents - 1, 0, -1) if _fits_rectangle(n))
        below, above = next(fitting), num_agents + 1
        while not _fits_rectangle(above):
            above += 1
        raise ValueError(
            f"a {family}'s num_agents is rows × columns, both at least 2, and {num_agents} is not; "
            f"the nearest sizes that fit are {below} and {above}"
        )
    return _most_square(num_agents)


def _fits_rectangle(num_agents: int) -> bool:
    return num_agents == 1 or _most_square(num_agents)[0] > 1


def _most_square(num_agents: int) -> tuple[int, int]:
    rows = next(r for r in range(math.isqrt(num_agents), 0, -1) if num_agents % r == 0)
    return rows, num_agents // rows


def _named(family: str, sides: tuple[int, int]) -> str:
    return f"{family} {sides[0]}×{sides[1]}"


def _powers_of_two(num_agents: int) -> list[int]:
    """1, 2, 4, ... below N: ⌈log2 N⌉ of them."""
    return [1 << k for k in range((num_agents - 1).bit_length())]


def _circulant_like(
    name: str, num_agents: int, weights: Weights, neighbors: Callable[[int], Iterator[int]]
) -> Topology:
    graph = nx.empty_graph(num_agents)
    graph.add_edges_from((j, k) for j in range(num_agents) for k in neighbors(j))
    return from_graph(graph, weights, name=name)


def _connected_draw(
    name: str,
    weights: Weights,
    draw: Callable[[np.random.Generator], nx.Graph],
    *,
    seed: int,
    remedy: str,
) -> Topology:
    for attempt in range(_MAX_DRAWS):
        graph = draw(np.random.default_rng([seed, attempt]))
        if nx.is_connected(graph):
            return from_graph(graph, weights, name=name)
    raise ValueError(f"no connected graph in {_MAX_DRAWS} draws: {remedy}")
