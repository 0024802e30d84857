import networkx as nx
import numpy as np
import pytest

from cdjax import topology


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
        ("# nothing\n", "has no edges; write two agent numbers per line, as in '0 1'"),
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
    ("make", "message"),
    [
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
        (
            lambda: topology.ring(4, np.eye(4)),
            "weights is a ndarray; .* your matrix to from_matrix",
        ),
        (lambda: topology.ring(4, None), "weights is a NoneType"),
        (lambda: topology.ring(2.0), "num_agents must be a whole number, not 2.0"),
    ],
)
def test_a_wrong_type_is_named(make, message, as_users_run_it):
    with pytest.raises(ValueError, match=message):
        make()


def test_those_who_remain_take_lost_weights_back_by_hand():
    whole = topology.from_matrix(
        [[0.5, 0.2, 0.3, 0], [0.2, 0.4, 0.1, 0.3], [0.3, 0.1, 0.6, 0], [0, 0.3, 0, 0.7]],
        name="four",
    )
    rest = topology.without_agents(whole, [0])
    expected = [[0.6, 0.1, 0.3], [0.1, 0.9, 0], [0.3, 0, 0.7]]
    np.testing.assert_allclose(rest.mixing_matrix, expected, atol=1e-15)
    assert rest.name == "four without [0]" and sorted(rest.graph.edges) == [(0, 1), (0, 2)]


@pytest.mark.parametrize("weights", ["metropolis_hastings", "laplacian"])
def test_without_agents_the_mean_of_the_others_is_conserved(weights):
    whole = topology.torus(12, weights)
    matrix = topology.without_agents(whole, [7, 2, 2]).mixing_matrix
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-15)
    np.testing.assert_allclose(matrix.sum(axis=0), 1)
    off_diagonal, keep = ~np.eye(10, dtype=bool), np.delete(np.arange(12), [2, 7])
    kept = whole.mixing_matrix[np.ix_(keep, keep)]
    np.testing.assert_array_equal(matrix[off_diagonal], kept[off_diagonal])


def test_without_nobody_a_topology_is_itself():
    ring = topology.ring(4)
    assert topology.without_agents(ring, []) is ring


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ([4], "agents names 4, which is no agent of ring; give numbers from 0 to 3"),
        ([-1], "agents names -1, which"),
        ([3, 2, 1, 0], "agents names all 4 agents; leave at least 1"),
        ([1, 3], r"without agents \[1, 3\] the graph falls apart into \{0\}, \{2\}; leave"),
    ],
)
def test_agents_that_cannot_leave_are_named(agents, message):
    with pytest.raises(ValueError, match=message):
        topology.without_agents(topology.ring(4), agents)
