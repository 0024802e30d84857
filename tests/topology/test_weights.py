import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdjax import topology
from cdjax.topology._weights import WEIGHTS
from tests.trees import random_connected_graph

SOLVED = ["fastest", "fastest_signed"]  # by iterations, which take a while
SYMMETRIC = [name for name in WEIGHTS if name not in ("uniform", *SOLVED)]
REGULAR = ["ring", "complete", "torus", "hypercube", "exponential", "random_regular"]
VALID = [(family, name) for family in topology.FAMILIES for name in SYMMETRIC]
VALID += [(family, "uniform") for family in REGULAR]
VALID += [(family, name) for family in ("star", "grid", "erdos_renyi") for name in SOLVED]


def assert_mixing_matrix(matrix, graph):
    """Symmetric, rows that sum to one, zero off the edges: the matrix part of Assumption 2."""
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    edges = nx.to_numpy_array(graph, weight=None) + np.eye(len(matrix))
    assert matrix.dtype == np.float64 and not matrix[edges == 0].any()


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


@pytest.mark.parametrize("family", REGULAR)
def test_on_regular_graphs_metropolis_hastings_is_uniform(family):
    default, uniform = topology.create(family, 16), topology.create(family, 16, weights="uniform")
    np.testing.assert_allclose(default.mixing_matrix, uniform.mixing_matrix, atol=1e-15)


@pytest.mark.parametrize("family", ["ring", "path", "star", "binary_tree", "erdos_renyi"])
def test_laplacian_weights_balance_the_spectrum_and_beat_any_constant_weight(family):
    best = topology.create(family, 9, weights="laplacian")
    assert best.second_eigenvalue == pytest.approx(-best.smallest_eigenvalue, abs=1e-12)
    laplacian = nx.laplacian_matrix(best.graph).toarray()
    for weight in np.linspace(0.01, 1, 50):
        spectrum = np.linalg.eigvalsh(np.eye(9) - weight * laplacian)
        sigma = np.sort(np.abs(spectrum[np.argsort(np.abs(spectrum - 1))[1:]]))[-1]
        assert 1 - best.spectral_gap <= sigma + 1e-12


@pytest.mark.parametrize("family", topology.FAMILIES)
def test_laplacian_weights_mix_no_slower_than_max_degree_weights(family):
    names = ("laplacian", "max_degree")
    laplacian, max_degree = (topology.create(family, 16, weights=name) for name in names)
    assert laplacian.spectral_gap >= max_degree.spectral_gap - 1e-12


def test_laplacian_weights_of_a_ring_by_its_closed_form():
    lowest, highest = 2 - 2 * np.cos(2 * np.pi / 9), 2 - 2 * np.cos(2 * np.pi * 4 / 9)
    sigma = (highest - lowest) / (highest + lowest)
    assert topology.ring(9, "laplacian").second_eigenvalue == pytest.approx(sigma, abs=1e-12)


def test_lazy_halves_the_way_to_one():
    plain, lazy = topology.ring(8), topology.ring(8, "lazy")
    np.testing.assert_allclose(lazy.eigenvalues, (1 + plain.eigenvalues) / 2, atol=1e-14)
    assert lazy.smallest_eigenvalue >= 0


@pytest.mark.parametrize("weights", WEIGHTS)
def test_one_agent_keeps_its_parameters(weights):
    np.testing.assert_array_equal(topology.complete(1, weights).mixing_matrix, [[1.0]])


def test_edge_attributes_count_for_nothing():
    graph = nx.path_graph(3)
    nx.set_edge_attributes(graph, 5.0, "weight")
    for weights in WEIGHTS.values():
        np.testing.assert_array_equal(weights(graph), weights(nx.path_graph(3)))


