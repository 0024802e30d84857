"""Directed graphs, which sums of a matrix are one, and spanning trees."""

import networkx as nx
import numpy as np
import pytest

from cdjax import mixing, topology
from tests.trees import assert_trees_close, random_stacked_tree

EDGES = [(0, 1), (1, 2), (2, 0), (0, 2)]  # 0 sends to 1 and 2


def test_senders_deal_what_they_have_in_equal_parts():
    found = topology.from_digraph(nx.DiGraph(EDGES))
    by_hand = [[1 / 3, 0, 1 / 2], [1 / 3, 1 / 2, 0], [1 / 3, 1 / 2, 1 / 2]]
    np.testing.assert_allclose(found.mixing_matrix, by_hand)
    assert topology.stochasticity(found.mixing_matrix) == "column"
    assert found.graph.is_directed() and found.num_agents == 3


def test_receivers_take_the_mean_of_what_they_hear():
    found = topology.from_digraph(nx.DiGraph(EDGES), "row").mixing_matrix
    np.testing.assert_allclose(found, [[1 / 2, 0, 1 / 2], [1 / 2, 1 / 2, 0], [1 / 3] * 3])
    assert topology.stochasticity(found) == "row"


def test_agents_are_numbered_in_the_order_of_the_graph():
    lettered = nx.DiGraph([("b", "a"), ("a", "c"), ("c", "b"), ("c", "c")])
    found = topology.from_digraph(lettered, name="abc")
    np.testing.assert_array_equal(found.mixing_matrix > 0, [[1, 0, 1], [1, 1, 0], [0, 1, 1]])
    assert found.name == "abc"


@pytest.mark.parametrize("mixer", [mixing.auto, mixing.neighbors, mixing.shifts])
@pytest.mark.sampled(3)
def test_every_plan_mixes_over_a_directed_graph(mixer):
    directed = topology.from_digraph(
        nx.compose(nx.cycle_graph(5, nx.DiGraph), nx.DiGraph([(2, 0)]))
    )
    tree = random_stacked_tree(5)
    assert_trees_close(mixer(directed)(tree), mixing.dense(directed)(tree))


def test_both_sums_or_neither():
    assert topology.stochasticity(topology.ring(5).mixing_matrix) == "doubly"
    assert topology.stochasticity(np.ones((2, 2))) == "none"
    assert topology.stochasticity([[1.5, -0.5], [-0.5, 1.5]]) == "none"
    assert topology.stochasticity([[0.5, 0.5], [np.nan, 0.5]]) == "none"
    with pytest.raises(ValueError, match=r"shape \(2, 3\); expected \(N, N\)"):
        topology.stochasticity(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.cycle_graph(4), "graph is undirected; give a networkx.DiGraph"),
        (nx.DiGraph(), "there must be at least 1 agent"),
        (nx.DiGraph([(0, 1), (1, 2), (2, 1)]), "what agent 1 sends does not reach everybody"),
    ],
)
def test_what_is_no_directed_graph_to_learn_on_is_refused(graph, message, as_users_run_it):
    with pytest.raises(ValueError, match=message):
        topology.from_digraph(graph)
    with pytest.raises(ValueError, match="unknown weights 'columns'.*did you mean 'column'"):
        topology.from_digraph(nx.DiGraph(EDGES), "columns")


@pytest.mark.parametrize(
    "graph", [topology.ring(8), topology.torus(16), topology.complete(6), topology.path(5)]
)
def test_a_spanning_tree_is_one_and_as_flat_as_the_graph(graph):
    tree = topology.spanning_tree(graph)
    assert nx.is_tree(tree.graph) and tree.num_agents == graph.num_agents
    assert {*tree.graph.edges} <= {*graph.graph.edges}
    root = min(nx.center(graph.graph))
    distances = nx.single_source_shortest_path_length
    assert dict(distances(tree.graph, root)) == dict(distances(graph.graph, root))


def test_a_spanning_tree_has_the_root_that_is_asked_for():
    assert topology.spanning_tree(topology.complete(5), root=3).graph.degree[3] == 4
    with pytest.raises(ValueError, match="root is 5, which is no agent of complete"):
        topology.spanning_tree(topology.complete(5), root=5)
    with pytest.raises(ValueError, match="digraph is directed; relays need links in both"):
        topology.spanning_tree(topology.from_digraph(nx.DiGraph(EDGES)))
