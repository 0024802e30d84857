import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdjax import topology
from cdjax._weights import WEIGHTS
from tests.trees import random_connected_graph

SYMMETRIC = [name for name in WEIGHTS if name != "uniform"]


def test_metropolis_hastings_of_a_path_by_hand():
    expected = [[2 / 3, 1 / 3, 0], [1 / 3, 1 / 3, 1 / 3], [0, 1 / 3, 2 / 3]]
    np.testing.assert_allclose(WEIGHTS["metropolis_hastings"](nx.path_graph(3)), expected)


def test_max_degree_of_a_star_by_hand():
    expected = np.diag([0.25, 0.75, 0.75, 0.75])
    expected[0, 1:] = expected[1:, 0] = 0.25
    np.testing.assert_allclose(WEIGHTS["max_degree"](nx.star_graph(3)), expected)


def test_uniform_is_one_over_the_closed_neighborhood():
    expected = [[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0.5, 0.5]]
    np.testing.assert_allclose(WEIGHTS["uniform"](nx.path_graph(3)), expected)


@pytest.mark.parametrize("family", ["ring", "complete", "torus", "hypercube", "random_regular"])
def test_on_regular_graphs_metropolis_hastings_is_uniform(family):
    default, uniform = topology.create(family, 16), topology.create(family, 16, "uniform")
    np.testing.assert_allclose(default.mixing_matrix, uniform.mixing_matrix, atol=1e-15)


@pytest.mark.parametrize("family", ["ring", "path", "star", "binary_tree", "erdos_renyi"])
def test_laplacian_weights_balance_the_spectrum_and_beat_any_constant_weight(family):
    best = topology.create(family, 9, "laplacian")
    assert best.second_eigenvalue == pytest.approx(-best.smallest_eigenvalue, abs=1e-12)
    laplacian = nx.laplacian_matrix(best.graph).toarray()
    for weight in np.linspace(0.01, 1, 50):
        spectrum = np.linalg.eigvalsh(np.eye(9) - weight * laplacian)
        sigma = np.sort(np.abs(spectrum[np.argsort(np.abs(spectrum - 1))[1:]]))[-1]
        assert 1 - best.spectral_gap <= sigma + 1e-12


def test_lazy_halves_the_way_to_one():
    plain, lazy = topology.ring(8), topology.ring(8, "lazy")
    np.testing.assert_allclose(lazy.eigenvalues, (1 + plain.eigenvalues) / 2, atol=1e-14)
    assert lazy.smallest_eigenvalue >= 0


@pytest.mark.parametrize("weights", WEIGHTS)
def test_one_agent_keeps_its_parameters(weights):
    np.testing.assert_array_equal(topology.complete(1, weights).mixing_matrix, [[1.0]])


@given(
    num_agents=st.integers(1, 20), seed=st.integers(0, 10**6), weights=st.sampled_from(SYMMETRIC)
)
def test_any_connected_graph_meets_assumption_2(num_agents, seed, weights):
    graph = random_connected_graph(num_agents, seed)
    labels = dict(enumerate(np.random.default_rng(seed).permutation(num_agents)))
    graph = nx.relabel_nodes(graph, {j: f"node {k}" for j, k in labels.items()})
    matrix = topology.from_graph(graph, weights).mixing_matrix
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    edges = nx.to_numpy_array(graph, weight=None) + np.eye(num_agents)
    assert not matrix[edges == 0].any()
    spectrum = np.linalg.eigvalsh(matrix)
    assert spectrum[0] > -1 and spectrum[:-1].max(initial=0) < 1 - 1e-9
