import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import topology
from cdjax.mixing import pull, push, random_pairs, random_peers
from tests.trees import assert_trees_close, random_stacked_tree, train

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(0)


def test_pairs_leave_the_mean_to_the_gradients(x64):
    targets = np.array([3.0, -1.0, 4.0, 1.0, -5.0])
    tx = cdjax.gossip(optax.sgd(0.1), pull(random_pairs(topology.ring(5), KEY)), period=2)
    x, _ = train(tx, lambda x: x - targets, jnp.arange(5.0), 30)
    expected = targets.mean() + 0.9**30 * (2.0 - targets.mean())
    np.testing.assert_allclose(jnp.mean(x), expected, atol=1e-13)


def test_agents_talk_in_the_last_step_of_a_period_alone():
    peers = random_peers(topology.complete(4), KEY)
    x = jnp.arange(4.0)
    tx = cdjax.gossip(optax.sgd(0.0), push(peers), period=3)
    np.testing.assert_array_equal(train(tx, jnp.zeros_like, x, 2)[0], x)
    np.testing.assert_array_equal(train(tx, jnp.zeros_like, x, 3)[0], push(peers)(x, 0))


def test_every_kind_of_gossip_reaches_consensus(x64):
    graph = topology.ring(6)
    for mix in (
        pull(random_peers(graph, KEY)),
        push(random_peers(graph, KEY)),
        pull(random_pairs(graph, KEY)),
    ):
        tx = cdjax.gossip(optax.sgd(0.0), mix)
        x, _ = train(tx, jnp.zeros_like, jnp.arange(6.0), 300)
        assert cdjax.metrics.consensus_distance(x) < 1e-9


def test_one_agent_is_the_inner_optimizer(x64):
    tree, inner = random_stacked_tree(1), optax.adam(0.1)
    gradient = lambda tree: jax.tree.map(jnp.sin, tree)  # noqa: E731
    tx = cdjax.gossip(inner, push(random_peers(topology.ring(1), KEY)))
    ours, theirs = (train(t, gradient, tree, 5)[0] for t in (tx, inner))
    assert_trees_close(ours, theirs)
