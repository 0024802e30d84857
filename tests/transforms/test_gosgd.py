import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import topology
from cdjax.mixing import random_peers
from tests.trees import assert_trees_close, random_stacked_tree

KEY = jax.random.key(0)
PEERS = random_peers(topology.complete(6), KEY, probability=0.4)


def states(tx, gradient, x, num_steps):
    """Parameters and states after each step."""
    state, history = tx.init(x), []
    step = jax.jit(lambda x, state: tx.update(gradient(x), state, x))
    for _ in range(num_steps):
        updates, state = step(x, state)
        x = optax.apply_updates(x, updates)
        history.append((x, state))
    return history


def total_weight(state):
    return float(
        sum(jnp.sum(weight) for weight in [state.weight, *(m[0] for m in state.in_flight)])
    )


def weighted_sum(x, state):
    return float(state.weight @ x + sum(jnp.sum(mail.weighted_params) for mail in state.in_flight))


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_weights_sum_to_one_with_messages_in_flight(delay, x64):
    tx = cdjax.gosgd(optax.sgd(0.1), PEERS, delay=delay)
    history = states(tx, jnp.sin, jnp.arange(6.0), 200)
    np.testing.assert_allclose([total_weight(state) for _, state in history], 1, atol=1e-13)
    seen_in_flight = any(jnp.sum(state.weight) < 0.9 for _, state in history)
    assert seen_in_flight == (delay > 0)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_gossip_conserves_the_weighted_mean(delay, x64):
    tx = cdjax.gosgd(optax.sgd(0.0), PEERS, delay=delay)
    history = states(tx, jnp.zeros_like, jnp.arange(6.0), 200)
    np.testing.assert_allclose([weighted_sum(*pair) for pair in history], 2.5, atol=1e-12)
    np.testing.assert_allclose(history[-1][0], 2.5, atol=1e-6)


def test_a_push_by_hand(x64):
    tx = cdjax.gosgd(optax.sgd(0.0), lambda step: jnp.array([2, 2, 2]))
    ((x, state),) = states(tx, jnp.zeros_like, jnp.array([1.0, 2.0, 6.0]), 1)
    np.testing.assert_allclose(state.weight, [1 / 6, 1 / 6, 2 / 3], rtol=1e-14)
    np.testing.assert_allclose(x, [1, 2, (0.5 * 1 + 0.5 * 2 + 6) / 2], rtol=1e-14)


def test_a_message_arrives_after_its_delay(x64):
    talk_once = lambda step: jnp.where(step == 0, jnp.array([1, 1]), jnp.array([0, 1]))  # noqa: E731
    tx = cdjax.gosgd(optax.sgd(0.0), talk_once, delay=2)
    history = states(tx, jnp.zeros_like, jnp.array([0.0, 3.0]), 3)
    np.testing.assert_allclose([x[1] for x, _ in history], [3, 3, 2], rtol=1e-14)


@pytest.mark.parametrize("delay", [0, 2])
def test_one_agent_is_the_inner_optimizer(delay, x64):
    tree, inner = random_stacked_tree(1), optax.adam(0.1)
    gradient = lambda tree: jax.tree.map(jnp.sin, tree)  # noqa: E731
    tx = cdjax.gosgd(inner, random_peers(topology.ring(1), KEY), delay=delay)
    ours, theirs = (states(t, gradient, tree, 5)[-1][0] for t in (tx, inner))
    assert_trees_close(ours, theirs, atol=1e-14)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"delay is -1; it must lie in \[0, inf\)"):
        cdjax.gosgd(optax.sgd(0.1), PEERS, delay=-1)
    tx = cdjax.gosgd(optax.sgd(0.1), PEERS)
    x = {"w": jnp.ones(5)}
    with pytest.raises(ValueError, match="leading axis 5, but peers has 6 agents"):
        tx.update(x, tx.init(x), x)
