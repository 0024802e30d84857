from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, robust, topology
from tests.trees import (
    assert_trees_close,
    quadratic_gradients,
    random_connected_graph,
    random_stacked_tree,
    train,
    trajectory,
)

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(2)
GRAPH = topology.from_graph(random_connected_graph(5))
MIX = mixing.dense(GRAPH)
DELAYS = [0, 3, 1, 0, 2]
CENTERS = np.arange(5.0)


def lagging_run(matrix_at, x, num_steps, *, rate=0.1):
    """Parameters after each step, by a loop over agents and the whole past."""
    past = [x]
    for step in range(num_steps):
        matrix, now = matrix_at(step), past[-1]
        heard = np.array([past[max(step - lag, 0)][j] for j, lag in enumerate(DELAYS)])
        mixed = [
            matrix[j, j] * now[j] + sum(matrix[j, k] * heard[k] for k in range(5) if k != j)
            for j in range(5)
        ]
        past.append(np.array(mixed) - rate * (now - CENTERS))
    return past[1:]


def test_neighbors_receive_what_a_lagging_agent_was(x64):
    x = np.asarray(random_stacked_tree(5)["scalar"])
    tx = optax.chain(optax.sgd(0.1), cdjax.delayed(cdjax.consensus, MIX, delays=DELAYS))
    found, _ = trajectory(tx, quadratic_gradients(CENTERS), jnp.asarray(x), 9)
    expected = lagging_run(lambda step: GRAPH.mixing_matrix, x, 9)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.slow
def test_the_weights_may_change_from_step_to_step(x64):
    mix = robust.faulty(GRAPH, robust.failing_links(GRAPH, 0.5, key=KEY))
    x = np.asarray(random_stacked_tree(5)["scalar"])
    tx = optax.chain(optax.sgd(0.1), cdjax.delayed(cdjax.consensus, mix, delays=DELAYS))
    found, _ = trajectory(tx, quadratic_gradients(CENTERS), jnp.asarray(x), 6)
    matrices = jax.vmap(lambda step: mix(jnp.eye(5), step))(jnp.arange(6))
    expected = lagging_run(lambda step: np.asarray(matrices[step]), x, 6)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def mixed(past, now):
    """What agents make of one value each, with the weights of the graph."""
    matrix, sent = GRAPH.mixing_matrix, [*past, now]
    heard = np.array([sent[max(len(past) - lag, 0)][j] for j, lag in enumerate(DELAYS)])
    own = matrix.diagonal()
    return own * now + matrix @ heard - own * heard


def test_momentum_mixes_the_past_of_the_iterates(x64):
    x, v, past = np.asarray(random_stacked_tree(5)["scalar"]), np.zeros(5), []
    tx = cdjax.delayed(partial(cdjax.cdmsgd, 0.1, momentum=0.5), MIX, delays=DELAYS)
    params, states = trajectory(tx, quadratic_gradients(CENTERS), jnp.asarray(x), 7)
    for iterate in jax.vmap(cdjax.eval_params)(states, params):
        v_next = mixed(past, x) - x + 0.5 * v - 0.1 * (x + 0.5 * v - CENTERS)
        past, x, v = [*past, x], x + v_next, v_next
        np.testing.assert_allclose(iterate, x, rtol=1e-12)


def test_what_is_late_is_what_an_algorithm_sends(x64):
    start = x = np.asarray(random_stacked_tree(5)["scalar"])
    past = [start] * 3  # before the first step there is only the start, not adapted
    for _ in range(7):
        adapted = x - 0.1 * (x - CENTERS)
        past, x = [*past, adapted], mixed(past, adapted)
    tx = cdjax.delayed(partial(cdjax.adapt_then_combine, optax.sgd(0.1)), MIX, delays=DELAYS)
    found, _ = train(tx, quadratic_gradients(CENTERS), jnp.asarray(start), 7)
    np.testing.assert_allclose(found, x, rtol=1e-12)


