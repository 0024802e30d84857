import math

import networkx as nx
import numpy as np
import pytest

from cdjax import topology
from cdjax.topology import consensus_time, contraction, effective_neighbors, equistatic


@pytest.mark.parametrize(("num_agents", "expected"), [(5, 0.539345), (8, 0.804738), (16, 0.949253)])
def test_the_contraction_of_a_symmetric_matrix_is_its_second_modulus(num_agents, expected):
    assert contraction(topology.ring(num_agents)) == pytest.approx(expected, abs=1e-6)


def test_a_directed_matrix_contracts_by_its_largest_singular_value():
    # A star whose hub is heard by all, and hears nobody: its eigenvalues are 1, 1/2, 1/2, ...
    matrix = np.eye(4) / 2
    matrix[:, 0] += 0.5
    graph = topology.from_matrix(matrix, validate=False)
    assert 1 - graph.spectral_gap == pytest.approx(0.5)
    x = np.random.default_rng(0).normal(size=(4, 1000))
    shrunk = np.linalg.norm((matrix - 0.25) @ x, axis=0) / np.linalg.norm(x, axis=0)
    assert shrunk.max() <= contraction(graph) and contraction(graph) > 0.5


def test_finite_time_schedules_take_their_period_and_a_topology_its_rate():
    assert consensus_time(topology.one_peer_exponential(16)) == 4
    assert contraction(topology.one_peer_exponential(16)) == 0
    assert consensus_time(topology.complete(5)) == 1
    assert consensus_time(topology.ring(1)) == 0
    rate = contraction(topology.ring(8))
    assert consensus_time(topology.ring(8), 1e-3) == math.ceil(math.log(1e-3) / math.log(rate))


def test_a_schedule_that_never_connects_all_takes_for_ever():
    pairs = topology.from_graph(nx.Graph([(0, 1), (2, 3)]), validate=False)
    assert consensus_time(topology.round_robin([pairs, pairs])) == np.inf


def test_a_one_peer_exponential_period_of_6_agents_contracts_as_its_product():
    schedule = topology.one_peer_exponential(6)
    product = np.linalg.multi_dot([schedule.mixing_matrix(step) for step in (2, 1, 0)])
    expected = np.linalg.norm(product - 1 / 6, 2) ** (1 / 3)
    assert contraction(schedule) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.951])
def test_effective_neighbors_are_1_alone_n_together_and_the_closed_form_between(decay):
    alone = topology.from_matrix(np.eye(6), validate=False)
    assert effective_neighbors(alone, decay) == pytest.approx(1, rel=1e-10)
    assert effective_neighbors(topology.complete(6), decay) == pytest.approx(6, rel=1e-10)
    squares = np.array([(1 + 2 * math.cos(2 * math.pi * k / 8)) / 3 for k in range(8)]) ** 2
    expected = 1 / (1 - decay) / np.mean(squares / (1 - decay * squares))
    assert effective_neighbors(topology.ring(8), decay) == pytest.approx(expected, rel=1e-10)


def test_effective_neighbors_are_the_ratio_of_the_variances_of_two_walks():
    matrix = topology.exponential(8, directed=True).mixing_matrix
    alone, mixed = np.zeros((8, 8)), np.zeros((8, 8))
    for _ in range(400):
        alone = 0.9 * alone + np.eye(8)
        mixed = matrix @ (0.9 * mixed + np.eye(8)) @ matrix.T
    expected = np.trace(alone) / np.trace(mixed)
    assert effective_neighbors(matrix, 0.9) == pytest.approx(expected, rel=1e-10)


def test_equistatic_is_the_mean_of_its_basis_graphs():
    # All distances once: the mean of the basis is the complete graph's matrix.
    basis = [
        np.eye(7) / 7 + 6 / 7 * np.roll(np.eye(7), distance, axis=1) for distance in range(1, 7)
    ]
    np.testing.assert_allclose(np.mean(basis, axis=0), 1 / 7, atol=1e-16)
    directed = equistatic(7, 1, directed=True, seed=3).mixing_matrix
    assert any(np.allclose(directed, matrix, rtol=0, atol=1e-15) for matrix in basis)


@pytest.mark.parametrize("num_agents", [1, 2, 9, 64])
def test_equistatic_is_doubly_stochastic_and_symmetric_unless_directed(num_agents):
    symmetric = equistatic(num_agents)
    topology.from_matrix(symmetric.mixing_matrix)  # passes Assumption 2
    directed = equistatic(num_agents, directed=True).mixing_matrix
    np.testing.assert_allclose(directed.sum(axis=0), 1, rtol=1e-14)
    np.testing.assert_allclose(directed.sum(axis=1), 1, rtol=1e-14)


@pytest.mark.slow
def test_the_contraction_of_equistatic_does_not_depend_on_the_number_of_agents():
    means = [
        np.mean([contraction(equistatic(n, 16, seed=seed)) for seed in range(5)])
        for n in (32, 64, 128, 256)
    ]
    assert max(means) < 0.75
