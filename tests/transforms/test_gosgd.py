import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

import cdjax
from cdjax import topology
from cdjax.mixing import random_peers
from tests.slow import slow
from tests.trees import assert_trees_close, random_stacked_tree, train, trajectory

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(0)
PEERS = random_peers(topology.complete(6), KEY, probability=0.4)


def total_weight(state):
    """The weights of agents and messages, at each step of a trajectory."""
    weights = [state.log2_weight, *(m.log2_weight for m in state.in_flight)]
    return sum(jnp.sum(jnp.exp2(w), axis=1) for w in weights)


def weighted_sum(x, state):
    """The weighted parameters of agents and messages, at each step of a trajectory."""
    parts = [state.weight * x, *(jnp.exp2(m.log2_weight) * m.params for m in state.in_flight)]
    return sum(jnp.sum(part, axis=1) for part in parts)


@pytest.mark.parametrize("delay", [0, 1, 3])
@pytest.mark.sampled(3)
def test_weights_sum_to_one_with_messages_in_flight(delay, x64):
    tx = cdjax.gosgd(optax.sgd(0.1), PEERS, delay=delay)
    _, states = trajectory(tx, jnp.sin, jnp.arange(6.0), 200)
    np.testing.assert_allclose(total_weight(states), 1, atol=1e-13)
    assert (states.weight.sum(axis=1) < 0.9).any() == (delay > 0)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_gossip_conserves_the_weighted_mean(delay, x64):
    tx = cdjax.gosgd(optax.sgd(0.0), PEERS, delay=delay)
    x, states = trajectory(tx, jnp.zeros_like, jnp.arange(6.0), 200)
    np.testing.assert_allclose(weighted_sum(x, states), 2.5, atol=1e-12)
    np.testing.assert_allclose(x[-1], 2.5, atol=1e-6)


def test_a_push_by_hand(x64):
    tx = cdjax.gosgd(optax.sgd(0.0), lambda step: jnp.array([2, 2, 2]))
    x, state = train(tx, jnp.zeros_like, jnp.array([1.0, 2.0, 6.0]), 1)
    np.testing.assert_allclose(state.weight, [1 / 6, 1 / 6, 2 / 3], rtol=1e-14)
    np.testing.assert_allclose(x, [1, 2, (0.5 * 1 + 0.5 * 2 + 6) / 2], rtol=1e-14)


def test_a_message_arrives_after_its_delay(x64):
    talk_once = lambda step: jnp.where(step == 0, jnp.array([1, 1]), jnp.array([0, 1]))  # noqa: E731
    tx = cdjax.gosgd(optax.sgd(0.0), talk_once, delay=2)
    x, _ = trajectory(tx, jnp.zeros_like, jnp.array([0.0, 3.0]), 3)
    np.testing.assert_allclose(x[:, 1], [3, 3, 2], rtol=1e-14)


@pytest.mark.parametrize("delay", [0, 2])
def test_one_agent_is_the_inner_optimizer(delay, x64):
    tree, inner = random_stacked_tree(1), optax.adam(0.1)
    gradient = lambda tree: jax.tree.map(jnp.sin, tree)  # noqa: E731
    tx = cdjax.gosgd(inner, random_peers(topology.ring(1), KEY), delay=delay)
    ours, theirs = (train(t, gradient, tree, 5)[0] for t in (tx, inner))
    assert_trees_close(ours, theirs, atol=1e-14)


def test_counters_pass():
    tree = {"count": jnp.arange(6), "x": jnp.arange(6.0)}
    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)  # noqa: E731
    after, _ = train(cdjax.gosgd(optax.sgd(0.1), PEERS, delay=1), zeros, tree, 5)
    np.testing.assert_array_equal(after["count"], tree["count"])
    assert (after["x"] != tree["x"]).any()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"delay is -1; it must lie in \[0, inf\)"):
        cdjax.gosgd(optax.sgd(0.1), PEERS, delay=-1)
    tx = cdjax.gosgd(optax.sgd(0.1), PEERS)
    x = {"w": jnp.ones(5)}
    with pytest.raises(ValueError, match="leading axis 5, but peers has 6 agents"):
        tx.update(x, tx.init(x), x)


@pytest.mark.parametrize(
    ("graph", "probability", "num_steps"),
    [
        (topology.star(32), 0.1, 10_000),  # a float32 weight is 0 after 960
        *slow(
            (topology.star(32), 0.1, 100_000),
            (topology.star(100), 1.0, 100_000),
            (topology.from_graph(nx.barabasi_albert_graph(100, 1, seed=0)), 1.0, 100_000),
            (topology.from_graph(nx.barabasi_albert_graph(100, 1, seed=0)), 0.02, 100_000),
        ),
    ],
)
def test_weights_of_agents_that_seldom_hear_do_not_vanish(graph, probability, num_steps):
    num_agents = graph.num_agents
    tx = cdjax.gosgd(optax.sgd(0.0), random_peers(graph, KEY, probability=probability))
    start = jnp.arange(num_agents, dtype=jnp.float32)
    x, state = train(tx, jnp.zeros_like, start, num_steps)
    assert jnp.isfinite(state.log2_weight).all()
    np.testing.assert_allclose(state.weight.sum(), 1, atol=1e-6)
    # All have come to agree on what is conserved, but for the rounding of 100,000 steps.
    np.testing.assert_allclose(x, (num_agents - 1) / 2, rtol=2e-3)
