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
    iterate,
    quadratic_gradients,
    random_connected_graph,
    random_stacked_tree,
)

KEY = jax.random.key(2)
GRAPH = topology.from_graph(random_connected_graph(5))
MIX = mixing.dense(GRAPH)
DELAYS = [0, 3, 1, 0, 2]
CENTERS = np.arange(5.0)


def lagging_run(matrix_at, x, num_steps, *, rate=0.1):
    """A loop over agents and the whole past."""
    past = [x]
    for step in range(num_steps):
        matrix, now = matrix_at(step), past[-1]
        heard = np.array([past[max(step - lag, 0)][j] for j, lag in enumerate(DELAYS)])
        mixed = [
            matrix[j, j] * now[j] + sum(matrix[j, k] * heard[k] for k in range(5) if k != j)
            for j in range(5)
        ]
        past.append(np.array(mixed) - rate * (now - CENTERS))
    return past[-1]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 9])
def test_neighbors_hear_what_a_lagging_agent_was(num_steps, x64):
    x = np.asarray(random_stacked_tree(5)["scalar"])
    tx = optax.chain(optax.sgd(0.1), cdjax.delayed(cdjax.consensus, MIX, DELAYS))
    found = iterate(tx, quadratic_gradients(CENTERS), jnp.asarray(x), num_steps)
    expected = lagging_run(lambda step: GRAPH.mixing_matrix, x, num_steps)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_the_weights_may_change_from_step_to_step(x64):
    mix = robust.faulty(GRAPH, robust.failing_links(GRAPH, 0.5, key=KEY))
    x = np.asarray(random_stacked_tree(5)["scalar"])
    tx = optax.chain(optax.sgd(0.1), cdjax.delayed(cdjax.consensus, mix, DELAYS))
    found = iterate(tx, quadratic_gradients(CENTERS), jnp.asarray(x), 6)
    expected = lagging_run(lambda step: np.asarray(mix(jnp.eye(5), step)), x, 6)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def hear(past, now):
    """What agents hear of a value each, with the weights of the graph."""
    matrix, sent = GRAPH.mixing_matrix, [*past, now]
    heard = np.array([sent[max(len(past) - lag, 0)][j] for j, lag in enumerate(DELAYS)])
    own = matrix.diagonal()
    return own * now + matrix @ heard - own * heard


def test_momentum_hears_the_past_of_the_iterates(x64):
    x, v, past = np.asarray(random_stacked_tree(5)["scalar"]), np.zeros(5), []
    tx = cdjax.delayed(partial(cdjax.cdmsgd, 0.1, momentum=0.5), MIX, DELAYS)
    params, state = jnp.asarray(x), tx.init(jnp.asarray(x))
    for _ in range(7):
        v_next = hear(past, x) - x + 0.5 * v - 0.1 * (x + 0.5 * v - CENTERS)
        past, x, v = [*past, x], x + v_next, v_next
        updates, state = tx.update(params - CENTERS, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(cdjax.eval_params(state, params), x, rtol=1e-12)


def test_what_is_late_is_what_an_algorithm_sends(x64):
    start = x = np.asarray(random_stacked_tree(5)["scalar"])
    past = [start] * 3  # of steps before the first the start is heard, adapted in none of them
    for _ in range(7):
        adapted = x - 0.1 * (x - CENTERS)
        past, x = [*past, adapted], hear(past, adapted)
    tx = cdjax.delayed(partial(cdjax.adapt_then_combine, optax.sgd(0.1)), MIX, DELAYS)
    found = iterate(tx, quadratic_gradients(CENTERS), jnp.asarray(start), 7)
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
    tx = cdjax.delayed(make, mixing.dense(ring), [delay] * 5)
    zero = lambda x: jnp.zeros_like(x)  # noqa: E731
    start = jnp.asarray(random_stacked_tree(5)["scalar"])
    sizes = [jnp.linalg.norm(iterate(tx, zero, start, steps)) for steps in (200, 500)]
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
    tx = cdjax.delayed(make, MIX, DELAYS)
    with pytest.raises(ValueError, match=f"mixes {times} times in a step; expected once"):
        tx.update(jnp.ones(5), tx.init(jnp.ones(5)), jnp.ones(5))


@pytest.mark.parametrize("delays", [[0] * 5, np.zeros(5, int)])
def test_without_delays_it_is_consensus(delays, x64):
    tree = random_stacked_tree(5)
    gradient = lambda tree: jax.tree.map(lambda x: x - 1, tree)  # noqa: E731
    tx = optax.chain(optax.sgd(0.1), cdjax.delayed(cdjax.consensus, MIX, delays))
    expected = iterate(cdjax.cdsgd(0.1, MIX), gradient, tree, 4)
    assert_trees_close(iterate(tx, gradient, tree, 4), expected, rtol=1e-13, atol=1e-13)


def test_the_fixed_point_is_that_of_cdsgd(x64):
    tx = optax.chain(optax.sgd(0.1), cdjax.delayed(cdjax.consensus, MIX, DELAYS))
    found = iterate(tx, quadratic_gradients(CENTERS), jnp.zeros(5), 800)
    system = np.eye(5) - GRAPH.mixing_matrix + 0.1 * np.eye(5)
    np.testing.assert_allclose(found, np.linalg.solve(system, 0.1 * CENTERS), rtol=1e-10)


def test_the_past_leads_with_the_agent_axis_and_is_as_long_as_the_longest_delay():
    state = cdjax.delayed(cdjax.consensus, MIX, DELAYS).init(random_stacked_tree(5))
    assert state.history["layer"]["kernel"].shape == (5, 3, 2, 3, 5)


def test_counters_pass():
    tree = {"count": jnp.arange(5), "x": jnp.ones(5)}
    tx = cdjax.delayed(cdjax.consensus, MIX, DELAYS)
    zeros = jax.tree.map(jnp.zeros_like, tree)
    updates, _ = tx.update(zeros, tx.init(tree), tree)
    assert_trees_close(updates, zeros)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cdjax.delayed(cdjax.consensus, MIX, [0, -1]),
            r"delays is \[0, -1\]; expected a whole number",
        ),
        (
            lambda: cdjax.delayed(cdjax.consensus, MIX, [0, 1]).init({"w": jnp.ones(5)}),
            "leaf 'w' has leading axis 5, but delays has 2 agents",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
