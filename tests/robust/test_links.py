import numpy as np
import pytest

from cdjax import topology
from cdjax.robust._links import links_of
from tests.trees import random_connected_graph


def random_matrix(num_agents, density=0.3):
    rng = np.random.default_rng(num_agents)
    return rng.normal(size=(num_agents,) * 2) * (rng.random((num_agents,) * 2) < density)


@pytest.mark.parametrize("num_agents", [1, 2, 5, 13])
def test_the_list_and_the_diagonal_are_the_whole_matrix(num_agents):
    links = links_of(random_matrix(num_agents))
    matrix = np.diag(links.own)
    matrix[links.receivers, links.senders] = links.weights
    np.testing.assert_array_equal(matrix, random_matrix(num_agents))


@pytest.mark.parametrize("num_agents", [1, 2, 13])
def test_every_link_has_one_slot_of_its_receiver(num_agents):
    links = links_of(random_matrix(num_agents))
    receivers, slots = np.nonzero(links.in_slots >= 0)
    numbers = links.in_slots[receivers, slots]
    np.testing.assert_array_equal(numbers, np.arange(len(links.receivers)))
    np.testing.assert_array_equal(links.receivers[numbers], receivers)


def test_the_table_is_as_wide_as_the_most_neighbors():
    graph = topology.from_graph(random_connected_graph(9))
    degrees = [graph.graph.degree[j] for j in range(9)]
    table = links_of(graph.mixing_matrix).in_slots
    np.testing.assert_array_equal((table >= 0).sum(axis=1), degrees)
    assert table.shape == (9, max(degrees))