@pytest.mark.parametrize(("family", "weights"), VALID)
@pytest.mark.parametrize("num_agents", [4, 16])
def test_every_family_with_every_weight_is_a_mixing_matrix(family, weights, num_agents):
    graph = topology.create(family, num_agents, weights=weights)
    assert_mixing_matrix(graph.mixing_matrix, graph.graph)
    assert 0 < graph.spectral_gap <= 1


@given(
    num_agents=st.integers(1, 20), seed=st.integers(0, 10**6), weights=st.sampled_from(SYMMETRIC)
)
def test_any_connected_graph_meets_assumption_2(num_agents, seed, weights):
    graph = random_connected_graph(num_agents, seed)
    labels = dict(enumerate(np.random.default_rng(seed).permutation(num_agents)))
    graph = nx.relabel_nodes(graph, {j: f"node {k}" for j, k in labels.items()})
    matrix = topology.from_graph(graph, weights).mixing_matrix
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    assert_mixing_matrix(matrix, graph)
    spectrum = np.linalg.eigvalsh(matrix)
    assert spectrum[0] > -1 and spectrum[:-1].max(initial=0) < 1 - 1e-9


def weights_by(rule, graph):
    return np.asarray(WEIGHTS[rule](graph))


def disagreement(matrix):
    return np.linalg.norm(matrix - 1 / len(matrix), 2)


@pytest.mark.parametrize("num_agents", [2, 5, 8])
def test_fastest_weights_of_a_path_are_one_half_on_every_edge(num_agents):
    matrix = weights_by("fastest", nx.path_graph(num_agents))
    np.testing.assert_allclose(np.diag(matrix, 1), 0.5, atol=1e-6)
    assert disagreement(matrix) == pytest.approx(math.cos(math.pi / num_agents), abs=1e-8)


@pytest.mark.parametrize(
    ("graph", "fastest", "signed"),
    [
        (nx.star_graph(6), 1 - 1 / 6, 6 / 8),
        (nx.cycle_graph(8), None, None),
        (nx.cycle_graph(9), None, None),
        (nx.convert_node_labels_to_integers(nx.hypercube_graph(4)), 0.6, 0.6),
        (nx.complete_graph(5), 0.0, 0.0),
    ],
    ids=["star", "ring 8", "ring 9", "hypercube", "complete"],
)
def test_fastest_weights_where_all_edges_are_alike_are_known(graph, fastest, signed):
    if fastest is None:  # one constant weight, 2 / (λ1 + λ_{N−1}) of the Laplacian
        n = graph.number_of_nodes()
        spectrum = sorted(2 - 2 * math.cos(2 * math.pi * k / n) for k in range(n))
        fastest = signed = (spectrum[-1] - spectrum[1]) / (spectrum[-1] + spectrum[1])
    assert disagreement(weights_by("fastest", graph)) == pytest.approx(fastest, abs=1e-8)
    assert disagreement(weights_by("fastest_signed", graph)) == pytest.approx(signed, abs=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_fastest_weights_contract_faster_than_any_other_rule_and_any_near_ones(seed):
    graph = topology.from_graph(random_connected_graph(12, seed)).graph  # without self loops
    signed, fastest = (weights_by(name, graph) for name in ("fastest_signed", "fastest"))
    assert fastest.min() > -1e-12
    others = [weights_by(name, graph) for name in ("metropolis_hastings", "max_degree", "lazy")]
    assert all(disagreement(fastest) <= disagreement(other) for other in others)
    assert disagreement(signed) <= min(
        disagreement(fastest), disagreement(weights_by("laplacian", graph))
    )
    rng, edges = np.random.default_rng(seed), nx.to_numpy_array(graph)
    for size in (1e-4, 1e-2):
        for _ in range(50):
            change = np.triu(edges * rng.normal(size=edges.shape) * size, 1)
            change += change.T
            change -= np.diag(change.sum(axis=1))
            assert disagreement(signed + change) > disagreement(signed) - 1e-8
            if (fastest + change).min() >= 0:
                assert disagreement(fastest + change) > disagreement(fastest) - 1e-8
