import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import (
    assert_trees_close,
    quadratic_gradients,
    random_stacked_tree,
    train,
    trajectory,
)

# ring-5, f_j = ½(x − c_j)², c = 0..4, α = .1, μ = .9, x_0 = v_0 = 0: iterates x at k = 1, 2, 3.
POLYAK = [
    [0, 0.1, 0.2, 0.3, 0.4],
    [0.166667, 0.28, 0.56, 0.84, 0.953333],
    [0.6, 0.569556, 1.028, 1.486444, 1.456],
]
NESTEROV = [
    [0, 0.1, 0.2, 0.3, 0.4],
    [0.166667, 0.271, 0.542, 0.813, 0.917333],
    [0.57, 0.537966, 0.96482, 1.391674, 1.35964],
]
NESTEROV_STORED = [
    [0, 0.19, 0.38, 0.57, 0.76],
    [0.316667, 0.4249, 0.8498, 1.2747, 1.382933],
    [0.933, 0.778235, 1.345358, 1.912481, 1.757716],
]
FIXED_POINT = [1.745068, 1.758725, 2, 2.241275, 2.254932]


def stored_and_iterates(tx, gradient, x, num_steps):
    """Stored parameters and iterates after each step."""
    stored, states = trajectory(tx, gradient, x, num_steps)
    return stored, jax.vmap(cdjax.eval_params)(states, stored)


@pytest.fixture
def ring_5(x64):
    return mixing.dense(topology.ring(5)), quadratic_gradients(np.arange(5.0)), jnp.zeros(5)


def test_polyak_on_ring_5(ring_5):
    mix, gradient, x = ring_5
    stored, iterates = stored_and_iterates(cdjax.cdmsgd(0.1, mix, nesterov=False), gradient, x, 400)
    np.testing.assert_allclose(iterates[:3], POLYAK, atol=5e-7)
    np.testing.assert_array_equal(stored, iterates)
    np.testing.assert_allclose(iterates[-1], FIXED_POINT, atol=5e-7)


def test_nesterov_on_ring_5(ring_5):
    mix, gradient, x = ring_5
    stored, iterates = stored_and_iterates(cdjax.cdmsgd(0.1, mix, momentum=0.9), gradient, x, 400)
    np.testing.assert_allclose(iterates[:3], NESTEROV, atol=5e-7)
    np.testing.assert_allclose(stored[:3], NESTEROV_STORED, atol=5e-7)
    np.testing.assert_allclose(iterates[-1], FIXED_POINT, atol=5e-7)


def test_cdsgd_on_ring_5(ring_5):
    mix, gradient, x = ring_5
    stored, _ = trajectory(cdjax.cdsgd(0.1, mix), gradient, x, 400)
    expected = [
        [0, 0.1, 0.2, 0.3, 0.4],
        [0.166667, 0.19, 0.38, 0.57, 0.593333],
        [0.3, 0.326556, 0.542, 0.757444, 0.784],
    ]
    np.testing.assert_allclose(stored[:3], expected, atol=5e-7)
    np.testing.assert_allclose(stored[-1], FIXED_POINT, atol=5e-7)


