import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdjax
from cdjax import compress, mixing, topology
from tests.trees import quadratic_gradients, train, trajectory

pytestmark = pytest.mark.sampled(3)

# Problem P: five agents on a ring with weights 1/3, curvatures (1..5)/3, optima 0..4.
RING = topology.ring(5)
MIX = mixing.dense(RING)
CURVATURES, CENTERS = np.arange(1, 6) / 3, np.arange(5.0)
OPTIMUM = 8 / 3


def gradient(x):
    return quadratic_gradients(CENTERS[:, None], CURVATURES[:, None])(x)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(
    ("compressor", "consensus_step"),
    [
        (compress.identity(), 0.5),
        (compress.top_k(0.25), 0.1),
        (compress.random_k(0.25, jax.random.key(0)), 0.1),
        (compress.sign(), 0.1),
        (compress.quantize(4), 0.1),
    ],
    ids=lambda x: getattr(x, "name", x),
)
@pytest.mark.sampled(4)
def test_every_agent_reaches_the_optimum(compressor, consensus_step, momentum, x64):
    tx = cdjax.beer(0.02, MIX, compressor, consensus_step=consensus_step, momentum=momentum)
    x, _ = train(tx, gradient, jnp.zeros((5, 4)), 6000)
    np.testing.assert_allclose(x, OPTIMUM, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_the_mean_of_the_trackers_is_the_mean_gradient_at_every_step(momentum, x64):
    tx = cdjax.beer(0.05, MIX, compress.top_k(0.25), consensus_step=0.2, momentum=momentum)
    _, state = trajectory(tx, gradient, jnp.zeros((5, 4)), 30)
    np.testing.assert_allclose(
        state.tracker.mean(axis=1), state.gradient.mean(axis=1), rtol=1e-13, atol=1e-15
    )


def test_without_compression_from_a_known_start_it_is_gradient_tracking(x64):
    tx = cdjax.beer(0.05, MIX, compress.identity(), consensus_step=1.0, known_start=True)
    found, _ = trajectory(tx, gradient, jnp.ones((5, 1)), 50)
    pi, x = RING.mixing_matrix, np.ones((5, 1))  # DIGing: x⁺ = Πx − αv, v⁺ = Πv + g(x⁺) − g(x)
    g = v = CURVATURES[:, None] * (x - CENTERS[:, None])
    for k in range(50):
        x = pi @ x - 0.05 * v
        new = CURVATURES[:, None] * (x - CENTERS[:, None])
        v, g = pi @ v + new - g, new
        np.testing.assert_allclose(found[k], x, rtol=1e-12)


def test_a_momentum_that_begins_at_zero_is_another_algorithm(x64):
    """The trap of MoTEF.py: M₀ = 0 beside v₀ = g(x₀) ends at 16/3 and not at 8/3."""

    def ends(first):
        pi, eta, gamma, weight = RING.mixing_matrix, 0.05, 0.5, 0.5
        x, h, s = np.zeros((3, 5))
        v = CURVATURES * (x - CENTERS)
        m = first * v
        for _ in range(3000):
            x = x + gamma * (pi @ h - h) - eta * v
            h = x
            new = (1 - weight) * m + weight * CURVATURES * (x - CENTERS)
            v, m = v + gamma * (pi @ s - s) + new - m, new
            s = v
        return x

    np.testing.assert_allclose(ends(first=0), 16 / 3, rtol=1e-9)
    tx = cdjax.beer(0.05, MIX, compress.identity(), consensus_step=0.5, momentum=0.5)
    found, _ = train(tx, gradient, jnp.zeros((5, 1)), 3000)
    np.testing.assert_allclose(found[:, 0], ends(first=1), rtol=1e-9)
    np.testing.assert_allclose(found, OPTIMUM, rtol=1e-9)


def test_a_momentum_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"momentum is 1.0; it must lie in \[0, 1\)"):
        cdjax.beer(0.1, MIX, compress.sign(), consensus_step=0.1, momentum=1.0)
