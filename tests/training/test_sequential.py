"""The released code's schedule against loops in NumPy, and what follows from it alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology, training
from tests.trees import random_connected_graph

ALPHA, MU, NUM_STEPS = 0.05, 0.8, 7


def loss(params, model_state, batch, key):
    """½‖x − c‖² of a batch of centres; the model state counts the steps."""
    difference = params["x"][None] - batch
    return 0.5 * jnp.mean(jnp.sum(difference**2, -1)), ({"count": model_state["count"] + 1}, {})


def trained(tx, centres, indices, *, epochs=1, make_loop=training.sequential_loop):
    num_agents, dim = len(centres), centres.shape[-1]
    counts = {"count": jnp.zeros(num_agents, int)}
    params = {"x": jnp.zeros((num_agents, dim))}
    state = training.init_state(params, tx, key=jax.random.key(0), model_state=counts)
    loop, losses = make_loop(loss, tx), None
    for _ in range(epochs):
        state, losses = loop(state, jnp.asarray(centres), indices, len(indices))
    return state, losses


def random_problem(num_agents=5):
    rng = np.random.default_rng(0)
    graph = topology.from_graph(random_connected_graph(num_agents, seed=1))
    centres = rng.normal(size=(num_agents, 10, 3))
    return graph, centres, rng.integers(10, size=(NUM_STEPS, num_agents, 4))


def gradient(centres, indices, x, j, k):
    return x - centres[j, indices[k, j]].mean(axis=0)


def test_cdsgd_in_turn_is_the_loop_of_the_released_code(x64):
    graph, centres, indices = random_problem()
    tx = cdjax.cdsgd(ALPHA, mixing.auto(graph))
    x = np.zeros((5, 3))
    for _ in range(2):
        for j in range(5):
            for k in range(NUM_STEPS):
                mixed = sum(graph.mixing_matrix[j, i] * x[i] for i in range(5))
                x[j] = mixed - ALPHA * gradient(centres, indices, x[j], j, k)
    state, _ = trained(tx, centres, indices, epochs=2)
    np.testing.assert_allclose(state.params["x"], x, rtol=1e-12, atol=1e-14)
    assert int(state.step) == 2 * NUM_STEPS
    np.testing.assert_array_equal(state.model_state["count"], [2 * NUM_STEPS] * 5)


def test_cdmsgd_in_turn_moves_one_agents_velocity_alone(x64):
    graph, centres, indices = random_problem()
    tx = cdjax.cdmsgd(ALPHA, mixing.auto(graph), momentum=MU)
    x, v = np.zeros((5, 3)), np.zeros((5, 3))
    for j in range(5):
        for k in range(NUM_STEPS):
            mixed = sum(graph.mixing_matrix[j, i] * x[i] for i in range(5))
            g = gradient(centres, indices, x[j] + MU * v[j], j, k)
            v[j] = mixed - x[j] + MU * v[j] - ALPHA * g
            x[j] = x[j] + v[j]
    state, _ = trained(tx, centres, indices)
    actual = cdjax.eval_params(state.opt_state, state.params)["x"]
    np.testing.assert_allclose(actual, x, rtol=1e-12, atol=1e-14)


def test_without_edges_the_schedule_changes_nothing(x64):
    _, centres, indices = random_problem()
    alone = topology.from_matrix(np.eye(5), validate=False)
    # The step size falls with the steps: every agent's turn starts where the one before started.
    rate = optax.exponential_decay(ALPHA, 2, 0.5)
    tx = cdjax.cdsgd(rate, mixing.dense(alone))

    def at_once(loss, tx):
        return training.train_loop(training.train_step(loss, tx))

    in_turn, losses = trained(tx, centres, indices, epochs=2)
    expected, expected_losses = trained(tx, centres, indices, epochs=2, make_loop=at_once)
    for x, y in zip(jax.tree.leaves(in_turn), jax.tree.leaves(expected), strict=True):
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(x, y, rtol=1e-12)
    np.testing.assert_allclose(losses["loss"], expected_losses["loss"], rtol=1e-12)


def error_left(graph, make_loop):
    """The share of the way to the common optimum that is left after 10 epochs of 50 steps."""
    num_agents = graph.num_agents
    tx = cdjax.cdsgd(0.01, mixing.dense(graph))
    indices = np.zeros((50, num_agents, 1), int)
    state, _ = trained(tx, np.ones((num_agents, 1, 1)), indices, epochs=10, make_loop=make_loop)
    return float(1 - cdjax.mean_params(state.params)["x"][0])


@pytest.mark.parametrize("family", ["complete", "ring"])
@pytest.mark.parametrize("num_agents", [2, 8, 16])
def test_at_once_neither_graph_nor_number_of_agents_slows_cdsgd(family, num_agents, x64):
    left = error_left(
        topology.create(family, num_agents),
        lambda loss, tx: training.train_loop(training.train_step(loss, tx)),
    )
    np.testing.assert_allclose(left, 0.99**500, rtol=1e-10)


def test_in_turn_cdsgd_is_slow_and_slower_for_more_agents_and_denser_graphs(x64):
    in_turn = {
        (family, n): error_left(topology.create(family, n), training.sequential_loop)
        for family, n in [("complete", 2), ("complete", 8), ("complete", 16), ("ring", 8)]
    }
    assert 0.99**500 < in_turn["complete", 2] < in_turn["complete", 8] < in_turn["complete", 16]
    assert in_turn["ring", 8] < in_turn["complete", 8]
    assert in_turn["complete", 2] > 10 * 0.99**500


def test_one_trace_serves_every_number_of_steps():
    graph, centres, indices = random_problem()
    traces = []

    def traced(*args):
        traces.append(0)
        return loss(*args)

    tx = cdjax.cdsgd(ALPHA, mixing.dense(graph))
    loop = training.sequential_loop(traced, tx)
    params, counts = {"x": jnp.zeros((5, 3))}, {"count": jnp.zeros(5, int)}
    state = training.init_state(params, tx, key=jax.random.key(0), model_state=counts)
    state, _ = loop(state, jnp.asarray(centres), indices, 1)
    once = len(traces)
    for num_steps in (3, 2):
        state, _ = loop(state, jnp.asarray(centres), indices, num_steps)
    assert len(traces) == once
