import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import topology
from tests.trees import random_stacked_tree, trajectory

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(0)
RING = topology.ring(5)


def gossip(graph=RING, rank=1):
    return cdjax.power_gossip(optax.sgd(0.0), graph.mixing_matrix, key=KEY, rank=rank)


def test_the_sum_of_the_agents_stays(x64):
    tree = random_stacked_tree(5, dtype=jnp.float64)
    x, _ = trajectory(gossip(), lambda x: jax.tree.map(jnp.zeros_like, x), tree, 10)
    for before, after in zip(jax.tree.leaves(tree), jax.tree.leaves(x), strict=True):
        expected = np.broadcast_to(before.sum(axis=0), after[:, 0].shape)
        np.testing.assert_allclose(after.sum(axis=1), expected, atol=1e-13)


def test_vectors_are_mixed_and_a_difference_of_low_rank_after_two_steps_too(x64):
    rng = np.random.default_rng(0)
    common, pair = rng.normal(size=(12, 9)), topology.ring(2)
    apart = rng.normal(size=(12, 2)) @ rng.normal(size=(2, 9))
    tree = {
        "w": jnp.asarray(np.stack([common, common + apart])),
        "b": jnp.arange(6.0).reshape(2, 3),
    }
    x, _ = trajectory(gossip(pair, rank=2), lambda x: jax.tree.map(jnp.zeros_like, x), tree, 2)
    np.testing.assert_allclose(x["b"][0], pair.mixing_matrix @ tree["b"], atol=1e-15)
    np.testing.assert_array_equal(x["w"][0], tree["w"])  # of random directions nothing is averaged
    mixed = np.einsum("jl,lmn->jmn", pair.mixing_matrix, tree["w"])
    np.testing.assert_allclose(x["w"][1], mixed, atol=1e-13)


def test_a_loop_over_edges_agrees_over_50_steps(x64):
    rng, pi = np.random.default_rng(0), RING.mixing_matrix
    start, centers = rng.normal(size=(2, 5, 6, 4))
    tx = cdjax.power_gossip(optax.sgd(0.05), pi, key=KEY)
    edges = [(i, j) for i in range(5) for j in range(i) if pi[i, j]]
    state = tx.init(jnp.asarray(start))
    factors = [np.asarray(p) for p in state.left[0]]

    x = list(start)
    # Power iterations amplify rounding where two directions are about as large: 1e-13 after 40
    # steps, 2e-8 after 100.
    for k in range(50):
        x = [xj - 0.05 * (xj - c) for xj, c in zip(x, centers, strict=True)]
        moved = list(x)
        for e, (i, j) in enumerate(edges):
            unit = factors[e] / np.linalg.norm(factors[e])
            if k % 2 == 0:
                factors[e] = x[i].T @ unit - x[j].T @ unit
                pull = unit @ factors[e].T
            else:
                factors[e] = x[i] @ unit - x[j] @ unit
                pull = factors[e] @ unit.T
            if k > 0:
                moved[i], moved[j] = moved[i] - pi[i, j] * pull, moved[j] + pi[i, j] * pull
        x = moved
    found, _ = trajectory(tx, lambda x: x - centers, jnp.asarray(start), 50)
    np.testing.assert_allclose(found[-1], x, atol=1e-10)


def test_a_matrix_that_is_not_symmetric_is_named():
    with pytest.raises(ValueError, match="mixing_matrix is not symmetric"):
        cdjax.power_gossip(optax.sgd(0.1), np.eye(3)[[1, 2, 0]], key=KEY)
