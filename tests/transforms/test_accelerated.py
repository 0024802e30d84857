"""Accelerated gossip of rounds: fixed points, rates, and what is DiLoCo on a complete graph."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, theory, topology
from tests.trees import quadratic_gradients, train, trajectory

CENTERS, CURVATURES = np.arange(5.0), np.arange(1.0, 6.0) / 3
GRADIENT = quadratic_gradients(CENTERS, CURVATURES)
INNER, START = optax.sgd(0.1), np.zeros(5)
RING, COMPLETE = mixing.dense(topology.ring(5)), mixing.dense(topology.complete(5))


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_fixed_point_depends_on_the_outer_step_and_not_on_the_momentum(momentum, before, x64):
    tx = cdjax.accelerated_outer(
        INNER, RING, period=10, learning_rate=0.7, momentum=momentum, momentum_before_mix=before
    )
    found = cdjax.slow_params(train(tx, GRADIENT, START, 6000)[1])
    pi, p = topology.ring(5).mixing_matrix, 1 - (1 - 0.1 * CURVATURES) ** 10
    expected = np.linalg.solve(np.eye(5) - pi * (1 - 0.7 * p), pi @ (0.7 * p * CENTERS))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    published = [2.27671401, 1.81706675, 2.18509448, 2.83430506, 2.74022989]
    np.testing.assert_allclose(found, published, atol=1e-8)


@pytest.mark.slow
def test_momentum_before_the_mix_is_diloco_on_a_complete_graph_and_after_it_is_not(x64):
    def slow(tx):
        return trajectory(tx, GRADIENT, START, 100)[1].slow[9::10]

    nesterov = optax.sgd(0.7, momentum=0.6, nesterov=True)
    expected = slow(cdjax.outer(INNER, nesterov, COMPLETE, period=10))
    make = lambda before: cdjax.accelerated_outer(  # noqa: E731
        INNER, COMPLETE, period=10, momentum=0.6, momentum_before_mix=before
    )
    np.testing.assert_allclose(slow(make(True)), expected, atol=1e-14)
    after = slow(make(False))
    assert jnp.ptp(after, axis=1).max() > 0.1 and jnp.abs(after - expected).max() > 0.1


@pytest.mark.parametrize(
    ("num_agents", "rate", "plain"),
    [(8, 0.558115, 0.804738), (16, 0.774729, 0.949253), (32, 0.886820, 0.987190)],
)
@pytest.mark.sampled(3)
def test_the_best_momentum_takes_the_root_of_the_gap(num_agents, rate, plain, x64):
    graph = topology.ring(num_agents)
    gamma = theory.gossip_momentum(graph)
    assert np.sqrt(gamma) == pytest.approx(rate, abs=1e-6)
    tx = cdjax.accelerated_outer(
        INNER, mixing.dense(graph), period=1, learning_rate=1.0, momentum=gamma
    )
    start = jnp.asarray(np.cos(2 * np.pi * np.arange(num_agents) / num_agents))
    slow = trajectory(tx, jnp.zeros_like, start, 40)[1].slow
    # A double root: its powers come with a factor of the step, here about 2 in 20 steps.
    found = (jnp.linalg.norm(slow[-1]) / jnp.linalg.norm(slow[-21])) ** (1 / 20)
    assert rate < found < rate * 1.05 < plain


@pytest.mark.parametrize(("share", "converges"), [(0.99, True), (1.01, False)])
@pytest.mark.sampled(2)
def test_the_limit_of_momentum_before_the_mix_is_tight(share, converges, x64):
    graph = topology.torus(16)
    limit = theory.momentum_before_mix_limit(graph)
    assert limit == pytest.approx(1 / 3)

    def spread(graph, momentum):
        tx = cdjax.accelerated_outer(
            INNER, mixing.dense(graph), period=1, momentum=momentum, momentum_before_mix=True
        )
        start = jnp.asarray(np.random.default_rng(0).normal(size=16))
        return jnp.ptp(cdjax.slow_params(train(tx, jnp.zeros_like, start, 8000)[1]))

    found = spread(graph, share * limit)
    assert found < 1e-6 if converges else found > 1e6
    assert spread(topology.torus(16, weights="lazy"), 0.9) < 1e-6  # DiLoCo's own


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"momentum is 1.0; it must lie in \[0, 1\)"):
        cdjax.accelerated_outer(INNER, RING, period=1, momentum=1.0)
