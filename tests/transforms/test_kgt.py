import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import quadratic_gradients, train, trajectory

CENTERS, CURVATURES = np.arange(5.0), np.arange(1.0, 6.0) / 3
GRADIENT = quadratic_gradients(CENTERS, CURVATURES)
OPTIMUM = np.sum(CURVATURES * CENTERS) / np.sum(CURVATURES)  # 2.666667
RING = mixing.dense(topology.ring(5))
START = np.zeros(5)


@pytest.mark.parametrize(("alpha", "eta"), [(0.05, 0.5), (0.02, 1.0), (0.1, 0.7)])
def test_ten_local_steps_end_at_the_optimum_of_the_mean_loss(alpha, eta, x64):
    tx = cdjax.kgt(optax.sgd(alpha), RING, period=10, learning_rate=eta)
    x, state = train(tx, GRADIENT, START, 20_000)
    np.testing.assert_allclose(x, OPTIMUM, atol=1e-9)
    np.testing.assert_allclose(state.correction, np.mean(g := GRADIENT(x)) - g, atol=1e-9)


def test_corrections_sum_to_zero_at_every_step(x64):
    tx = cdjax.kgt(optax.adam(0.05), RING, period=4, learning_rate=0.5)
    _, states = trajectory(tx, GRADIENT, START, 40)
    np.testing.assert_allclose(states.correction.sum(axis=1), 0, atol=1e-12)
    assert jnp.abs(states.correction).max() > 0.1


def test_an_adaptive_optimizer_ends_at_the_optimum_too(x64):
    """And in plain rounds it does not: each agent's own scale weighs its loss."""
    inner = optax.rmsprop(optax.exponential_decay(0.05, 20_000, 1e-3), eps=0.1)
    corrected = cdjax.kgt(inner, RING, period=5, learning_rate=0.5)
    plain = cdjax.adapt_then_combine(inner, mixing.every(5, RING))
    x, biased = (train(tx, GRADIENT, START, 20_000)[0] for tx in (corrected, plain))
    np.testing.assert_allclose(x, OPTIMUM, atol=1e-2)
    assert jnp.abs(biased - OPTIMUM).max() > 0.1


def test_one_agent_is_the_inner_optimizer(x64):
    alone = mixing.dense(topology.ring(1))
    tx, start = cdjax.kgt(optax.adam(0.1), alone, period=3), jnp.ones((1, 2))
    ours, theirs = (train(t, jnp.sin, start, 9)[0] for t in (tx, optax.adam(0.1)))
    np.testing.assert_allclose(ours, theirs, atol=1e-15)


def test_a_run_that_resumes_in_the_middle_of_a_round_goes_on_bit_for_bit(x64):
    tx = cdjax.kgt(optax.adam(0.1), RING, period=6)

    @jax.jit
    def ten_steps(x, state):
        def step(_, carry):
            updates, state = tx.update(GRADIENT(carry[0]), carry[1], carry[0])
            return optax.apply_updates(carry[0], updates), state

        return jax.lax.fori_loop(0, 10, step, (x, state))

    once = ten_steps(START, tx.init(START))
    again = ten_steps(*jax.device_put(jax.device_get(once)))
    jax.tree.map(np.testing.assert_array_equal, again, ten_steps(*once))
    assert int(once[1].step) % 6


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"period is 0; it must lie in \[1"):
        cdjax.kgt(optax.sgd(0.1), RING, period=0)
    with pytest.raises(ValueError, match=r"learning_rate is 0.0; it must lie in \(0"):
        cdjax.kgt(optax.sgd(0.1), RING, period=1, learning_rate=0.0)
