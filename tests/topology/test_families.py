import math

import networkx as nx
import numpy as np
import pytest

from cdjax import topology
from cdjax.topology import _graphs


def sigma(graph):
    return 1 - graph.spectral_gap


@pytest.mark.parametrize(
    ("family", "num_agents", "expected"),
    [
        ("ring", 5, 0.539345),
        ("ring", 8, 0.804738),
        ("ring", 16, 0.949253),
        ("ring", 32, 0.987190),
        ("path", 8, 0.949253),
        ("path", 16, 0.987190),
        ("grid", 16, 0.868641),
        ("torus", 16, 0.6),
        ("hypercube", 16, 0.6),
        ("star", 7, 1 - 1 / 7),
        ("complete", 5, 0),
    ],
)
def test_second_eigenvalues_as_published(family, num_agents, expected):
    graph = topology.create(family, num_agents)
    assert graph.second_eigenvalue == pytest.approx(expected, abs=5e-7)
    assert sigma(graph) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(
    ("family", "num_agents", "expected"),
    [("ring", 8, -1 / 3), ("ring", 5, -0.206011), ("torus", 16, -0.6)],
)
def test_smallest_eigenvalues_as_published(family, num_agents, expected):
    graph = topology.create(family, num_agents)
    assert graph.smallest_eigenvalue == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize("num_agents", [3, 4, 7, 12])
def test_spectrum_of_a_ring_is_the_cosines(num_agents):
    expected = (1 + 2 * np.cos(2 * np.pi * np.arange(num_agents) / num_agents)) / 3
    np.testing.assert_allclose(
        topology.ring(num_agents).eigenvalues, np.sort(expected)[::-1], atol=1e-14
    )


def test_spectrum_of_a_hypercube_is_binomial():
    expected = np.repeat((5 - 2 * np.arange(5)) / 5, [math.comb(4, k) for k in range(5)])
    np.testing.assert_allclose(topology.hypercube(16).eigenvalues, expected, atol=1e-14)
    np.testing.assert_allclose(topology.torus(16).eigenvalues, expected, atol=1e-14)


def test_mixing_on_a_ring_contracts_as_published():
    matrix, x = topology.ring(8).mixing_matrix, np.arange(8.0) - 3.5
    steps, expected = (1, 5, 10, 20, 50), (4.346135, 1.763901, 0.595298, 0.0678077, 1.002102e-4)
    norms = [np.linalg.norm(np.linalg.matrix_power(matrix, step) @ x) for step in steps]
    np.testing.assert_allclose(norms, expected, rtol=1e-6)


@pytest.mark.parametrize("num_agents", [4, 8, 16, 64])
def test_gap_of_the_exponential_graph_for_powers_of_two(num_agents):
    expected = 2 / math.log2(num_agents)
    assert topology.exponential(num_agents).spectral_gap == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("num_agents", [2, 4, 6, 12, 16, 64])
def test_gap_of_the_directed_exponential_graph_as_published(num_agents):
    graph = topology.exponential(num_agents, directed=True)
    expected = 2 / (1 + np.ceil(np.log2(num_agents)))
    assert graph.spectral_gap == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(graph.mixing_matrix.sum(axis=0), 1)


def test_the_directed_exponential_graph_receives_from_ahead():
    row = topology.exponential(8, directed=True).mixing_matrix[3]
    np.testing.assert_array_equal(np.flatnonzero(row), [3, 4, 5, 7])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ring", 3), ("complete", 3)),
        (("ring", 4), ("hypercube", 4)),
        (("ring", 2), ("path", 2)),
        (("star", 3), ("binary_tree", 3)),
        (("grid", 4), ("ring", 4)),
        (("exponential", 4), ("complete", 4)),
        (("exponential", 5), ("complete", 5)),
        (("watts_strogatz", 4), ("complete", 4)),
        (("random_regular", 5), ("complete", 5)),
    ],
)
def test_identities_between_families(one, other):
    one, other = topology.create(*one), topology.create(*other)
    assert nx.is_isomorphic(one.graph, other.graph)
    np.testing.assert_allclose(one.eigenvalues, other.eigenvalues, atol=1e-12)


def test_torus_4x4_is_the_hypercube():
    assert nx.is_isomorphic(topology.torus(16).graph, topology.hypercube(16).graph)


def test_a_torus_of_one_row_is_a_ring():
    one_row, ring = topology.torus(7, rows=1), topology.ring(7)
    np.testing.assert_array_equal(one_row.mixing_matrix, ring.mixing_matrix)


@pytest.mark.parametrize("family", topology.FAMILIES)
def test_one_agent_works_everywhere(family):
    graph = topology.create(family, 1)
    np.testing.assert_array_equal(graph.mixing_matrix, [[1.0]])
    assert (graph.second_eigenvalue, graph.smallest_eigenvalue, graph.spectral_gap) == (0, 1, 1)


@pytest.mark.parametrize("family", [f for f in topology.FAMILIES if f not in ("grid", "torus")])
def test_two_agents_share_one_edge(family):
    np.testing.assert_allclose(topology.create(family, 2).mixing_matrix, np.full((2, 2), 0.5))


