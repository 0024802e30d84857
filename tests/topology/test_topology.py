import networkx as nx
import numpy as np
import pytest

from cdjax import topology


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


def test_what_the_caller_passed_can_still_be_written():
    graph, matrix = nx.path_graph(2), np.full((2, 2), 0.5)
    own = topology.Topology("pair", graph, matrix)
    graph.add_edge(0, 2)
    matrix[0, 0] = 2
    assert own.graph.number_of_nodes() == 2 and own.mixing_matrix[0, 0] == 0.5
