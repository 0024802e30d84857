import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import quadratic_gradients, train, trajectory

GRADIENT = quadratic_gradients(np.arange(5.0), np.arange(1.0, 6.0) / 3)
LAZY = mixing.dense(topology.ring(5, weights="lazy"))
START = np.zeros(5)


@pytest.mark.parametrize("beta", [0.1, 0.05])
def test_ten_local_steps_end_at_the_optimum_of_the_mean_loss(beta, x64):
    tx = cdjax.led(optax.sgd(0.05), LAZY, period=10, gain=beta / 0.05)
    x, state = train(tx, GRADIENT, START, 20_000)
    np.testing.assert_allclose(x, 40 / 15, atol=1e-9)
    np.testing.assert_allclose(state.correction, -GRADIENT(x), atol=1e-9)


def test_corrections_sum_to_zero_at_every_step(x64):
    tx = cdjax.led(optax.adam(0.05), LAZY, period=4, gain=1.0)
    _, states = trajectory(tx, GRADIENT, START, 40)
    np.testing.assert_allclose(states.correction.sum(axis=1), 0, atol=1e-12)
    assert jnp.abs(states.correction).max() > 0.01


def test_a_falling_step_size_keeps_the_optimum(x64):
    """The correction is a gradient, which does not change with the step size."""
    tx = cdjax.led(optax.sgd(optax.cosine_decay_schedule(0.05, 20_000)), LAZY, period=5, gain=2.0)
    np.testing.assert_allclose(train(tx, GRADIENT, START, 15_000)[0], 40 / 15, atol=1e-8)


@pytest.mark.parametrize(("share", "converges"), [(0.99, True), (1.01, False)])
@pytest.mark.parametrize("graph", [topology.ring(8), topology.ring(5, weights="lazy")])
def test_the_limit_of_the_gain_is_tight(graph, share, converges, x64):
    gain = share * cdjax.theory.led_gain_limit(graph, learning_rate=0.1, period=5)
    tx = cdjax.led(optax.sgd(0.1), mixing.dense(graph), period=5, gain=gain)
    start = jnp.asarray(np.random.default_rng(0).normal(size=graph.num_agents))
    spread = jnp.ptp(train(tx, jnp.zeros_like, start, 10_000)[0])
    assert spread < 1e-6 if converges else spread > 1e6


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"gain is 0.0; it must lie in \(0"):
        cdjax.led(optax.sgd(0.1), LAZY, period=1, gain=0.0)
