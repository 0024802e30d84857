import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdjax
from cdjax import mixing, theory, topology
from tests.trees import assert_trees_close, quadratic_gradients, random_stacked_tree


def losses_of_tree(params):
    """f_j = ½ (j + 1) ‖x^j‖² over all leaves."""
    squares = [jnp.sum(x.reshape(len(x), -1) ** 2, axis=1) for x in jax.tree.leaves(params)]
    return (1 + jnp.arange(len(squares[0]))) * sum(squares) / 2


def test_lyapunov_is_the_losses_and_the_weighted_disagreement(x64):
    graph, tree = topology.erdos_renyi(6), random_stacked_tree(6, dtype=float)
    flat = np.concatenate([np.reshape(x, (6, -1)) for x in jax.tree.leaves(tree)], axis=1)
    weighted = np.trace(flat.T @ (np.eye(6) - graph.mixing_matrix) @ flat)
    expected = np.sum((1 + np.arange(6)) * np.sum(flat**2, axis=1)) / 2 + weighted / (2 * 0.3)
    value = jax.jit(lambda x: theory.lyapunov(losses_of_tree, x, graph, step_size=0.3))(tree)
    assert float(value) == pytest.approx(expected, rel=1e-13)


def test_lyapunov_gradient_is_the_derivative_of_lyapunov(x64):
    graph, tree = topology.star(5), random_stacked_tree(5, dtype=float)
    options = {"topology": graph, "step_size": 0.2}
    value_fn = lambda x: theory.lyapunov(losses_of_tree, x, **options)  # noqa: E731
    gradient = jax.jit(lambda x: theory.lyapunov_gradient(losses_of_tree, x, **options))(tree)
    assert_trees_close(gradient, jax.jit(jax.grad(value_fn))(tree), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_a_step_of_cdsgd_is_a_gradient_step_on_lyapunov(x64):
    graph, tree = topology.ring(5), random_stacked_tree(5, dtype=float)
    tx = cdjax.cdsgd(0.1, mixing.dense(graph))
    gradients = jax.grad(lambda x: losses_of_tree(x).sum())(tree)
    updates, _ = tx.update(gradients, tx.init(tree), tree)
    gradient = theory.lyapunov_gradient(losses_of_tree, tree, graph, step_size=0.1)
    assert_trees_close(updates, jax.tree.map(lambda g: -0.1 * g, gradient), rtol=1e-12, atol=1e-13)


def test_the_published_fixed_point_is_stationary(x64):
    centers, alpha = np.arange(8.0), 0.1
    # DESIGN section 5: ring-8, f_j = ½(x − j)², α = .1.
    point = [2.915229, 2.620254, 2.811357, 3.245866, 3.754134, 4.188643, 4.379746, 4.084771]
    gradient = theory.lyapunov_gradient(
        lambda x: (x - centers) ** 2 / 2, jnp.array(point), topology.ring(8), step_size=alpha
    )
    np.testing.assert_allclose(alpha * gradient, 0, atol=1e-6)
    assert np.abs(quadratic_gradients(centers)(jnp.array(point))).max() > 2


def test_a_small_disagreement_on_a_large_mean_is_seen_in_float32():
    x = 1000 + jnp.array([0.0, 0.25])
    value = theory.lyapunov(jnp.zeros_like, x, topology.complete(2), step_size=1.0)
    assert float(value) == 0.25**2 / 4


def test_leaves_that_are_not_floating_point_do_not_disagree():
    params = {"w": jnp.array([0.0, 1.0]), "count": jnp.array([1, 7])}
    graph = topology.complete(2)
    value = theory.lyapunov(lambda p: jnp.zeros(2), params, graph, step_size=1.0)
    assert float(value) == 0.25


def test_lyapunov_names_a_leaf_of_another_size():
    with pytest.raises(ValueError, match="leaf 'w' has leading axis 3, but .* has 5 agents"):
        theory.lyapunov(jnp.sum, {"w": jnp.ones((3, 2))}, topology.ring(5), step_size=0.1)
