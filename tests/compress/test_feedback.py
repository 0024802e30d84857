import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import compress
from tests.trees import quadratic_gradients, train

COMPRESSORS = {
    "top-k": compress.top_k(0.2),
    "sign": compress.sign(),
    "bins": compress.bin_means(2),
    "2-bit chunks": compress.chunk_top_k(2, 8, value_bits=2),
    "dct": compress.dct_top_k(2, 8),
}


@pytest.mark.parametrize("decay", [1.0, 0.9])
@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.sampled(3)
def test_what_is_sent_and_what_is_kept_add_up(name, decay, x64):
    feedback = compress.error_feedback(COMPRESSORS[name], decay=decay)
    given = np.random.default_rng(0).normal(size=(20, 3, 16))

    def step(memory, tree):
        sent, memory = feedback.update(tree, memory, 0)
        return memory, sent

    memory, sent = jax.lax.scan(step, feedback.init(jnp.zeros((3, 16))), jnp.asarray(given))
    weights = decay ** np.arange(19, -1, -1)
    np.testing.assert_allclose(
        memory + np.tensordot(weights, sent, 1), np.tensordot(weights, given, 1), atol=1e-13
    )


def test_differences_to_what_was_read_end_at_what_stands_still(x64):
    feedback = compress.difference_feedback(compress.top_k(0.25))
    update = jax.jit(feedback.update)
    tree, memory = jnp.arange(1.0, 9.0).reshape(2, 4), jnp.zeros((2, 4))
    for sent in range(1, 5):  # one entry of four a step, the largest first
        read, memory = update(tree, memory, 0)
        np.testing.assert_array_equal((read != 0).sum(axis=1), sent)
    np.testing.assert_array_equal(read, tree)


def test_scaled_signs_with_feedback_find_the_optimum(x64):
    gradient = quadratic_gradients(jnp.zeros((1, 2)), jnp.array([[1.0, 0.1]]))
    tx = compress.compressed_updates(compress.error_feedback(compress.sign()))
    tx = optax.chain(optax.sgd(0.5), tx)
    x, _ = train(tx, gradient, jnp.ones((1, 2)), 1000)
    np.testing.assert_allclose(x, 0, atol=1e-9)


def test_the_learning_rate_enters_once(x64):
    # e ← .9e + ηΔ, then x ← x − q: with everything sent, a step is η long and not η².
    tx = optax.chain(
        optax.sgd(0.8),
        compress.compressed_updates(compress.error_feedback(compress.identity(), decay=0.9)),
        cdjax.average_updates(),
    )
    updates, _ = tx.update(jnp.ones((2, 1)), tx.init(jnp.zeros((2, 1))), jnp.zeros((2, 1)))
    np.testing.assert_array_equal(updates, -0.8)


def test_a_decay_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"decay is 1.5; it must lie in \[0, 1\]"):
        compress.error_feedback(compress.sign(), decay=1.5)
