import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdjax
from cdjax import mixing, robust, topology
from cdjax.robust import clipped_gossip
from tests.trees import assert_trees_close, random_connected_graph, random_stacked_tree

pytestmark = pytest.mark.sampled(3)

IRREGULAR = topology.from_graph(random_connected_graph(11, seed=1))
GRAPHS = {
    "one agent": topology.ring(1),
    "irregular": IRREGULAR,
    "hub": topology.star(7),
    "directed": topology.exponential(8, directed=True),
}


def clipped_sums(matrix, rows, radius):
    """A loop over links: every difference shortened to the radius."""
    mixed = rows.copy()
    for j, k in np.argwhere(matrix != 0):
        difference = rows[k] - rows[j]
        length = np.linalg.norm(difference)
        mixed[j] += matrix[j, k] * difference * min(1, radius / length if length else 1)
    return mixed


def two_leaves(num_agents):
    tree = random_stacked_tree(num_agents)
    return {"scalar": tree["scalar"], "bias": tree["bias"]}


def flat(tree):
    """Each agent's leaves end to end."""
    return np.concatenate([np.reshape(x, (len(x), -1)) for x in jax.tree.leaves(tree)], axis=1)


@pytest.mark.parametrize("name", GRAPHS)
def test_differences_are_clipped_by_their_length_over_all_leaves(name, x64):
    graph, tree = GRAPHS[name], two_leaves(GRAPHS[name].num_agents)
    mix = jax.jit(lambda tree, radius: clipped_gossip(graph, radius)(tree))
    for radius in (0.0, 1.0, 5.0, np.inf):
        expected = clipped_sums(graph.mixing_matrix, flat(tree), radius)
        np.testing.assert_allclose(flat(mix(tree, radius)), expected, rtol=1e-12, atol=1e-12)


def test_an_infinite_radius_is_the_dense_mixer(x64):
    tree = two_leaves(11)
    mixed = jax.jit(clipped_gossip(IRREGULAR, np.inf))(tree)
    assert_trees_close(mixed, mixing.dense(IRREGULAR)(tree), rtol=1e-12, atol=1e-12)


def test_clipped_gossip_conserves_the_mean(x64):
    mix, tree = jax.jit(clipped_gossip(IRREGULAR, 0.5)), two_leaves(11)
    mixed = tree
    for _ in range(100):
        mixed = mix(mixed)
    assert_trees_close(cdjax.mean_params(mixed), cdjax.mean_params(tree), rtol=0, atol=1e-13)
    assert cdjax.metrics.consensus_distance(mixed) < cdjax.metrics.consensus_distance(tree)


def test_the_radius_may_be_a_schedule(x64):
    tree = two_leaves(11)
    mixed = jax.jit(clipped_gossip(IRREGULAR, lambda step: 2.0 / (1 + step)))(tree, 3)
    expected = clipped_sums(IRREGULAR.mixing_matrix, flat(tree), 0.5)
    np.testing.assert_allclose(flat(mixed), expected, rtol=1e-12, atol=1e-12)


def test_one_malicious_agent_moves_nobody_by_more_than_weight_times_radius():
    tree, radius = two_leaves(11), 0.3
    mix, matrix = jax.jit(clipped_gossip(IRREGULAR, radius)), IRREGULAR.mixing_matrix
    liar = max(range(11), key=lambda j: IRREGULAR.graph.degree[j])
    silent = np.array(matrix)
    silent[:, liar] = 0
    expected = clipped_sums(silent, flat(tree).astype(float), radius)
    honest = np.arange(11) != liar
    for sent in (1e6, -1e6, 3e38, np.inf, -np.inf, np.nan):
        mixed = flat(mix(jax.tree.map(lambda x: x.at[liar].set(sent), tree)))  # noqa: B023
        moved = np.linalg.norm(mixed - expected, axis=1)
        assert (moved[honest] <= matrix[honest, liar] * radius + 1e-5).all()


def test_over_failing_links_it_is_clipped_gossip_with_their_weights_given_back(x64):
    fault = robust.failing_links(IRREGULAR, 0.4, key=jax.random.key(0))
    mix, tree = jax.jit(clipped_gossip(IRREGULAR, 0.5, fault)), two_leaves(11)
    for step in range(3):
        matrix = np.asarray(robust.faulty(IRREGULAR, fault)(jnp.eye(11), step))
        expected = clipped_sums(matrix, flat(tree), 0.5)
        np.testing.assert_allclose(flat(mix(tree, step)), expected, rtol=1e-12, atol=1e-12)
    assert_trees_close(cdjax.mean_params(mix(tree, 5)), cdjax.mean_params(tree), rtol=1e-12)


def test_counters_pass_and_dtypes_stay():
    tree = {"count": jnp.arange(6), "x": jnp.ones((6, 2), jnp.bfloat16), "z": jnp.ones(6) * 1j}
    mixed = clipped_gossip(topology.complete(6), np.inf)(tree)
    assert_trees_close(mixed, tree, rtol=0, atol=0)
    assert mixed["x"].dtype == jnp.bfloat16


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"radius is -1.0; .* \[0, inf\)"):
        clipped_gossip(topology.ring(5), -1.0)
    with pytest.raises(ValueError, match="radius is nan"):
        clipped_gossip(topology.ring(5), np.nan)
    with pytest.raises(ValueError, match="leaf 'w' has leading axis 4"):
        clipped_gossip(topology.ring(5), 1.0)({"w": jnp.ones(4)})
