"""What the families need and networkx lacks: sides of rectangles, connected random graphs, spectra.

The eigenvalues of Laplacians as in Brouwer, Haemers, *Spectra of Graphs*, Springer 2012, Section
1.4.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import networkx as nx
import numpy as np
from jaxtyping import Float

from cdjax._checks import check_count, check_num_agents, check_whole

_MAX_DRAWS = 1000


def rectangle_sides(family: str, num_agents: int, rows: int | None) -> tuple[int, int]:
    """Rows and columns of a grid or torus, as square as possible unless ``rows`` is given."""
    check_num_agents(num_agents)
    if rows is not None:
        check_whole("rows", rows)
        if rows < 1 or num_agents % rows:
            raise ValueError(f"rows is {rows}; it must divide num_agents, {num_agents}")
        return rows, num_agents // rows
    if not _fits_rectangle(num_agents):
        below = next(n for n in range(num_agents - 1, 0, -1) if _fits_rectangle(n))
        above = next(n for n in itertools.count(num_agents + 1) if _fits_rectangle(n))
        raise ValueError(
            f"a {family}'s num_agents is rows × columns, both at least 2, and {num_agents} is not; "
            f"the nearest sizes that fit are {below} and {above}"
        )
    return _most_square(num_agents)


def powers_of_two(num_agents: int) -> list[int]:
    """1, 2, 4, ... below N: ⌈log2 N⌉ of them."""
    return [1 << k for k in range((num_agents - 1).bit_length())]


def connected_draw(
    draw: Callable[[np.random.Generator], nx.Graph], *, seed: int, remedy: str
) -> nx.Graph:
    """The first connected graph of a thousand draws; else a ValueError that ends in ``remedy``."""
    check_count("seed", seed, low=0)
    for attempt in range(_MAX_DRAWS):
        # A generator per attempt: whether an attempt succeeds does not depend on earlier ones.
        graph = draw(np.random.default_rng([seed, attempt]))
        if nx.is_connected(graph):
            return graph
    raise ValueError(f"no connected graph in {_MAX_DRAWS} draws: {remedy}")


def path_laplacian(num_agents: int) -> Float[np.ndarray, " agents"]:
    r"""The eigenvalues of the Laplacian of a path, :math:`2 - 2 \cos(\pi k / N)`."""
    return 2 - 2 * np.cos(np.pi * np.arange(num_agents) / num_agents)


def cycle_laplacian(num_agents: int) -> Float[np.ndarray, " agents"]:
    r"""Those of a ring, :math:`2 - 2 \cos(2 \pi k / N)`; two agents share one edge, not two."""
    if num_agents < 3:
        return path_laplacian(num_agents)
    return 2 - 2 * np.cos(2 * np.pi * np.arange(num_agents) / num_agents)


def star_laplacian(num_agents: int) -> Float[np.ndarray, " agents"]:
    """Those of a star: 0, N and otherwise 1."""
    spectrum = np.ones(num_agents)
    spectrum[-1], spectrum[0] = num_agents, 0
    return spectrum


def hypercube_laplacian(num_agents: int) -> Float[np.ndarray, " agents"]:
    """Those of a hypercube: twice the number of bits that are set in 0..N-1."""
    return 2.0 * np.bitwise_count(np.arange(num_agents))


def product_laplacian(
    one: Float[np.ndarray, " rows"], other: Float[np.ndarray, " columns"]
) -> Float[np.ndarray, " agents"]:
    """Those of the Cartesian product of two graphs: all sums of theirs."""
    return np.add.outer(one, other).ravel()


def _fits_rectangle(num_agents: int) -> bool:
    return num_agents == 1 or _most_square(num_agents)[0] > 1


def _most_square(num_agents: int) -> tuple[int, int]:
    rows = next(r for r in range(math.isqrt(num_agents), 0, -1) if num_agents % r == 0)
    return rows, num_agents // rows
