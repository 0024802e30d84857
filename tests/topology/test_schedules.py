import math

import numpy as np
import pytest

from cdjax import topology
from cdjax.topology import base_graph, one_peer_exponential, one_peer_hypercube, round_robin

POWERS = [1, 2, 8, 16, 32]


def numpy_product(schedule, start=0):
    product = np.eye(schedule.num_agents)
    for step in range(start, start + schedule.period):
        product = schedule.mixing_matrix(step) @ product
    return product


@pytest.mark.parametrize("num_agents", POWERS)
@pytest.mark.parametrize("build", [one_peer_exponential, one_peer_hypercube])
def test_log2_rounds_of_one_peer_are_exactly_the_mean_from_any_start(build, num_agents):
    schedule = build(num_agents)
    assert schedule.period == max(1, int(math.log2(num_agents)))
    for start in range(schedule.period):
        np.testing.assert_array_equal(
            numpy_product(schedule, start), np.full((num_agents,) * 2, 1 / num_agents)
        )


def test_an_agent_of_the_one_peer_exponential_graph_hears_the_one_2_to_the_k_further():
    expected = [(np.eye(6) + np.roll(np.eye(6), hop, axis=1)) / 2 for hop in (1, 2, 4)]
    schedule = one_peer_exponential(6)
    found = [schedule.mixing_matrix(step) for step in range(schedule.period)]
    np.testing.assert_array_equal(found, expected)
    assert schedule.messages_per_step == 6


def test_rounds_of_the_hypercube_add_up_to_its_edges():
    schedule = one_peer_hypercube(16)
    found = {frozenset(edge) for k in range(4) for edge in schedule.round(k).graph.edges}
    assert found == {frozenset(edge) for edge in topology.hypercube(16).graph.edges}


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.sampled(4)
def test_a_period_of_a_base_graph_is_the_mean_for_every_number_of_agents(degree):
    for num_agents in range(1, 100):
        schedule = base_graph(num_agents, degree)
        np.testing.assert_allclose(schedule.product(), 1 / num_agents, rtol=0, atol=1e-14)
        assert schedule.period <= 2 * math.log(num_agents) / math.log(degree + 1) + 2
        assert np.count_nonzero(schedule.weights, axis=2).max(initial=0) <= degree


@pytest.mark.parametrize(("num_agents", "degree"), [(6, 1), (7, 1), (23, 2), (50, 3), (97, 4)])
def test_rounds_of_a_base_graph_are_symmetric_and_never_negative(num_agents, degree):
    schedule = base_graph(num_agents, degree)
    for step in range(schedule.period):
        matrix = schedule.mixing_matrix(step)
        np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-15)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-15)
        assert matrix.min() > -1e-15


def test_base_2_on_a_power_of_two_is_the_one_peer_hypercube_in_other_words():
    np.testing.assert_array_equal(
        [base_graph(8).mixing_matrix(step) for step in range(3)],
        [one_peer_hypercube(8).mixing_matrix(step) for step in range(3)],
    )


def test_base_k_plus_1_of_up_to_k_plus_1_agents_is_the_complete_graph():
    np.testing.assert_allclose(base_graph(5, 4).mixing_matrix(0), 0.2, rtol=1e-15)


def test_round_robin_has_the_matrices_of_its_topologies_in_turn():
    graphs = [topology.ring(8), topology.star(8), topology.exponential(8, directed=True)]
    schedule = round_robin(graphs)
    for step in range(6):
        expected = graphs[step % 3].mixing_matrix
        np.testing.assert_allclose(schedule.mixing_matrix(step), expected, rtol=0, atol=1e-15)
    mean = np.mean([graph.mixing_matrix for graph in graphs], axis=0)
    np.testing.assert_allclose(schedule.mean().mixing_matrix, mean, rtol=0, atol=1e-15)
    assert schedule.messages_per_step == (16 + 14 + 24) / 3


def test_arguments_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="power of two, not 6; the nearest are 4 and 8"):
        one_peer_hypercube(6)
    with pytest.raises(ValueError, match="topologies is empty; give at least one"):
        round_robin([])
    with pytest.raises(ValueError, match=r"topologies have \[3, 4\] agents"):
        round_robin([topology.ring(3), topology.ring(4)])
    unequal = topology.from_matrix(2 * np.eye(3), validate=False)
    with pytest.raises(ValueError, match="row 0 of matrix sums to 2, not to 1"):
        round_robin([unequal])
    with pytest.raises(ValueError, match=r"degree is 0; it must lie in \[1, inf\)"):
        base_graph(4, 0)