@pytest.mark.parametrize("nesterov", [False, True])
def test_schedules_follow_the_equations_exactly(nesterov, x64):
    graph, centers = topology.path(4), np.array([3.0, -1.0, 2.0, 7.0])
    alpha = lambda k: 0.2 / (k + 1)  # noqa: E731
    mu = lambda k: 0.9 * (k + 1) / (k + 4)  # noqa: E731
    tx = cdjax.cdmsgd(alpha, mixing.dense(graph), momentum=mu, nesterov=nesterov)
    _, iterates = stored_and_iterates(tx, quadratic_gradients(centers), jnp.zeros(4), 30)
    x, v = np.zeros(4), np.zeros(4)
    for k in range(30):
        ahead = x + mu(k) * v if nesterov else x
        v = graph.mixing_matrix @ x - x + mu(k) * v - alpha(k) * (ahead - centers)
        x = x + v
        np.testing.assert_allclose(iterates[k], x, atol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_one_agent_with_a_constant_step_is_optax_sgd(nesterov, x64):
    tree = random_stacked_tree(1, dtype=jnp.float64)
    gradient = lambda t: jax.tree.map(jnp.sin, t)  # noqa: E731
    mix = mixing.dense(topology.ring(1))
    ours, _ = train(cdjax.cdmsgd(0.1, mix, nesterov=nesterov), gradient, tree, 20)
    theirs, _ = train(optax.sgd(0.1, 0.9, nesterov=nesterov), gradient, tree, 20)
    assert_trees_close(ours, theirs, atol=1e-14)


def test_without_momentum_it_is_cdsgd(x64):
    mix, gradient = mixing.dense(topology.star(5)), quadratic_gradients(np.arange(5.0))
    ours, _ = trajectory(cdjax.cdmsgd(0.1, mix, momentum=0.0), gradient, jnp.ones(5), 20)
    plain, _ = trajectory(cdjax.cdsgd(0.1, mix), gradient, jnp.ones(5), 20)
    np.testing.assert_allclose(ours, plain, atol=1e-14)


def test_momentum_inside_and_outside_of_consensus_differ(ring_5):
    mix, gradient, x = ring_5
    outside = optax.chain(optax.sgd(0.1, momentum=0.9), cdjax.consensus(mix))
    outer, _ = trajectory(outside, gradient, x, 400)
    inner, _ = trajectory(cdjax.cdmsgd(0.1, mix, nesterov=False), gradient, x, 400)
    np.testing.assert_allclose(outer[2], [0.45, 0.569556, 1.028, 1.486444, 1.606], atol=5e-7)
    assert np.ptp(outer[-1]) > 4 * np.ptp(inner[-1])


def test_the_directed_exponential_graph_makes_inner_momentum_diverge(x64):
    graph = topology.exponential(16, directed=True)
    x = jnp.arange(16.0)
    momentum, state = train(cdjax.cdmsgd(0.0, mixing.dense(graph)), jnp.zeros_like, x, 200)
    plain, _ = train(cdjax.cdsgd(0.0, mixing.dense(graph)), jnp.zeros_like, x, 200)
    assert cdjax.metrics.consensus_distance(cdjax.eval_params(state, momentum)) > 1e6
    assert cdjax.metrics.consensus_distance(plain) < 1e-6


def test_eval_params_finds_the_state_inside_of_a_chain():
    mix, x = mixing.dense(topology.ring(3)), {"w": jnp.arange(3.0)}
    tx = optax.chain(optax.clip(1.0), cdjax.cdmsgd(0.1, mix, momentum=0.5))
    state = tx.init(x)
    updates, state = tx.update(jax.tree.map(jnp.ones_like, x), state, x)
    y = optax.apply_updates(x, updates)
    expected = jax.tree.map(lambda a, v: a - 0.5 * v, y, state[1].velocity)
    assert_trees_close(cdjax.eval_params(state, y), expected)


def test_eval_params_passes_by_masked_leaves():
    mix, x = mixing.dense(topology.ring(3)), {"w": jnp.arange(3.0), "frozen": jnp.ones(3)}
    tx = optax.masked(cdjax.cdmsgd(0.1, mix), {"w": True, "frozen": False})
    state = tx.init(x)
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, x), state, x)
    evaluated = cdjax.eval_params(state, optax.apply_updates(x, updates))
    np.testing.assert_allclose(evaluated["w"], mix(x["w"]), rtol=1e-6)
    np.testing.assert_array_equal(evaluated["frozen"], x["frozen"])


def test_eval_params_finds_every_state_of_multi_transform():
    mix, x = mixing.dense(topology.ring(3)), {"a": jnp.arange(3.0), "b": jnp.arange(3.0)}
    groups = {"slow": cdjax.cdmsgd(0.1, mix, momentum=0.5), "fast": cdjax.cdmsgd(0.2, mix)}
    tx = optax.multi_transform(groups, {"a": "slow", "b": "fast"})
    y, state = train(tx, lambda x: jax.tree.map(jnp.ones_like, x), x, 3)
    for name, group in {"a": "slow", "b": "fast"}.items():
        alone, own_state = train(groups[group], jnp.ones_like, x[name], 3)
        expected = cdjax.eval_params(own_state, alone)
        np.testing.assert_allclose(cdjax.eval_params(state, y)[name], expected, rtol=1e-6)


def test_eval_params_of_other_optimizers_are_the_parameters():
    params = random_stacked_tree(3)
    assert cdjax.eval_params(optax.adam(0.1).init(params), params) is params
