import itertools

import networkx as nx
import numpy as np
import pytest

from cdjax import topology
from cdjax.topology import matcha
from tests.trees import random_connected_graph

GRAPHS = {
    "ring": topology.ring(8),
    "star": topology.star(5),
    "random": topology.from_graph(random_connected_graph(10)),
}


def laplacian_spectrum(graph):
    return np.linalg.eigvalsh(nx.laplacian_matrix(graph).toarray().astype(float))


def connectivity(drawn, probabilities):
    return np.linalg.eigvalsh(np.tensordot(probabilities, drawn.laplacians, axes=1))[1]


@pytest.mark.parametrize("name", GRAPHS)
def test_matchings_are_disjoint_and_cover_every_edge_once(name):
    drawn, agents = matcha(GRAPHS[name], 0.5), np.arange(GRAPHS[name].num_agents)
    for partner in drawn.partners:
        np.testing.assert_array_equal(partner[partner], agents)
    edges = [(j, k) for partner in drawn.partners for j, k in enumerate(partner.tolist()) if j < k]
    assert sorted(edges) == sorted(map(tuple, map(sorted, GRAPHS[name].graph.edges)))


@pytest.mark.parametrize("name", GRAPHS)
def test_all_activations_enumerated_give_the_mean_and_the_mean_square(name):
    drawn = matcha(GRAPHS[name], 0.4)
    mean = square = 0
    for active in itertools.product([False, True], repeat=len(drawn.partners)):
        matrix = drawn.mixing_matrix(np.array(active))
        chance = np.prod(np.where(active, drawn.probabilities, 1 - drawn.probabilities))
        mean, square = mean + chance * matrix, square + chance * matrix @ matrix
    np.testing.assert_allclose(drawn.mean().mixing_matrix, mean, rtol=0, atol=1e-14)
    np.testing.assert_allclose(drawn.mean_square(), square, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", GRAPHS)
def test_with_the_whole_budget_the_weight_is_the_best_constant_one(name):
    spectrum = laplacian_spectrum(GRAPHS[name].graph)
    drawn = matcha(GRAPHS[name], 1.0)
    np.testing.assert_array_equal(drawn.probabilities, 1)
    assert drawn.edge_weight == pytest.approx(2 / (spectrum[1] + spectrum[-1]), abs=1e-10)


@pytest.mark.parametrize("name", GRAPHS)
def test_probabilities_keep_the_budget_and_beat_all_others_that_do(name):
    drawn = matcha(GRAPHS[name], 0.5)
    num_matchings, best = len(drawn.partners), connectivity(drawn, drawn.probabilities)
    assert drawn.probabilities.min() > 0 and drawn.probabilities.max() < 1
    assert drawn.probabilities.sum() <= 0.5 * num_matchings
    rng = np.random.default_rng(0)
    for _ in range(300):
        other = rng.dirichlet(np.ones(num_matchings)) * 0.5 * num_matchings
        near = drawn.probabilities + 0.01 * rng.normal(size=num_matchings)
        for tried in (other, near - max(0, near.sum() - 0.5 * num_matchings) / num_matchings):
            if tried.min() >= 0 and tried.max() <= 1:
                assert connectivity(drawn, tried) <= best + 1e-8


def test_matchings_that_are_alike_are_used_alike():
    # A ring of an even number is two matchings, which one turn of the ring swaps.
    drawn = matcha(topology.ring(8), 0.3)
    np.testing.assert_allclose(drawn.probabilities, 0.3, atol=1e-8)
    assert drawn.messages_per_step == pytest.approx(0.3 * 16, abs=1e-6)


@pytest.mark.parametrize("budget", [0.2, 0.7])
def test_no_other_weight_contracts_faster(budget):
    drawn = matcha(GRAPHS["random"], budget)

    def contraction(weight):
        other = topology.Matcha("", drawn.partners, drawn.probabilities, weight)
        return np.linalg.eigvalsh(other.mean_square() - 0.1)[-1]

    best = contraction(drawn.edge_weight)
    assert best < 1
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert contraction(factor * drawn.edge_weight) > best


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"budget is 0; it must lie in \(0, 1\]"):
        matcha(topology.ring(4), 0)
    apart = topology.from_matrix(np.eye(3), validate=False)
    with pytest.raises(ValueError, match="the graph of matrix is not connected"):
        matcha(apart, 0.5)
    assert matcha(topology.ring(1), 0.5).messages_per_step == 0
