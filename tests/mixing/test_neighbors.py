import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from cdjax import mixing, topology
from cdjax.mixing._neighbors import neighbor_table, slots_of


def matrix_of(table):
    """Π written out from the table."""
    matrix = np.zeros((len(table.senders),) * 2)
    for j, row in enumerate(table.row_of_agent):
        np.add.at(matrix[j], table.senders[j], table.weights[j])
        matrix[j, j] = 1 - matrix[j].sum()
        if row >= 0:
            matrix[j] = table.full_rows[row]
    return matrix


@pytest.mark.parametrize("family", topology.FAMILIES)
@pytest.mark.parametrize("num_agents", [1, 16, 64])
def test_the_table_holds_the_whole_matrix(family, num_agents):
    matrix = topology.create(family, num_agents).mixing_matrix
    np.testing.assert_allclose(matrix_of(neighbor_table(matrix)), matrix, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("graph", "slots", "full_rows"),
    [
        (topology.ring(64), 2, 0),
        (topology.torus(64), 4, 0),
        (topology.random_regular(64), 4, 0),
        (topology.binary_tree(64), 3, 0),
        (topology.star(64), 1, 1),  # the hub
        (topology.from_graph(nx.wheel_graph(64)), 3, 1),
        (topology.complete(64), 0, 1),  # everybody's
        (topology.from_graph(nx.complete_bipartite_graph(4, 60)), 4, 4),
        (topology.complete(1), 0, 0),
    ],
    ids=str,
)
def test_a_table_is_as_wide_as_most_agents_need(graph, slots, full_rows):
    table = neighbor_table(graph.mixing_matrix)
    assert table.senders.shape == (graph.num_agents, slots)
    assert len(table.full_rows) == full_rows


def test_no_other_split_of_a_random_graph_costs_less():
    matrix = topology.from_graph(nx.barabasi_albert_graph(200, 3, seed=0)).mixing_matrix
    degrees = sorted(np.count_nonzero(matrix, axis=1) - 1, reverse=True)
    costs = [2 * count + width for count, width in enumerate([*degrees, 0])]
    assert neighbor_table(matrix).cost == min(costs) < max(degrees)


def test_slots_that_an_agent_does_not_need_hold_itself_with_weight_zero():
    table = neighbor_table(topology.path(5).mixing_matrix)
    np.testing.assert_array_equal(table.senders[[0, 4]], [[1, 0], [3, 4]])
    np.testing.assert_array_equal(table.weights[[0, 4], 1], [0, 0])


@pytest.mark.parametrize(
    ("graph", "spoiled"),
    [
        (topology.ring(8), {7, 0, 1}),
        (topology.path(8), {0, 1}),
        (topology.binary_tree(8), {0, 1, 2}),
    ],
    ids=str,
)
def test_an_agent_that_diverged_spoils_its_neighbors_alone(graph, spoiled):
    mixed = mixing.neighbors(graph)(jnp.arange(8.0).at[0].set(jnp.nan))
    assert set(np.flatnonzero(np.isnan(mixed)).tolist()) == spoiled


def test_a_leaf_of_a_star_that_diverged_spoils_itself_and_the_hub():
    mixed = mixing.neighbors(topology.star(8))(jnp.arange(8.0).at[3].set(jnp.nan))
    assert set(np.flatnonzero(np.isnan(mixed)).tolist()) == {0, 3}


def test_rows_list_their_entries_and_fill_up():
    np.testing.assert_array_equal(slots_of(np.array([0, 0, 2]), 3), [[0, 1], [-1, -1], [2, -1]])
