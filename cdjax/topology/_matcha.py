"""MATCHA: a graph cut into matchings, each of which is used in a random share of the steps.

Wang, Sahu, Yang, Joshi, Kar, *MATCHA: Speeding Up Decentralized SGD via Matching Decomposition
Sampling*, 2019, arXiv:1905.09435.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Int

from cdjax._checks import check_range, check_topology
from cdjax.topology._builders import from_matrix
from cdjax.topology._semidefinite import MatrixInequality, disagreements, incidence, minimize
from cdjax.topology._topology import Topology

_INVERSE_GOLDEN_RATIO = (np.sqrt(5) - 1) / 2


@dataclass(frozen=True, eq=False)
class Matcha:
    r"""Matchings of a graph, of which a step uses some: :math:`\Pi_k = I - a \sum_j B_j L_j`.

    :math:`L_j` is the Laplacian of matching j, and :math:`B_j` is 1 with probability
    :math:`p_j`, independently. Build one with :func:`matcha`, mix with
    :func:`cdjax.mixing.random_matchings`.

    Attributes:
        name: what tables and plots call it.
        partners: whom each agent meets in each matching, shape (M, N); itself if nobody.
        probabilities: p, of each matching to be used in a step, shape (M,).
        edge_weight: a, the weight on every edge that is used.
    """

    name: str
    partners: Int[np.ndarray, "matchings agents"]
    probabilities: Float[np.ndarray, " matchings"]
    edge_weight: float

    def __post_init__(self) -> None:
        for name in ("partners", "probabilities"):
            array = np.array(getattr(self, name))
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def num_agents(self) -> int:
        """N."""
        return self.partners.shape[1]

    @property
    def messages_per_step(self) -> float:
        """Messages that all agents send per step, on average."""
        sent = (self.partners != np.arange(self.num_agents)).sum(axis=1)
        return float(self.probabilities @ sent)

    @property
    def laplacians(self) -> Float[np.ndarray, "matchings agents agents"]:
        """Of each matching."""
        identity = np.eye(self.num_agents)
        return np.stack([identity - identity[partner] for partner in self.partners])

    def mixing_matrix(
        self, active: Bool[np.ndarray, " matchings"] | Float[np.ndarray, " matchings"]
    ) -> Float[np.ndarray, "agents agents"]:
        """Π of a step that uses these matchings, of which ``active``, shape (M,), says which."""
        total = np.tensordot(active.astype(np.float64), self.laplacians, axes=1)
        return np.eye(self.num_agents) - self.edge_weight * total

    def mean(self) -> Topology:
        r"""All edges, with the mean matrix :math:`I - a \bar L`, :math:`\bar L = \sum p_j L_j`."""
        return from_matrix(self.mixing_matrix(self.probabilities), name=self.name, validate=False)

    def mean_square(self) -> Float[np.ndarray, "agents agents"]:
        r"""The mean of :math:`\Pi_k^\top \Pi_k`, whose norm off consensus is the contraction.

        .. math:: I - 2 a \bar L + a^2 (\bar L^2 + 2 \tilde L), \quad
                  \tilde L = \sum_j p_j (1 - p_j) L_j

        Reference: Wang et al. (2019), proof of Theorem 2 (number not verified).
        """
        mean, spread = _moments(self.laplacians, self.probabilities)
        a = self.edge_weight
        return np.eye(self.num_agents) - 2 * a * mean + a**2 * (mean @ mean + 2 * spread)

    def __repr__(self) -> str:
        num_matchings = len(self.partners)
        return f"Matcha({self.name!r}, num_agents={self.num_agents}, num_matchings={num_matchings})"


def matcha(topology: Topology, budget: float) -> Matcha:
    r"""Uses a graph's edges in a share of the steps, the important ones more often.

    .. math:: \max_p \; \lambda_2 \Big( \sum_j p_j L_j \Big) \quad \text{with } \sum_j p_j \le
              C_b M, \; 0 \le p_j \le 1; \qquad
              \min_a \; \| \mathbb E[\Pi_k^\top \Pi_k] - 11^\top / N \|_2

    A matching is a set of edges without a common agent, which can be used at the same time; the
    matchings are found one after another, each as large as the edges that are left allow. The
    first problem is convex and solved to 1e-9, the second in one variable and convex, too.

    Args:
        topology: whose graph is used; not its weights.
        budget: C_b in (0, 1], the share of the matchings that a step uses, on average. With 1 all
            edges are used in every step, at the weight :math:`2 / (\lambda_2 + \lambda_N)` of the
            graph's Laplacian.

    Returns:
        The matchings, their probabilities and the weight.

    Raises:
        ValueError: if the budget is out of its range, or the graph not connected.

    Example: ``mix = cdjax.mixing.random_matchings(cdjax.topology.matcha(topology, 0.5), key)``

    Reference: Wang et al. (2019), eqs. 5 and 7 (numbers not verified).
    """
    check_topology(topology)
    check_range("budget", budget, low=0, high=1, low_open=True)
    name = f"{topology.name}, matchings at a budget of {budget:g}"
    num_agents = topology.num_agents
    if num_agents == 1:
        return Matcha(name, np.zeros((1, 1), int), np.ones(1), 0.5)
    if not nx.is_connected(topology.graph):
        raise ValueError(f"the graph of {topology.name} is not connected; give one that is")
    partners = _matchings(topology.graph)
    identity = np.eye(num_agents)
    laplacians = np.stack([identity - identity[partner] for partner in partners])
    probabilities = _probabilities(topology.graph, partners, budget)
    return Matcha(name, partners, probabilities, _best_weight(laplacians, probabilities))


def _matchings(graph: nx.Graph) -> Int[np.ndarray, "matchings agents"]:
    """Disjoint matchings that cover all edges, largest first, by each agent's partner."""
    left, found = nx.Graph(graph.edges), []
    while left.number_of_edges():
        edges = nx.max_weight_matching(left, maxcardinality=True)
        left.remove_edges_from(edges)
        partner = np.arange(graph.number_of_nodes())
        for first, second in edges:
            partner[first], partner[second] = second, first
        found.append(partner)
    return np.stack(found)


