from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import quadratic_gradients, train, trajectory

CDSGD_RING_8 = [2.915229, 2.620254, 2.811357, 3.245866, 3.754134, 4.188643, 4.379746, 4.084771]
ATC_RING_8 = [3.185632, 2.729883, 2.850762, 3.255229, 3.744771, 4.149238, 4.270117, 3.814368]


def test_fixed_points_of_both_orders_on_ring_8(x64):
    mix, gradient = mixing.dense(topology.ring(8)), quadratic_gradients(np.arange(8.0))
    cdsgd, _ = train(cdjax.cdsgd(0.1, mix), gradient, jnp.zeros(8), 400)
    atc, _ = train(cdjax.adapt_then_combine(optax.sgd(0.1), mix), gradient, jnp.zeros(8), 400)
    np.testing.assert_allclose(cdsgd, CDSGD_RING_8, atol=5e-7)
    np.testing.assert_allclose(atc, ATC_RING_8, atol=5e-7)


def test_momentum_outside_of_consensus_ends_at_cdsgd_of_a_larger_step(x64):
    graph, centers = topology.ring(5), np.arange(5.0)
    outside = optax.chain(optax.sgd(0.1, momentum=0.9), cdjax.consensus(mixing.dense(graph)))
    x, _ = train(outside, quadratic_gradients(centers), jnp.zeros(5), 2000)
    np.testing.assert_allclose(x, [0.862069, 1.172414, 2, 2.827586, 3.137931], atol=5e-7)
    step = 0.1 / (1 - 0.9)
    fixed_point = np.linalg.solve((1 + step) * np.eye(5) - graph.mixing_matrix, step * centers)
    np.testing.assert_allclose(x, fixed_point, atol=1e-10)


def test_on_complete_graph_atc_is_large_batch_sgd_and_cdsgd_only_at_first(x64):
    mix = mixing.dense(topology.complete(4))
    gradient = quadratic_gradients(np.arange(4.0), np.arange(1.0, 5.0))
    atc = cdjax.adapt_then_combine(optax.sgd(0.1), mix)
    atc, cdsgd = (
        trajectory(tx, gradient, jnp.zeros(4), 3)[0] for tx in (atc, cdjax.cdsgd(0.1, mix))
    )
    sgd = jnp.zeros(4)
    for step in range(3):
        sgd = sgd - 0.1 * jnp.mean(gradient(sgd))
        np.testing.assert_allclose(atc[step], sgd, atol=1e-14)
        assert np.allclose(jnp.mean(cdsgd[step]), sgd[0]) == (step == 0)


def test_multi_steps_mixes_every_k_steps():
    mix, gradient = mixing.dense(topology.ring(5)), quadratic_gradients(np.arange(5.0))
    tx = optax.MultiSteps(cdjax.cdsgd(0.0, mix), 3).gradient_transformation()
    x = jnp.arange(5.0)
    np.testing.assert_allclose(train(tx, gradient, x, 2)[0], x)
    np.testing.assert_allclose(train(tx, gradient, x, 3)[0], mix(x), rtol=1e-6)


def test_consensus_behind_multi_steps_mixes_as_inside_but_only_once_per_step():
    mixes = []

    def mix(tree, step=0):
        jax.debug.callback(lambda: mixes.append(1))
        return mixing.dense(topology.ring(5))(tree, step)

    sgd, gradient = optax.sgd(0.1), quadratic_gradients(np.arange(5.0))
    behind = optax.chain(
        optax.MultiSteps(sgd, 3).gradient_transformation(),
        cdjax.consensus(mixing.every(3, mix)),
    )
    inside = optax.MultiSteps(optax.chain(sgd, cdjax.consensus(mix)), 3).gradient_transformation()
    found = []
    for tx, expected in ((behind, 2), (inside, 6)):
        found.append(train(tx, gradient, jnp.arange(5.0), 6)[0])
        jax.effects_barrier()
        assert len(mixes) == expected
        mixes.clear()
    np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        cdjax.consensus,
        partial(cdjax.adapt_then_combine, optax.sgd(0.1)),
        partial(cdjax.cdmsgd, 0.1),
        partial(cdjax.gossip, optax.sgd(0.1)),
        lambda mix: cdjax.delayed(cdjax.consensus, mix, delays=[0, 0]),
        lambda mix: cdjax.delayed(cdjax.consensus, mix, delays=[0, 2]),
    ],
)
def test_a_mixer_is_told_the_step(make):
    steps = []
    tx, x = make(lambda tree, step: steps.append(int(step)) or tree), jnp.ones(2)
    state = tx.init(x)
    for _ in range(3):
        _, state = tx.update(x, state, x)
    assert steps == [0, 1, 2]
