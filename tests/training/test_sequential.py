"""The released code's schedule against loops in NumPy, and what follows from it alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology, training
from tests.trees import random_connected_graph

pytestmark = pytest.mark.sampled(3)

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


@pytest.mark.slow
def test_momentum_inside_of_consensus_holds_back_and_that_of_the_released_code_does_not(x64):
    """An agent against neighbours that stand still: five on a complete graph, 79 steps a turn."""
    mix, alpha, mu = mixing.auto(topology.complete(5)), 0.01, 0.95
    outside = optax.chain(optax.sgd(alpha, momentum=mu, nesterov=True), cdjax.consensus(mix))
    expected = {
        "CDSGD": (cdjax.cdsgd(alpha, mix), [0.201, 1.123, 2.159]),
        "inside": (cdjax.cdmsgd(alpha, mix, momentum=mu), [0.173, 0.940, 1.820]),
        "released": (outside, [2.960, 8.766, 9.862]),
    }
    centres, indices = np.full((5, 1, 1), 10.0), np.zeros((79, 5, 1), int)
    for name, (tx, means) in expected.items():
        for epochs, mean in zip((1, 5, 10), means, strict=True):
            state, _ = trained(tx, centres, indices, epochs=epochs)
            found = cdjax.eval_params(state.opt_state, state.params)["x"].mean()
            assert float(found) == pytest.approx(mean, abs=6e-4), (name, epochs)


def test_the_released_momentum_is_nesterovs_outside_of_consensus(x64):
    """CDMSGD.py: v = μ m − α g; x = Σ π x + μ v − α g."""
    graph, centres, indices = random_problem()
    sgd = optax.sgd(ALPHA, momentum=MU, nesterov=True)
    x, v = np.zeros((5, 3)), np.zeros((5, 3))
    for j in range(5):
        for k in range(NUM_STEPS):
            mixed = sum(graph.mixing_matrix[j, i] * x[i] for i in range(5))
            g = gradient(centres, indices, x[j], j, k)
            v[j] = MU * v[j] - ALPHA * g
            x[j] = mixed + MU * v[j] - ALPHA * g
    tx = optax.chain(sgd, cdjax.consensus(mixing.auto(graph)))
    state, _ = trained(tx, centres, indices)
    np.testing.assert_allclose(state.params["x"], x, rtol=1e-12, atol=1e-14)


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


def small_run(tx, x, centres, *, num_steps, epochs):
    """Agents with f_j(x) = ½(x − c_j)², one number each; their iterates at the end."""

    def loss(params, model_state, batch, key):
        return 0.5 * jnp.sum((params - batch) ** 2), (model_state, {})

    state = training.init_state(jnp.array(x), tx, key=jax.random.key(0))
    loop = training.sequential_loop(loss, tx)
    for _ in range(epochs):
        indices = np.zeros((num_steps, len(x), 1), int)
        state, _ = loop(state, jnp.array(centres)[:, None], indices, num_steps)
    return cdjax.eval_params(state.opt_state, state.params)


def test_neighbours_stand_still_while_the_momentum_changes(x64):
    graph, x, centres = topology.ring(3), [1.0, -2.0, 0.5], [0.0, 1.0, 5.0]
    momentum = lambda k: 0.9 - 0.5 / (k + 1)  # noqa: E731
    tx = cdjax.cdmsgd(0.1, mixing.dense(graph), momentum=momentum)
    found = small_run(tx, x, centres, num_steps=3, epochs=2)
    x, v = np.array(x), np.zeros(3)
    for epoch in range(2):
        for j in range(3):
            for k in range(3 * epoch, 3 * epoch + 3):
                gradient = x[j] + momentum(k) * v[j] - centres[j]
                v[j] = graph.mixing_matrix[j] @ x - x[j] + momentum(k) * v[j] - 0.1 * gradient
                x[j] += v[j]
    np.testing.assert_allclose(found, x, rtol=1e-12)
    np.testing.assert_allclose(found, [1.4395, 0.9965, 2.7457], atol=5e-5)


def adam(rate, b1=0.9, b2=0.999, eps=1e-8):
    """Adam of one number in NumPy: from gradient and state to update and state."""

    def update(g, state):
        k, m, s = state[0] + 1, b1 * state[1] + (1 - b1) * g, b2 * state[2] + (1 - b2) * g * g
        return -rate * (m / (1 - b1**k)) / (np.sqrt(s / (1 - b2**k)) + eps), (k, m, s)

    return update, (0, 0.0, 0.0)


def momentum(rate, mu):
    return (lambda g, v: (-rate * (g + mu * v), g + mu * v)), 0.0


@pytest.mark.parametrize(
    ("inner", "numpy"),
    [(optax.sgd(0.1, momentum=0.9), momentum(0.1, 0.9)), (optax.adam(0.1), adam(0.1))],
    ids=["momentum", "adam"],
)
def test_only_the_agent_whose_turn_it_is_adapts_before_agents_combine(inner, numpy, x64):
    graph, x, centres = topology.ring(3), [1.0, -2.0, 0.5], [0.0, 1.0, 5.0]
    tx = cdjax.adapt_then_combine(inner, mixing.dense(graph))
    found = small_run(tx, x, centres, num_steps=4, epochs=2)
    (update, start), x = numpy, np.array(x)
    states = [start] * 3
    for epoch in range(2):
        for j in range(3):
            for k in range(4):
                state = states[j]
                if isinstance(state, tuple):  # the count of Adam's steps runs anew in every turn
                    state = (4 * epoch + k, *state[1:])
                step, states[j] = update(x[j] - centres[j], state)
                x[j] = graph.mixing_matrix[j] @ (x + step * (np.arange(3) == j))
    np.testing.assert_allclose(found, x, rtol=1e-10)


def test_a_turn_of_four_steps_of_momentum_by_hand(x64):
    tx = cdjax.adapt_then_combine(optax.sgd(0.1, momentum=0.9), mixing.dense(topology.ring(3)))
    found = small_run(tx, [1.0, -2.0, 0.5], [0.0, 1.0, 5.0], num_steps=4, epochs=1)
    np.testing.assert_allclose(found, [-0.7106, 0.1299, 0.4451], atol=5e-5)


@pytest.mark.parametrize(
    "tx",
    [
        cdjax.easgd(0.1),
        optax.chain(optax.clip(1.0), cdjax.downpour(0.1, 0.1)),
        cdjax.gosgd(optax.sgd(0.1), mixing.random_peers(topology.ring(4), jax.random.key(0))),
    ],
    ids=["easgd", "downpour in a chain", "gosgd"],
)
@pytest.mark.parametrize("dim", [4, 5])
@pytest.mark.sampled(3)
def test_a_server_or_messages_are_refused(tx, dim):
    with pytest.raises(ValueError, match="tx has a .*State.*; agents that train in turn need"):
        trained(tx, np.zeros((4, 2, dim)), np.zeros((2, 4, 1), int))


def test_a_state_of_n_numbers_that_all_agents_share_is_not_stacked(x64):
    """A schedule's table of as many numbers as there are agents belongs to none of them."""
    shared = lambda updates, state, params=None: (updates, state + 1.0)  # noqa: E731
    tx = optax.chain(
        optax.GradientTransformation(lambda params: jnp.zeros(4), shared), optax.sgd(0.1)
    )
    state, _ = trained(tx, np.ones((4, 2, 3)), np.zeros((2, 4, 1), int))
    np.testing.assert_array_equal(state.opt_state[0], [2.0] * 4)


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
@pytest.mark.sampled(3)
def test_at_once_neither_graph_nor_number_of_agents_slows_cdsgd(family, num_agents, x64):
    left = error_left(
        topology.create(family, num_agents),
        lambda loss, tx: training.train_loop(training.train_step(loss, tx)),
    )
    np.testing.assert_allclose(left, 0.99**500, rtol=1e-10)


@pytest.mark.slow
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
