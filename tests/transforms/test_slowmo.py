"""Slow momentum is heavy ball over the rounds, until the step size changes."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import quadratic_gradients, trajectory

GRADIENT = quadratic_gradients(np.arange(5.0), np.arange(1.0, 6.0) / 3)
MEAN, START = mixing.dense(topology.complete(5)), np.zeros(5)


def slow(tx, num_steps=60):
    return trajectory(tx, GRADIENT, START, num_steps)[1].slow


def test_a_fixed_step_size_is_heavy_ball(x64):
    ours = cdjax.slowmo(
        optax.sgd(0.1), MEAN, learning_rate=0.1, period=6, momentum=0.5, slow_learning_rate=0.8
    )
    theirs = cdjax.outer(optax.sgd(0.1), optax.sgd(0.8, momentum=0.5), MEAN, period=6)
    np.testing.assert_allclose(slow(ours), slow(theirs), atol=1e-14)


def test_without_momentum_it_is_local_sgd(x64):
    ours = cdjax.slowmo(optax.sgd(0.1), MEAN, learning_rate=0.1, period=6, momentum=0.0)
    theirs = cdjax.outer(optax.sgd(0.1), optax.sgd(1.0), MEAN, period=6)
    np.testing.assert_allclose(slow(ours), slow(theirs), atol=1e-15)


def test_momentum_moves_by_the_step_size_of_its_round(x64):
    """In a round without gradients: β α_1 u, u = Δ/α_0, where heavy ball moves by β Δ."""
    alpha = lambda step: jnp.where(step < 6, 0.1, 0.05)  # noqa: E731
    slope = lambda x: jnp.ones_like(x)  # noqa: E731
    tx = cdjax.slowmo(optax.sgd(alpha), MEAN, learning_rate=alpha, period=6, momentum=0.5)
    found = trajectory(tx, slope, START, 12)[1].slow[[5, 11], 0]
    first = -6 * 0.1
    np.testing.assert_allclose(found, [first, first + 0.5 * 0.05 / 0.1 * first - 6 * 0.05])


def test_a_step_size_that_ends_at_zero_divides_by_nothing(x64):
    alpha = optax.linear_schedule(0.1, 0.0, 12)
    tx = cdjax.slowmo(optax.sgd(alpha), MEAN, learning_rate=alpha, period=6)
    found = slow(tx, 30)
    assert jnp.isfinite(found).all()
    np.testing.assert_array_equal(found[17], found[29])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"learning_rate is 0.0; it must lie in \(0"):
        cdjax.slowmo(optax.sgd(0.1), MEAN, learning_rate=0.0)
    with pytest.raises(ValueError, match=r"momentum is 1.0; it must lie in \[0, 1\)"):
        cdjax.slowmo(optax.sgd(0.1), MEAN, learning_rate=0.1, momentum=1.0)
