import math

import jaxtyping
import networkx as nx
import numpy as np
import pytest

from cdjax import topology


@pytest.fixture
def as_users_run_it():
    """Without the type checks of the tests, which stop a wrong type before our own errors do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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


def test_nodes_keep_their_order_and_self_loops_are_ignored():
    graph = nx.Graph([("b", "a"), ("a", "c"), ("c", "c")])
    result = topology.from_graph(graph)
    assert sorted(result.graph.edges) == [(0, 1), (1, 2)]


def test_parallel_edges_count_once():
    graph = topology.from_graph(nx.MultiGraph([(0, 1), (0, 1), (1, 2)]))
    np.testing.assert_array_equal(graph.mixing_matrix, topology.path(3).mixing_matrix)


def test_a_weight_function_cannot_change_the_graph():
    def complete_it(graph):
        graph.add_edge(0, 2)

    with pytest.raises(nx.NetworkXError, match="[Ff]rozen"):
        topology.from_graph(nx.path_graph(3), complete_it)


def test_weights_may_be_a_function():
    graph = topology.from_graph(nx.path_graph(2), lambda g: np.array([[0.9, 0.1], [0.1, 0.9]]))
    assert graph.second_eigenvalue == pytest.approx(0.8)


def test_from_matrix_reads_the_edges_from_the_matrix():
    matrix = topology.star(5).mixing_matrix
    graph = topology.from_matrix(matrix)
    assert nx.utils.graphs_equal(graph.graph, topology.star(5).graph)
    np.testing.assert_array_equal(graph.mixing_matrix, matrix)


def test_negative_weights_pass_where_the_spectrum_allows_them():
    matrix = topology.star(9, "laplacian").mixing_matrix
    assert matrix.min() < 0
    assert topology.from_matrix(matrix).spectral_gap == topology.star(9, "laplacian").spectral_gap


def test_rounding_makes_no_spectrum_complex():
    matrix = topology.from_matrix([[0.1, 0.9 + 1e-10], [0.9, 0.1]])
    np.testing.assert_allclose(matrix.eigenvalues, [1, -0.8], atol=1e-9)
    assert np.isrealobj(matrix.eigenvalues)


def test_eigenvalues_of_a_non_symmetric_matrix_fall_by_modulus():
    graph = topology.from_matrix([[0.1, 0.9], [0.8, 0.2]], validate=False)
    np.testing.assert_allclose(graph.eigenvalues, [1, -0.7], atol=1e-12)
    assert graph.second_eigenvalue == pytest.approx(0.7)
    assert graph.smallest_eigenvalue == pytest.approx(-0.7)
    assert graph.spectral_gap == pytest.approx(0.3)


def test_a_topology_shows_its_name_and_size():
    assert repr(topology.path(4)) == "Topology('path', num_agents=4, num_edges=3)"


def test_the_mixing_matrix_cannot_be_written():
    matrix = np.eye(1)
    graph = topology.from_matrix(matrix)
    with pytest.raises(ValueError, match="read-only"):
        graph.mixing_matrix[0, 0] = 2
    matrix[0, 0] = 2
    assert graph.mixing_matrix[0, 0] == 1


def test_neither_graph_nor_spectrum_can_be_written():
    graph = topology.ring(4)
    with pytest.raises(ValueError, match="read-only"):
        graph.eigenvalues[0] = 2
    with pytest.raises(nx.NetworkXError, match="[Ff]rozen"):
        graph.graph.add_edge(0, 2)


def test_a_large_ring_is_checked_without_its_spectrum():
    graph = topology.ring(500)
    assert "eigenvalues" not in vars(graph)
    assert graph.spectral_gap == pytest.approx(2 / 3 * (1 - np.cos(2 * np.pi / 500)))


def test_an_edge_list_file_is_a_topology(tmp_path):
    file = tmp_path / "square.edges"
    file.write_text("# a square\n2 3\n0 1\n1 2\n3 0\n")
    graph = topology.from_edge_list(file)
    np.testing.assert_array_equal(graph.mixing_matrix, topology.ring(4).mixing_matrix)
    assert graph.name == "square.edges"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1\n2 3\n", r"not connected: its components are \{0, 1\}, \{2, 3\}; join"),
        ("0 1\n1 x\n", r"line 2 is '1 x'; expected two agent numbers"),
        ("0 1\n2\n", r"line 2 is '2'; expected two agent numbers"),
        ("0 1\n1 3\n", "no edge of agent 2; number 4 agents 0 to 3, each with an edge"),
        ("1 2\n2 3\n", "no edge of agent 0"),
        ("0 1000000000000\n", "no edge of agent 1;"),
        ("-1 0\n", "names agent -1"),
        ("# nothing\n", "has no edges; write two agent numbers a line, as in '0 1'"),
    ],
)
def test_a_bad_edge_list_says_what_is_wrong(tmp_path, text, message):
    file = tmp_path / "graph.edges"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        topology.from_edge_list(file)


def test_an_edge_list_of_another_size_names_both(tmp_path):
    file = tmp_path / "graph.edges"
    file.write_text("0 1\n1 2\n")
    with pytest.raises(ValueError, match="names agent 2; number 2 agents 0 to 1"):
        topology.from_edge_list(file, num_agents=2)
    with pytest.raises(ValueError, match="no edge of agent 3; number 4 agents 0 to 3"):
        topology.from_edge_list(file, num_agents=4)
    with pytest.raises(ValueError, match="num_agents is 0"):
        topology.from_edge_list(file, num_agents=0)


def test_a_missing_edge_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.edges"):
        topology.from_edge_list(tmp_path / "nowhere.edges")


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), r"not connected: its components are \{0\}, \{1\}, \{2\}"),
        ([[0.5, 0.5], [0.4, 0.6]], r"not symmetric: Π\[0, 1\] is 0.5, Π\[1, 0\] is 0.4"),
        (np.eye(20), r"\{2\}, \{3\} and 16 more; join them"),
        (np.kron(np.eye(2), np.ones((9, 9)) / 9), r"\{0, 1, 2, 3, 4, 5, ... 9 agents\}"),
        ([[0.5, 0.5], [0.5, 0.6]], r"row 1 sums to 1.1, not to 1; take the .* off Π\[1, 1\]"),
        ([[0.0, 1.0], [1.0, 0.0]], "λ_N is -1, not above -1; use weights 'lazy'"),
        ([[1.5, -0.5], [-0.5, 1.5]], "λ2 is 1, not below 1"),
        ([[1.0, np.nan], [np.nan, 1.0]], r"Π\[0, 1\] is nan"),
        (np.ones((2, 3)), r"shape \(2, 3\); expected \(N, N\)"),
    ],
)
def test_a_matrix_that_fails_assumption_2_says_where(matrix, message):
    with pytest.raises(ValueError, match=message):
        topology.from_matrix(np.asarray(matrix))


def test_validate_false_takes_any_square_finite_matrix():
    matrix = [[0.0, 3.0], [-1.0, 0.0]]
    assert topology.from_matrix(np.array(matrix), validate=False).mixing_matrix.tolist() == matrix
    with pytest.raises(ValueError, match="is inf"):
        topology.from_matrix(np.array([[np.inf]]), validate=False)


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
        (lambda: topology.from_graph(nx.DiGraph([(0, 1)])), "directed; give graph.to_undirected"),
        (lambda: topology.from_graph(nx.Graph()), "graph has no nodes"),
        (lambda: topology.from_graph(nx.path_graph(2), lambda g: np.eye(3)), "weights gave shape"),
        (
            lambda: topology.from_graph(nx.path_graph(2), lambda g: np.ones((2, 2))),
            "row 0 sums to 2",
        ),
        (
            lambda: topology.from_graph(nx.path_graph(3), lambda g: np.ones((3, 3)) / 3),
            "agents 0 and 2 share no edge",
        ),
        (
            lambda: topology.from_graph(nx.path_graph(2), lambda g: np.eye(2)),
            "λ2 is 1, not below 1.* give every edge a positive weight",
        ),
    ],
)
def test_errors_name_what_came_and_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: topology.ring(4, np.eye(4)), "weights is a ndarray; .* a matrix to from_matrix"),
        (lambda: topology.ring(4, None), "weights is a NoneType"),
        (lambda: topology.ring(2.0), "num_agents must be a whole number, not 2.0"),
    ],
)
def test_a_wrong_type_is_named(make, message, as_users_run_it):
    with pytest.raises(ValueError, match=message):
        make()
