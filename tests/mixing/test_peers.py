import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdjax
from cdjax import mixing, topology
from cdjax.mixing import pull, push, random_pairs, random_peers
from tests.trees import assert_trees_close, random_connected_graph, random_stacked_tree

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(7)


def draws(peers, num_steps):
    """The peers of many steps, shape (steps, N)."""
    return np.asarray(jax.jit(jax.vmap(peers))(jnp.arange(num_steps)))


def matrix_mixer(matrix):
    return mixing.dense(topology.from_matrix(matrix, validate=False))


@pytest.fixture
def graph():
    return topology.from_graph(random_connected_graph(9))


def test_peers_are_neighbors_with_equal_chances(graph):
    peers = draws(random_peers(graph, KEY), 4000)
    for j in range(9):
        neighbors, counts = np.unique(peers[:, j], return_counts=True)
        assert set(neighbors) == set(graph.graph[j])
        chance = 1 / len(neighbors)
        np.testing.assert_allclose(counts / 4000, chance, atol=5 * np.sqrt(chance / 4000))


def test_a_share_of_the_agents_talks():
    peers = draws(random_peers(topology.complete(10), KEY, probability=0.3), 2000)
    silent = np.mean(peers == np.arange(10))
    assert silent == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / 20000))


def test_pairs_are_neighbors_and_mutual_and_leave_no_free_edge(graph):
    agents = np.arange(9)
    for peers in draws(random_pairs(graph, KEY), 200):
        np.testing.assert_array_equal(peers[peers], agents)
        assert all(graph.graph.has_edge(j, peers[j]) for j in agents[peers != agents])
        assert not graph.graph.subgraph(agents[peers == agents]).number_of_edges()


@pytest.mark.parametrize("num_agents", [5, 8])
def test_pairs_on_a_complete_graph_leave_out_one_agent_at_most(num_agents):
    peers = draws(random_pairs(topology.complete(num_agents), KEY), 50)
    assert (np.sum(peers == np.arange(num_agents), axis=1) == num_agents % 2).all()


def test_the_three_pairings_of_four_agents_come_equally_often():
    peers = draws(random_pairs(topology.complete(4), KEY), 3000)
    counts = collections.Counter(peers[:, 0].tolist())
    assert sorted(counts) == [1, 2, 3]
    np.testing.assert_allclose(list(counts.values()), 1000, atol=5 * np.sqrt(3000 * 2 / 9))


@pytest.mark.parametrize("draw", [random_peers, random_pairs])
def test_the_step_and_the_key_determine_the_draw(draw, graph):
    run = jax.jit(lambda key, steps: jax.vmap(draw(graph, key))(steps))
    drawn, again = run(KEY, jnp.arange(50)), run(KEY, jnp.arange(50)[::-1])
    np.testing.assert_array_equal(drawn, again[::-1])
    assert len(np.unique(drawn, axis=0)) > 20
    assert (drawn != run(jax.random.key(8), jnp.arange(50))).any()


def test_pull_averages_with_the_peer(graph, x64):
    peers, tree = random_peers(graph, KEY, probability=0.5), random_stacked_tree(9)
    mix = jax.jit(pull(peers))
    for step in range(5):
        matrix = (np.eye(9) + np.eye(9)[np.asarray(peers(step))]) / 2
        assert_trees_close(mix(tree, step), matrix_mixer(matrix)(tree), atol=1e-14)


def test_push_averages_what_arrives(graph, x64):
    peers, tree = random_peers(graph, KEY, probability=0.5), random_stacked_tree(9)
    mix = jax.jit(push(peers))
    for step in range(5):
        matrix = np.eye(9)
        for sender, receiver in enumerate(np.asarray(peers(step))):
            matrix[receiver, sender] = 1
        matrix /= matrix.sum(axis=1, keepdims=True)
        assert_trees_close(mix(tree, step), matrix_mixer(matrix)(tree), atol=1e-14)


def test_pulls_within_pairs_conserve_the_mean(graph, x64):
    mix, tree = jax.jit(pull(random_pairs(graph, KEY))), random_stacked_tree(9)
    mixed = tree
    for step in range(100):
        mixed = mix(mixed, step)
    assert_trees_close(cdjax.mean_params(mixed), cdjax.mean_params(tree), rtol=0, atol=1e-13)
    assert cdjax.metrics.consensus_distance(mixed) < 1e-3


@pytest.mark.parametrize(("mixer", "draw"), [(pull, random_pairs), (push, random_peers)])
def test_one_agent_stays_as_it_is(mixer, draw):
    x = random_stacked_tree(1)["bias"]
    mixed = jax.jit(mixer(draw(topology.ring(1), KEY)))(x, 3)
    np.testing.assert_array_equal(mixed, x)


@pytest.mark.parametrize("mixer", [pull, push])
def test_counters_pass_and_dtypes_stay(mixer):
    tree = {"count": jnp.arange(4), "x": jnp.arange(4, dtype=jnp.bfloat16)}
    mixed = jax.jit(mixer(random_peers(topology.complete(4), KEY)))(tree, 0)
    np.testing.assert_array_equal(mixed["count"], [0, 1, 2, 3])
    assert mixed["x"].dtype == jnp.bfloat16


@pytest.mark.parametrize("mixer", [pull, push])
def test_another_number_of_agents_is_named(mixer):
    with pytest.raises(ValueError, match="leading axis 3, but peers has 4 agents"):
        mixer(random_peers(topology.ring(4), KEY))({"w": jnp.ones(3)}, 0)


def test_the_same_mixer_draws_other_peers_at_another_step_and_needs_one(graph):
    mix, x = jax.jit(pull(random_pairs(graph, KEY))), jnp.arange(9.0)
    assert (mix(x, 0) != mix(x, 1)).any()
    with pytest.raises(ValueError, match=r"pull changes with the step: call mix\(tree, step\)"):
        mix(x)


def test_a_probability_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"probability is 1.5; it must lie in \[0, 1\]"):
        random_peers(topology.ring(3), KEY, probability=1.5)
