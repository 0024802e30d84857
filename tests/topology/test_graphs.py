import networkx as nx
import pytest

from cdjax.topology import _graphs


@pytest.mark.parametrize(
    ("num_agents", "sides"), [(1, (1, 1)), (4, (2, 2)), (12, (3, 4)), (36, (6, 6)), (26, (2, 13))]
)
def test_rectangles_are_as_square_as_can_be(num_agents, sides):
    assert _graphs.rectangle_sides("grid", num_agents, None) == sides


def test_powers_of_two_below_a_number():
    assert [_graphs.powers_of_two(n) for n in (1, 2, 5, 8)] == [[], [1], [1, 2, 4], [1, 2, 4]]


def test_draws_go_on_until_a_graph_is_connected():
    draws = iter([nx.empty_graph(3), nx.empty_graph(3), nx.path_graph(3)])
    graph = _graphs.connected_draw(lambda rng: next(draws), seed=0, remedy="")
    assert nx.utils.graphs_equal(graph, nx.path_graph(3))


def test_a_thousand_draws_are_enough():
    with pytest.raises(ValueError, match="no connected graph in 1000 draws: raise it"):
        _graphs.connected_draw(lambda rng: nx.empty_graph(2), seed=0, remedy="raise it")
