import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

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


def test_eval_params_of_a_state_that_was_made_under_vmap(x64):
    params = {"w": jnp.ones((4, 3, 2)), "b": jnp.ones(4)}
    mix = mixing.auto(topology.ring(4))
    whole, single = cdjax.cdmsgd(0.1, mix), cdjax.cdmsgd(0.1, mixing.for_each(mix))
    grads = jax.tree.map(lambda x: jnp.arange(x.size, dtype=float).reshape(x.shape), params)
    _, of_all = whole.update(grads, whole.init(params), params)
    _, of_each = jax.vmap(single.update)(grads, jax.vmap(single.init)(params), params)
    assert of_each.lookahead.shape == (4,)
    expected = cdjax.eval_params(of_all, params)
    jax.tree.map(np.testing.assert_array_equal, cdjax.eval_params(of_each, params), expected)
    by_one = jax.vmap(cdjax.eval_params)(of_each, params)
    jax.tree.map(np.testing.assert_array_equal, by_one, expected)


def test_eval_params_of_an_optimizer_of_nnx(x64):
    model = cdjax.replicate(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), 4)
    optimizer = nnx.Optimizer(
        model, cdjax.cdmsgd(0.1, mixing.auto(topology.ring(4))), wrt=nnx.Param
    )
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    for _ in range(2):
        optimizer.update(model, grads)
    found = cdjax.eval_params(optimizer.opt_state, nnx.state(model, nnx.Param))
    plain = nnx.as_pure(optimizer.opt_state), nnx.as_pure(nnx.state(model, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, nnx.as_pure(found), cdjax.eval_params(*plain))


RATES = np.array([0.1, 0.2, 0.0, 0.4])


@pytest.mark.parametrize("as_schedule", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda rate, mix: cdjax.cdsgd(rate, mix),
        lambda rate, mix: cdjax.cdmsgd(rate, mix),
        lambda rate, mix: cdjax.cdmsgd(rate, mix, nesterov=False),
        lambda rate, mix: cdjax.easgd(rate),
        lambda rate, mix: cdjax.eamsgd(rate),
        lambda rate, mix: cdjax.downpour(rate, 0.01, fetch_period=100),
    ],
)
@pytest.mark.sampled(4)
def test_step_sizes_of_agents_are_gradients_so_much_longer(make, as_schedule, x64):
    mix = mixing.auto(topology.ring(4))
    rng = np.random.default_rng(0)
    start = {"w": jnp.asarray(rng.normal(size=(4, 3, 2))), "b": jnp.asarray(rng.normal(size=4))}
    grads = [jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), start) for _ in "abc"]
    scaled = [jax.tree.map(lambda g: g * jnp.asarray(RATES).reshape(-1, *[1] * (g.ndim - 1)), g)
              for g in grads]  # fmt: skip

    def run(tx, grads):
        params, state = start, tx.init(start)
        for g in grads:
            updates, state = tx.update(g, state, params)
            params = optax.apply_updates(params, updates)
        return params

    rates = (lambda step: jnp.asarray(RATES)) if as_schedule else RATES
    actual = run(make(rates, mix), grads)
    # Downpour's server sees gradients, and not steps; no agent fetches from it so early.
    expected = run(make(1.0, mix), scaled)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-12), actual, expected)


def test_another_number_of_step_sizes_is_named():
    tx = cdjax.cdsgd(jnp.ones(3), mixing.auto(topology.ring(4)))
    with pytest.raises(ValueError, match="leading axis 4, but the learning rate has 3 agents"):
        tx.init(jnp.ones((4, 2)))
