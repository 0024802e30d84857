import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import compress
from tests.trees import trajectory

pytestmark = pytest.mark.sampled(3)


def gradients(x):
    """Of agents that differ, of a vector of eight."""
    centers = jnp.arange(3.0)[:, None] + jnp.arange(8.0)[None]
    return (x - centers) * (1 + jnp.arange(8.0)[None])


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_where_all_is_sent_a_step_is_the_sign_of_the_mean_gradient(decay, x64):
    tx = cdjax.demo(0.01, compress.dct_top_k(8, 8), decay=decay)
    x, _ = trajectory(tx, gradients, jnp.zeros((3, 8)), 20)
    before = jnp.concatenate([jnp.zeros((1, 3, 8)), x[:-1]])
    mean = jax.vmap(gradients)(before).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(x, before - 0.01 * np.sign(mean), atol=1e-15)


def test_agents_that_start_alike_stay_alike_to_the_last_bit():
    tx = cdjax.demo(0.01, compress.dct_top_k(2, 8), weight_decay=0.1)
    x, _ = trajectory(tx, gradients, jnp.ones((3, 8)), 50)
    np.testing.assert_array_equal(x, jnp.broadcast_to(x[:, :1], x.shape))


def test_what_is_kept_and_what_is_sent_add_up_to_the_momentum(x64):
    compressor, beta, alpha = compress.dct_top_k(2, 8), 0.9, 0.1
    tx = cdjax.demo(alpha, compressor, decay=beta)
    x, states = trajectory(tx, gradients, jnp.zeros((3, 8)), 15)
    before = jnp.concatenate([jnp.zeros((1, 3, 8)), x[:-1]])
    kept = jnp.concatenate([jnp.zeros((1, 3, 8)), states.momentum[:-1]])
    given = alpha * jax.vmap(gradients)(before)
    sent = jax.vmap(compressor)(beta * kept + given)
    weights = beta ** np.arange(14, -1, -1)
    expected = np.tensordot(weights, given, 1)
    total = states.momentum[-1] + np.tensordot(weights, sent, 1)
    np.testing.assert_allclose(total, expected, rtol=1e-13)


def test_weights_decay_beside_the_step(x64):
    tx = cdjax.demo(0.1, compress.dct_top_k(8), weight_decay=0.5)
    x, _ = trajectory(tx, jnp.zeros_like, jnp.ones((2, 8)), 3)
    np.testing.assert_allclose(x[-1], 0.95**3, rtol=1e-14)


@pytest.mark.parametrize("decay", [0.0, 0.95])
def test_sparse_loco_that_sends_all_is_federated_averaging(decay, x64):
    inner = optax.sgd(0.01, momentum=0.9)
    tx = cdjax.sparse_loco(inner, compress.chunk_top_k(8, 8), period=5, decay=decay)
    x, _ = trajectory(tx, gradients, jnp.zeros((3, 8)), 20)
    expected, _ = trajectory(cdjax.fedavg(inner, local_steps=5), gradients, jnp.zeros((3, 8)), 20)
    np.testing.assert_allclose(x, expected, rtol=1e-13, atol=1e-15)


def test_evaluated_of_sparse_loco_is_what_all_agree_on_also_amid_a_round(x64):
    tx = cdjax.sparse_loco(optax.sgd(0.01), compress.chunk_top_k(2, 8), period=5)
    x, states = trajectory(tx, gradients, jnp.zeros((3, 8)), 12)
    evaluated = jax.vmap(cdjax.eval_params)(states, x)
    ends = np.arange(4, 12, 5)  # of the two rounds
    np.testing.assert_allclose(evaluated[ends], x[ends], rtol=1e-14)
    np.testing.assert_array_equal(evaluated[:4], np.zeros((4, 3, 8)))
    np.testing.assert_array_equal(evaluated[10], evaluated[9])
    assert cdjax.metrics.consensus_distance(x[10]) > 0 == np.ptp(evaluated, axis=1).max()
    slow = cdjax.slow_params(jax.tree.map(lambda leaf: leaf[10], states))
    np.testing.assert_array_equal(slow, evaluated[10])


@pytest.mark.slow
def test_sparse_loco_adds_up_what_is_kept_and_what_is_sent(x64):
    beta, compressor = 0.8, compress.chunk_top_k(2, 8)
    tx = cdjax.sparse_loco(optax.sgd(0.05), compressor, period=1, decay=beta)
    x, states = trajectory(tx, gradients, jnp.zeros((3, 8)), 12)
    before = jnp.concatenate([jnp.zeros((1, 3, 8)), x[:-1]])
    given = 0.05 * jax.vmap(gradients)(before)  # Δ = θ − x after a step
    kept = jnp.concatenate([jnp.zeros((1, 3, 8)), states.error[:-1]])
    sent = jax.vmap(compressor)(beta * kept + given)
    weights = beta ** np.arange(11, -1, -1)
    total = states.error[-1] + np.tensordot(weights, sent, 1)
    np.testing.assert_allclose(total, np.tensordot(weights, given, 1), rtol=1e-12)


def test_arguments_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"decay is 2.0; it must lie in \[0, 1\]"):
        cdjax.demo(0.1, compress.sign(), decay=2.0)
    with pytest.raises(ValueError, match="period is 0; it must lie in"):
        cdjax.sparse_loco(optax.sgd(0.1), compress.sign(), period=0)
