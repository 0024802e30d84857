import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import quadratic_gradients

CDSGD_RING_8 = [2.915229, 2.620254, 2.811357, 3.245866, 3.754134, 4.188643, 4.379746, 4.084771]
ATC_RING_8 = [3.185632, 2.729883, 2.850762, 3.255229, 3.744771, 4.149238, 4.270117, 3.814368]


def iterate(tx, gradient, x, num_steps):
    state = tx.init(x)
    for _ in range(num_steps):
        updates, state = tx.update(gradient(x), state, x)
        x = optax.apply_updates(x, updates)
    return x


def test_fixed_points_of_both_orders_on_ring_8(x64):
    mix, gradient = mixing.dense(topology.ring(8)), quadratic_gradients(np.arange(8.0))
    cdsgd = iterate(cdjax.cdsgd(0.1, mix), gradient, jnp.zeros(8), 400)
    atc = iterate(cdjax.adapt_then_combine(optax.sgd(0.1), mix), gradient, jnp.zeros(8), 400)
    np.testing.assert_allclose(cdsgd, CDSGD_RING_8, atol=5e-7)
    np.testing.assert_allclose(atc, ATC_RING_8, atol=5e-7)


def test_fixed_point_of_unequal_curvatures_solves_the_lyapunov_equation(x64):
    graph = topology.ring(8)
    centers, curvatures = np.arange(8.0), (np.arange(8) + 1) / 8
    gradient = quadratic_gradients(centers, curvatures)
    x = iterate(cdjax.cdsgd(0.1, mixing.dense(graph)), gradient, jnp.zeros(8), 2000)
    alpha_h = 0.1 * np.diag(curvatures)
    expected = np.linalg.solve(np.eye(8) - graph.mixing_matrix + alpha_h, alpha_h @ centers)
    np.testing.assert_allclose(x, expected, atol=1e-10)
    assert float(x.mean()) == pytest.approx(4.520386, abs=5e-7)


def test_momentum_outside_of_consensus_ends_at_cdsgd_of_a_larger_step(x64):
    graph, centers = topology.ring(5), np.arange(5.0)
    outside = optax.chain(optax.sgd(0.1, momentum=0.9), cdjax.consensus(mixing.dense(graph)))
    x = iterate(outside, quadratic_gradients(centers), jnp.zeros(5), 2000)
    np.testing.assert_allclose(x, [0.862069, 1.172414, 2, 2.827586, 3.137931], atol=5e-7)
    step = 0.1 / (1 - 0.9)
    fixed_point = np.linalg.solve((1 + step) * np.eye(5) - graph.mixing_matrix, step * centers)
    np.testing.assert_allclose(x, fixed_point, atol=1e-10)


def test_on_complete_graph_atc_is_large_batch_sgd_and_cdsgd_only_at_first(x64):
    mix = mixing.dense(topology.complete(4))
    gradient = quadratic_gradients(np.arange(4.0), np.arange(1.0, 5.0))
    sgd = atc = cdsgd = jnp.zeros(4)
    for step in range(3):
        sgd = sgd - 0.1 * jnp.mean(gradient(sgd))
        atc = iterate(cdjax.adapt_then_combine(optax.sgd(0.1), mix), gradient, atc, 1)
        cdsgd = iterate(cdjax.cdsgd(0.1, mix), gradient, cdsgd, 1)
        np.testing.assert_allclose(atc, sgd, atol=1e-14)
        assert np.allclose(jnp.mean(cdsgd), sgd[0]) == (step == 0)


def test_the_mean_moves_by_the_mean_gradient(x64):
    mix = mixing.dense(topology.erdos_renyi(7))
    x, gradient = jnp.arange(7.0) ** 2, quadratic_gradients(np.ones(7), np.arange(7.0))
    moved = iterate(cdjax.cdsgd(0.1, mix), gradient, x, 1)
    expected = float(jnp.mean(x) - 0.1 * jnp.mean(gradient(x)))
    assert float(jnp.mean(moved)) == pytest.approx(expected, abs=1e-13)


def test_transposing_a_matrix_that_is_not_symmetric_changes_the_result():
    matrix = np.array([[0.9, 0.1], [0.4, 0.6]])
    results = [
        iterate(
            cdjax.cdsgd(0.0, mixing.dense(topology.from_matrix(m, validate=False))),
            jnp.zeros_like,
            jnp.array([0.0, 1.0]),
            1,
        )
        for m in (matrix, matrix.T)
    ]
    np.testing.assert_allclose(results, [[0.1, 0.6], [0.4, 0.6]], rtol=1e-6)


def test_multi_steps_mixes_every_k_steps():
    mix, gradient = mixing.dense(topology.ring(5)), quadratic_gradients(np.arange(5.0))
    tx = optax.MultiSteps(cdjax.cdsgd(0.0, mix), 3).gradient_transformation()
    x = jnp.arange(5.0)
    np.testing.assert_allclose(iterate(tx, gradient, x, 2), x)
    np.testing.assert_allclose(iterate(tx, gradient, x, 3), mix(x), rtol=1e-6)


def test_a_mixer_is_told_the_step():
    steps = []
    mix = lambda tree, step=0: steps.append(int(step)) or tree  # noqa: E731
    iterate(optax.chain(optax.sgd(0.1), cdjax.consensus(mix)), jnp.zeros_like, jnp.ones(2), 3)
    iterate(cdjax.adapt_then_combine(optax.sgd(0.1), mix), jnp.zeros_like, jnp.ones(2), 3)
    iterate(cdjax.cdmsgd(0.1, mix), jnp.zeros_like, jnp.ones(2), 3)
    assert steps == [0, 1, 2] * 3
