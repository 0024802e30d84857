import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdjax
from cdjax import metrics, topology
from tests.trees import random_stacked_tree


def test_consensus_distance_is_the_rms_distance_from_the_mean():
    tree = random_stacked_tree(5)
    flat = np.concatenate(
        [np.asarray(x).reshape(5, -1) for x in (tree["scalar"], tree["bias"])]
        + [np.asarray(tree["layer"]["kernel"]).reshape(5, -1)],
        axis=1,
    )
    expected = np.sqrt(np.mean(np.sum((flat - flat.mean(axis=0)) ** 2, axis=1)))
    assert float(metrics.consensus_distance(tree)) == pytest.approx(expected, rel=1e-6)


def test_consensus_distance_is_zero_in_consensus_and_for_one_agent():
    tree = {"w": jnp.linspace(0, 1, 6), "count": jnp.array(3)}
    assert float(metrics.consensus_distance(cdjax.replicate(tree, 4))) == 0
    assert float(metrics.consensus_distance(cdjax.replicate(tree, 1))) == 0


def test_the_gradient_of_the_consensus_distance_is_zero_in_consensus():
    stacked = cdjax.replicate({"w": jnp.linspace(0, 1, 6), "z": jnp.ones(2, jnp.complex64)}, 4)
    gradient = jax.grad(metrics.consensus_distance)(stacked)
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0), gradient)
    apart = jnp.array([0.0, 2.0, 4.0])
    expected = (apart - 2) / (3 * metrics.consensus_distance(apart))
    found = jax.grad(metrics.consensus_distance)(apart)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert np.isnan(metrics.consensus_distance(jnp.array([np.nan, 1.0])))


def test_consensus_distance_of_bfloat16_is_summed_in_float32():
    x = jnp.stack([jnp.zeros(100_000, jnp.bfloat16), jnp.ones(100_000, jnp.bfloat16)])
    distance = metrics.consensus_distance(x)
    assert distance.dtype == jnp.float32
    assert float(distance) == pytest.approx(np.sqrt(100_000 / 4), rel=1e-5)


def test_agent_statistics():
    statistics = metrics.agent_statistics(jnp.array([1.0, 2.0, 6.0]))
    np.testing.assert_allclose(statistics, [3, 1, 6, 14 / 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("family", "messages"), [("ring", 16), ("complete", 56), ("star", 14), ("hypercube", 24)]
)
def test_bytes_sent_are_directed_edges_times_one_agents_bytes(family, messages):
    params = {"w": jnp.ones((8, 10)), "half": jnp.ones((8, 3), jnp.bfloat16), "n": jnp.arange(8)}
    assert metrics.bytes_sent(params, topology.create(family, 8)) == messages * (40 + 6)


def test_bytes_by_edge_have_the_receiver_in_the_row():
    graph = topology.from_matrix([[0.5, 0.5, 0], [0, 1, 0], [0, 0.2, 0.8]], validate=False)
    expected = np.array([[0, 8, 0], [0, 0, 0], [0, 8, 0]])
    np.testing.assert_array_equal(metrics.bytes_by_edge({"w": jnp.ones((3, 2))}, graph), expected)


def test_bytes_sent_of_one_agent_are_none():
    assert metrics.bytes_sent({"w": jnp.ones((1, 10))}, topology.ring(1)) == 0


def test_bytes_sent_names_a_leaf_of_another_size():
    with pytest.raises(ValueError, match="leaf 'w' has leading axis 3, but .* has 8 agents"):
        metrics.bytes_sent({"w": jnp.ones((3, 10))}, topology.ring(8))
