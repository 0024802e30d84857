import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import quadratic_gradients, train


def test_fixed_point_of_unequal_curvatures_solves_the_lyapunov_equation(x64):
    graph = topology.ring(8)
    centers, curvatures = np.arange(8.0), (np.arange(8) + 1) / 8
    gradient = quadratic_gradients(centers, curvatures)
    x, _ = train(cdjax.cdsgd(0.1, mixing.dense(graph)), gradient, jnp.zeros(8), 2000)
    alpha_h = 0.1 * np.diag(curvatures)
    expected = np.linalg.solve(np.eye(8) - graph.mixing_matrix + alpha_h, alpha_h @ centers)
    np.testing.assert_allclose(x, expected, atol=1e-10)
    assert float(x.mean()) == pytest.approx(4.520386, abs=5e-7)


def test_the_mean_moves_by_the_mean_gradient(x64):
    mix = mixing.dense(topology.erdos_renyi(7))
    x, gradient = jnp.arange(7.0) ** 2, quadratic_gradients(np.ones(7), np.arange(7.0))
    moved, _ = train(cdjax.cdsgd(0.1, mix), gradient, x, 1)
    expected = float(jnp.mean(x) - 0.1 * jnp.mean(gradient(x)))
    assert float(jnp.mean(moved)) == pytest.approx(expected, abs=1e-13)


def test_transposing_a_matrix_that_is_not_symmetric_changes_the_result():
    matrix = np.array([[0.9, 0.1], [0.4, 0.6]])
    results = [
        train(
            cdjax.cdsgd(0.0, mixing.dense(topology.from_matrix(m, validate=False))),
            jnp.zeros_like,
            jnp.array([0.0, 1.0]),
            1,
        )[0]
        for m in (matrix, matrix.T)
    ]
    np.testing.assert_allclose(results, [[0.1, 0.6], [0.4, 0.6]], rtol=1e-6)


@pytest.mark.parametrize("learning_rate", [-0.1, float("nan"), float("inf")])
def test_a_learning_rate_out_of_range_is_named(learning_rate):
    with pytest.raises(ValueError, match=f"learning_rate is {learning_rate}; it must lie in"):
        cdjax.cdsgd(learning_rate, mixing.dense(topology.ring(3)))


def test_a_schedule_is_read_at_the_step(x64):
    mix, gradient = mixing.dense(topology.ring(3)), quadratic_gradients(np.arange(3.0))
    schedule = optax.linear_schedule(0.2, 0.1, transition_steps=1)
    two_steps, _ = train(cdjax.cdsgd(schedule, mix), gradient, jnp.ones(3), 2)
    first, _ = train(cdjax.cdsgd(0.2, mix), gradient, jnp.ones(3), 1)
    expected, _ = train(cdjax.cdsgd(0.1, mix), gradient, first, 1)
    np.testing.assert_allclose(two_steps, expected, atol=1e-14)
