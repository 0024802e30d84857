import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from cdjax.transforms import delayed_consensus
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
    tx = optax.chain(optax.sgd(0.1), delayed_consensus(MIX, DELAYS))
    found = iterate(tx, quadratic_gradients(CENTERS), jnp.asarray(x), num_steps)
    expected = lagging_run(lambda step: GRAPH.mixing_matrix, x, num_steps)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_the_weights_may_change_from_step_to_step(x64):
    mix = mixing.faulty(GRAPH, mixing.failing_links(GRAPH, 0.5, KEY))
    x = np.asarray(random_stacked_tree(5)["scalar"])
    tx = optax.chain(optax.sgd(0.1), delayed_consensus(mix, DELAYS))
    found = iterate(tx, quadratic_gradients(CENTERS), jnp.asarray(x), 6)
    expected = lagging_run(lambda step: np.asarray(mix(jnp.eye(5), step)), x, 6)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("delays", [[0] * 5, np.zeros(5, int)])
def test_without_delays_it_is_consensus(delays, x64):
    tree = random_stacked_tree(5)
    gradient = lambda tree: jax.tree.map(lambda x: x - 1, tree)  # noqa: E731
    tx = optax.chain(optax.sgd(0.1), delayed_consensus(MIX, delays))
    expected = iterate(cdjax.cdsgd(0.1, MIX), gradient, tree, 4)
    assert_trees_close(iterate(tx, gradient, tree, 4), expected, rtol=1e-13, atol=1e-13)


def test_the_fixed_point_is_that_of_cdsgd(x64):
    tx = optax.chain(optax.sgd(0.1), delayed_consensus(MIX, DELAYS))
    found = iterate(tx, quadratic_gradients(CENTERS), jnp.zeros(5), 800)
    system = np.eye(5) - GRAPH.mixing_matrix + 0.1 * np.eye(5)
    np.testing.assert_allclose(found, np.linalg.solve(system, 0.1 * CENTERS), rtol=1e-10)


def test_the_past_leads_with_the_agent_axis_and_is_as_long_as_the_longest_delay():
    state = delayed_consensus(MIX, DELAYS).init(random_stacked_tree(5))
    assert state.history["layer"]["kernel"].shape == (5, 3, 2, 3, 5)


def test_counters_pass():
    tree = {"count": jnp.arange(5), "x": jnp.ones(5)}
    tx = delayed_consensus(MIX, DELAYS)
    zeros = jax.tree.map(jnp.zeros_like, tree)
    updates, _ = tx.update(zeros, tx.init(tree), tree)
    assert_trees_close(updates, zeros)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: delayed_consensus(MIX, [0, -1]), r"delays is \[0, -1\]; expected a whole number"),
        (
            lambda: delayed_consensus(MIX, [0, 1]).init({"w": jnp.ones(5)}),
            "leaf 'w' has leading axis 5, but delays has 2 agents",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