def _probabilities(
    graph: nx.Graph, partners: Int[np.ndarray, "matchings agents"], budget: float
) -> Float[np.ndarray, " matchings"]:
    """Those of the greatest algebraic connectivity, in an orthonormal basis of disagreements."""
    num_matchings = len(partners)
    if budget == 1:
        return np.ones(num_matchings)
    basis = disagreements(graph.number_of_nodes())
    edges, size = incidence(graph), basis.shape[1]
    ends = np.array(graph.edges, int)
    uses = (partners[:, ends[:, 0]] == ends[:, 1]).T.astype(np.float64)  # by edge, matching
    terms = np.zeros((len(ends) + size, num_matchings + 1))
    terms[: len(ends), :-1], terms[len(ends) :, -1] = uses, -1.0
    # Strictly inside: a tenth below the budget, and half of the connectivity that this has.
    start = np.full(num_matchings, 0.9 * budget)
    weighted = basis.T @ edges * (uses @ start)
    connectivity = np.linalg.eigvalsh(weighted @ edges.T @ basis)[0]
    identity = np.eye(num_matchings)
    slopes = np.vstack([-identity, identity, np.ones(num_matchings)])
    limits = np.concatenate(
        [np.zeros(num_matchings), np.ones(num_matchings), [budget * num_matchings]]
    )
    solution = minimize(
        np.append(np.zeros(num_matchings), -1.0),
        np.append(start, connectivity / 2),
        columns=np.hstack([basis.T @ edges, np.eye(size)]),
        inequalities=[MatrixInequality(np.zeros((size, size)), terms)],
        slopes=np.hstack([slopes, np.zeros((len(slopes), 1))]),
        limits=limits,
    )
    return solution[:-1]


def _best_weight(
    laplacians: Float[np.ndarray, "matchings agents agents"],
    probabilities: Float[np.ndarray, " matchings"],
) -> float:
    """The a at which disagreement contracts fastest in the mean square, by golden sections.

    Every disagreement contracts by a parabola in a, and the largest of them is convex. All that is
    below one lies between 0 and 2 over the largest eigenvalue of the mean Laplacian.
    """
    mean, spread = _moments(laplacians, probabilities)
    basis = disagreements(len(mean))
    first, second = basis.T @ mean @ basis, basis.T @ (mean @ mean + 2 * spread) @ basis

    def contraction(a: float) -> float:
        matrix = np.eye(len(first)) - 2 * a * first + a**2 * second
        return float(np.linalg.eigvalsh(matrix)[-1])

    low, high = 0.0, 2 / float(np.linalg.eigvalsh(first)[-1])
    while high - low > 1e-12 * (1 + high):
        left = high - _INVERSE_GOLDEN_RATIO * (high - low)
        right = low + _INVERSE_GOLDEN_RATIO * (high - low)
        if contraction(left) < contraction(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def _moments(
    laplacians: Float[np.ndarray, "matchings agents agents"],
    probabilities: Float[np.ndarray, " matchings"],
) -> tuple[Float[np.ndarray, "agents agents"], Float[np.ndarray, "agents agents"]]:
    """The mean Laplacian, and that of the variances, as the square of L_j is 2 L_j."""
    variances = probabilities * (1 - probabilities)
    return (
        np.tensordot(probabilities, laplacians, axes=1),
        np.tensordot(variances, laplacians, axes=1),
    )