@pytest.mark.parametrize("family", topology.FAMILIES)
def test_num_agents_may_be_a_numpy_integer(family, as_users_run_it):
    of_numpy, plain = topology.create(family, np.int64(16)), topology.create(family, 16)
    np.testing.assert_array_equal(of_numpy.mixing_matrix, plain.mixing_matrix)


@pytest.mark.parametrize("family", topology.FAMILIES)
def test_every_family_has_the_agents_asked_for_and_no_self_loops(family):
    graph = topology.create(family, 16)
    assert graph.num_agents == graph.graph.number_of_nodes() == 16
    assert list(graph.graph) == list(range(16))
    assert nx.number_of_selfloops(graph.graph) == 0 and nx.is_connected(graph.graph)


@pytest.mark.parametrize("family", ["erdos_renyi", "watts_strogatz", "random_regular"])
def test_random_families_follow_their_seed(family):
    first, again, other = (topology.create(family, 20, seed=seed) for seed in (1, 1, 2))
    assert nx.utils.graphs_equal(first.graph, again.graph)
    assert not nx.utils.graphs_equal(first.graph, other.graph)


def test_random_regular_is_regular():
    graph = topology.random_regular(12, degree=3).graph
    assert {degree for _, degree in graph.degree} == {3}


def test_rows_shape_a_torus():
    graph = topology.torus(12, rows=2)
    assert graph.name == "torus 2×6" and {degree for _, degree in graph.graph.degree} == {3}


def edges_where(num_agents, has_edge):
    """The pairs j < k for which a rule in NumPy holds."""
    j, k = np.indices((num_agents, num_agents))
    return set(map(tuple, np.argwhere(np.triu(has_edge(j, k), k=1)).tolist()))


@pytest.mark.parametrize("num_agents", [1, 2, 4, 8, 32])
def test_a_hypercube_joins_agents_whose_numbers_differ_in_one_bit(num_agents):
    expected = edges_where(num_agents, lambda j, k: np.bitwise_count(j ^ k) == 1)
    edges = topology.hypercube(num_agents).graph.edges
    assert {tuple(sorted(edge)) for edge in edges} == expected


@pytest.mark.parametrize("num_agents", [1, 2, 3, 5, 8, 12, 33])
def test_an_exponential_graph_joins_agents_a_power_of_two_apart(num_agents):
    hops = 2 ** np.arange(np.ceil(np.log2(num_agents)))
    expected = edges_where(
        num_agents,
        lambda j, k: np.isin((j - k) % num_agents, hops) | np.isin((k - j) % num_agents, hops),
    )
    edges = topology.exponential(num_agents).graph.edges
    assert {tuple(sorted(edge)) for edge in edges} == expected


@pytest.mark.parametrize(
    ("num_agents", "sides"), [(1, (1, 1)), (4, (2, 2)), (12, (3, 4)), (36, (6, 6)), (26, (2, 13))]
)
def test_rectangles_are_as_square_as_can_be(num_agents, sides):
    assert _graphs.rectangle_sides("grid", num_agents, None) == sides


def test_powers_of_two_below_a_number():
    assert [_graphs.powers_of_two(n) for n in (1, 2, 5, 8)] == [[], [1], [1, 2, 4], [1, 2, 4]]


def test_draws_go_on_until_a_graph_is_connected():
    draws = iter([nx.empty_graph(3), nx.empty_graph(3), nx.path_graph(3)])
    graph = _graphs.connected_draw(lambda rng: next(draws), seed=0, remedy="")
    assert nx.utils.graphs_equal(graph, nx.path_graph(3))


def test_a_thousand_draws_are_enough():
    with pytest.raises(ValueError, match="no connected graph in 1000 draws: raise it"):
        _graphs.connected_draw(lambda rng: nx.empty_graph(2), seed=0, remedy="raise it")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: topology.ring(0), "num_agents is 0; there must be at least 1 agent"),
        (lambda: topology.ring(-3), "num_agents is -3"),
        (lambda: topology.create("rng", 4), "unknown topology 'rng' .*did you mean 'ring'"),
        (lambda: topology.ring(4, "metropolis"), "unknown weights 'metropolis'.*metropolis_hast"),
        (lambda: topology.torus(7), "nearest sizes that fit are 6 and 8"),
        (lambda: topology.grid(2), "nearest sizes that fit are 1 and 4"),
        (lambda: topology.torus(12, rows=5), "rows is 5; it must divide num_agents, 12"),
        (lambda: topology.hypercube(12), "not 12; the nearest are 8 and 16"),
        (lambda: topology.random_regular(7, degree=3), "odd; take degree 2 or 4, or 8 agents"),
        (lambda: topology.random_regular(7, degree=1), "degree is 1"),
        (lambda: topology.watts_strogatz(9, degree=3), "degree is 3; it must be even"),
        (lambda: topology.erdos_renyi(9, probability=0.0), r"probability is 0.0; .* \(0, 1\]"),
        (lambda: topology.erdos_renyi(40, probability=0.001), "0.001 is too small for 40 agents"),
        (lambda: topology.star(4, "uniform"), "not symmetric.*use weights 'metropolis_hastings'"),
        (lambda: topology.exponential(4, "lazy", directed=True), "need an undirected graph"),
    ],
)
def test_a_size_or_an_option_that_does_not_fit_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
