import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import cdsgd, metrics, mixing, topology
from cdjax.mixing import edge_weights, from_edge_weights
from tests.trees import assert_trees_close, quadratic_gradients, random_stacked_tree, train

pytestmark = pytest.mark.sampled(3)

STAR = topology.star(8)


def test_with_the_weights_of_the_topology_it_is_dense(x64):
    graph, tree = topology.watts_strogatz(12), random_stacked_tree(12)
    mix = jax.jit(lambda weights, tree: from_edge_weights(graph, weights)(tree))
    expected = mixing.dense(graph)(tree)
    assert_trees_close(mix(edge_weights(graph), tree), expected, rtol=1e-13, atol=1e-13)


def test_any_weights_are_a_symmetric_doubly_stochastic_matrix(x64):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=7))
    matrix = np.asarray(from_edge_weights(STAR, weights)(jnp.eye(8)))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-15)
    np.testing.assert_allclose(matrix.sum(axis=0), 1, atol=1e-15)


def test_the_derivative_by_a_weight_is_the_difference_over_its_edge(x64):
    x = jnp.arange(8.0) ** 2
    slopes = jax.jacobian(lambda w: from_edge_weights(STAR, w)(x))(edge_weights(STAR))
    # By the weight of hub and leaf j, the leaf moves by x[0] - x[j], and the hub the other way.
    np.testing.assert_allclose(slopes[1:], np.diag(x[0] - x[1:]))
    np.testing.assert_allclose(slopes[0], x[1:] - x[0])


def after_training(weights):
    """Agents in training with these weights: a quadratic each, of other centres."""
    tx = cdsgd(0.1, from_edge_weights(STAR, weights))
    return train(tx, quadratic_gradients(np.arange(8.0)), jnp.zeros(8), 40)[0]


def test_learned_weights_of_a_star_find_less_disagreement_than_metropolis_ones(x64):
    weights = start = edge_weights(STAR)
    loss = lambda weights: metrics.consensus_distance(after_training(weights))  # noqa: E731
    descend = jax.jit(lambda weights: weights - 2e-3 * jax.grad(loss)(weights))
    for _ in range(200):
        weights = descend(weights)
    assert float(loss(weights)) < 0.9 * float(loss(start))


def test_a_validation_loss_is_lower_with_weights_that_are_learned_through_training(x64):
    # The mean of all agents is what is validated, and each at its own parameters.
    loss = lambda weights: jnp.mean((after_training(weights) - 3.5) ** 2)  # noqa: E731
    step = jax.jit(lambda weights: weights - 2e-3 * jax.grad(loss)(weights))
    weights = start = edge_weights(STAR)
    for _ in range(100):
        weights = step(weights)
    assert float(loss(weights)) < 0.95 * float(loss(start))


def test_a_wrong_number_of_weights_is_named():
    with pytest.raises(
        ValueError, match=r"edge_weights has shape \(3,\); give one number per edge"
    ):
        from_edge_weights(STAR, jnp.ones(3))
