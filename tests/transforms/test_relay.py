"""Means along a spanning tree, late by the distance."""

import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

import cdjax
from cdjax import topology
from tests.trees import quadratic_gradients, train, trajectory

TREE = nx.Graph([(0, 1), (1, 2), (1, 3), (3, 4), (3, 5), (5, 6)])
N = 7
# A hub of ten links, which are summed otherwise than few.
HUB = nx.Graph([*((0, leaf) for leaf in range(1, 11)), (10, 11)])


@pytest.mark.parametrize("tree", [TREE, HUB], ids=["few links", "a hub"])
def test_every_agent_counts_the_same_late_by_its_distance(tree, x64):
    """x_i(t + 1) is the mean over j of x̂_j(t − max(d_ij − 1, 0)), with the start before step 0."""
    rng, num_agents, start = np.random.default_rng(0), len(tree), 1.5
    kicks = rng.normal(size=(20, num_agents))  # the updates, so that what was adapted is known
    tx = cdjax.relay(optax.sgd(1.0), tree)
    x, state, adapted, found = jnp.full(num_agents, start), None, [], [np.full(num_agents, start)]
    state = tx.init(x)
    for kick in kicks:
        adapted.append(np.asarray(x) + kick)
        updates, state = tx.update(-jnp.asarray(kick), state, x)
        x = optax.apply_updates(x, updates)
        found.append(np.asarray(x))

    distance = dict(nx.all_pairs_shortest_path_length(tree))
    for t in range(len(kicks)):
        for i in tree:
            times = {j: t - max(distance[i][j] - 1, 0) for j in tree}
            heard = [adapted[times[j]][j] if times[j] >= 0 else start for j in tree]
            np.testing.assert_allclose(found[t + 1][i], np.mean(heard), atol=1e-14)


@pytest.mark.parametrize("tree", [topology.path(5), topology.star(5)])
def test_it_ends_at_the_optimum_of_the_mean_loss(tree, x64):
    gradient = quadratic_gradients(np.arange(5.0), np.arange(1.0, 6.0) / 3)
    x = train(cdjax.relay(optax.sgd(0.1), tree), gradient, jnp.zeros(5), 3000)[0]
    np.testing.assert_allclose(x, 40 / 15, atol=1e-9)


@pytest.mark.parametrize("tree", [TREE, HUB], ids=["few links", "a hub"])
def test_agents_that_agree_stay_to_the_last_bit(tree):
    x = jnp.full((len(tree), 3), 0.1, jnp.bfloat16)
    found, _ = trajectory(cdjax.relay(optax.sgd(0.1), tree), jnp.zeros_like, x, 30)
    np.testing.assert_array_equal(found, jnp.broadcast_to(x, (30, *x.shape)))


def test_one_agent_is_the_inner_optimizer():
    alone, start = topology.ring(1), jnp.ones((1, 2))
    ours = train(cdjax.relay(optax.adam(0.1), alone), jnp.sin, start, 5)[0]
    np.testing.assert_array_equal(ours, train(optax.adam(0.1), jnp.sin, start, 5)[0])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (topology.ring(5), "5 agents and 5 edges and is connected; a tree is connected and has 4"),
        (nx.Graph([(0, 1), (2, 3)]), "4 agents and 2 edges and is not connected"),
        (nx.Graph([("a", "b")]), r"nodes \['a', 'b'\]; number them from 0"),
        (np.eye(3), "of type ndarray; give a topology or a networkx graph"),
    ],
)
def test_what_is_no_tree_is_refused(tree, message):
    with pytest.raises(ValueError, match=message):
        cdjax.relay(optax.sgd(0.1), tree)


def test_another_number_of_agents_is_refused():
    with pytest.raises(ValueError, match="leading axis 5, but the tree has 7 agents"):
        cdjax.relay(optax.sgd(0.1), TREE).init({"w": jnp.ones(5)})