@pytest.mark.parametrize(("delay", "momentum"), [(1, 0.9), (3, 0.9), (2, 0.5), (1, 0.0), (4, 0.0)])
def test_mixing_grows_by_the_largest_root_with_momentum_and_never_without(delay, momentum, x64):
    ring = topology.ring(5)
    own, others = 1 / 3, np.linalg.eigvalsh(ring.mixing_matrix) - 1 / 3

    def largest_root(other):
        coefficients = np.zeros(delay + 2)
        coefficients[:2] = 1, -own - momentum
        coefficients[2] += momentum
        coefficients[-1] -= other
        return np.abs(np.roots(coefficients)).max()

    factor = max(map(largest_root, others))
    make = partial(cdjax.cdmsgd, 0.0, momentum=momentum, nesterov=False)
    tx = cdjax.delayed(make, mixing.dense(ring), delays=[delay] * 5)
    x, _ = trajectory(tx, jnp.zeros_like, random_stacked_tree(5)["scalar"], 500)
    sizes = np.linalg.norm(np.asarray(x)[[199, 499]], axis=1)
    if momentum:
        assert factor > 1.05
        np.testing.assert_allclose((sizes[1] / sizes[0]) ** (1 / 300), factor, rtol=0.01)
    else:
        np.testing.assert_allclose(factor, 1, rtol=1e-9)  # the consensus itself
        np.testing.assert_allclose(sizes[0], sizes[1], rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "times"),
    [
        (lambda mix: optax.sgd(0.1), 0),
        (lambda mix: optax.chain(cdjax.consensus(mix), cdjax.consensus(mix)), 2),
    ],
)
def test_an_algorithm_has_to_mix_once(make, times):
    tx = cdjax.delayed(make, MIX, delays=DELAYS)
    with pytest.raises(ValueError, match=f"mixes {times} times per step; expected once"):
        tx.update(jnp.ones(5), tx.init(jnp.ones(5)), jnp.ones(5))


def test_without_delays_it_is_consensus(x64):
    tree, delays = random_stacked_tree(5), np.zeros(5, int)
    gradient = lambda tree: jax.tree.map(lambda x: x - 1, tree)  # noqa: E731
    tx = optax.chain(optax.sgd(0.1), cdjax.delayed(cdjax.consensus, MIX, delays=delays))
    found, expected = (train(t, gradient, tree, 4)[0] for t in (tx, cdjax.cdsgd(0.1, MIX)))
    assert_trees_close(found, expected, rtol=1e-13, atol=1e-13)


def test_the_fixed_point_is_that_of_cdsgd(x64):
    tx = optax.chain(optax.sgd(0.1), cdjax.delayed(cdjax.consensus, MIX, delays=DELAYS))
    found, _ = train(tx, quadratic_gradients(CENTERS), jnp.zeros(5), 800)
    system = np.eye(5) - GRAPH.mixing_matrix + 0.1 * np.eye(5)
    np.testing.assert_allclose(found, np.linalg.solve(system, 0.1 * CENTERS), rtol=1e-10)


def test_the_past_leads_with_the_agent_axis_and_is_as_long_as_the_longest_delay():
    state = cdjax.delayed(cdjax.consensus, MIX, delays=DELAYS).init(random_stacked_tree(5))
    assert state.history["layer"]["kernel"].shape == (5, 3, 2, 3, 5)


def test_counters_pass():
    tx = cdjax.delayed(cdjax.consensus, MIX, delays=DELAYS)
    tree = {"count": jnp.arange(5), "x": jnp.ones(5)}
    later = {"count": 10 * jnp.arange(5), "x": jnp.ones(5)}
    zeros = jax.tree.map(jnp.zeros_like, tree)
    updates, _ = tx.update(zeros, tx.init(tree), later)
    assert_trees_close(updates, zeros)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cdjax.delayed(cdjax.consensus, MIX, delays=[0, -1]),
            r"delays is \[0, -1\]; expected one whole number >= 0 per agent",
        ),
        (
            lambda: cdjax.delayed(cdjax.consensus, MIX, delays=[0, 1]).init({"w": jnp.ones(5)}),
            "leaf 'w' has leading axis 5, but delays has 2 agents",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
