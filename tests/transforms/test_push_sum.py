"""Push-sum on the directed graph j → {j, j + 1, 0}, whose agent 0 hears everybody."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import quadratic_gradients, random_stacked_tree, train, trajectory

EDGES = [(j, (j + 1) % 5) for j in range(5)] + [(j, 0) for j in range(1, 5)]
DIRECTED = topology.from_digraph(nx.DiGraph(EDGES))
P = mixing.dense(DIRECTED)
GRADIENT = quadratic_gradients(np.arange(5.0), np.arange(1.0, 6.0) / 3)
START = np.zeros(5)


def test_agents_reach_the_mean_where_plain_mixing_does_not(x64):
    one_to_five = jnp.arange(1.0, 6.0)
    z, state = train(cdjax.push_sum(optax.sgd(0.0), P), jnp.zeros_like, one_to_five, 300)
    np.testing.assert_allclose(z, 3, atol=1e-13)
    # P alone takes 15, the sum, to 15 times its stationary distribution, whose first entry is .41.
    plain = train(cdjax.cdsgd(0.0, P), jnp.zeros_like, one_to_five, 300)[0]
    np.testing.assert_allclose(plain, 3 * state.weight, atol=1e-12)
    assert plain[0] == pytest.approx(6.15385, abs=1e-5)


def test_the_sum_of_what_agents_hold_moves_by_their_updates_alone(x64):
    z, states = trajectory(cdjax.push_sum(optax.sgd(0.1), P), GRADIENT, START, 50)
    held = (states.weight * z).sum(axis=1)
    np.testing.assert_allclose(states.weight.sum(axis=1), 5, atol=1e-13)
    moved = -0.1 * jax.vmap(GRADIENT)(z[:-1]).sum(axis=1)
    np.testing.assert_allclose(np.diff(held), moved, atol=1e-12)


def test_a_fixed_step_is_biased_and_push_diging_is_not(x64):
    pushed = train(cdjax.push_sum(optax.sgd(0.1), P), GRADIENT, START, 3000)[0]
    np.testing.assert_allclose([pushed.min(), pushed.max()], [2.3637, 3.1633], atol=1e-4)
    tracked = train(cdjax.push_diging(0.05, P), GRADIENT, START, 5000)[0]
    np.testing.assert_allclose(tracked, 40 / 15, atol=1e-9)


def test_every_agent_may_have_a_step_size_of_its_own(x64):
    rates = np.array([0.02, 0.05, 0.03, 0.04, 0.05])
    x = train(cdjax.push_diging(rates, P), GRADIENT, START, 8000)[0]
    np.testing.assert_allclose(x, 40 / 15, atol=1e-9)


def test_the_mean_of_tracked_gradients_is_the_mean_gradient(x64):
    z, states = trajectory(cdjax.push_diging(0.05, P), GRADIENT, START, 30)
    gradients = jax.vmap(GRADIENT)(jnp.concatenate([START[None], z[:-1]]))
    tracked = states.tracked + gradients  # Py, whose sum is that of y
    np.testing.assert_allclose(tracked.sum(axis=1), gradients.sum(axis=1), atol=1e-12)


def test_weights_that_are_doubly_stochastic_are_adapt_then_combine(x64):
    mix = mixing.dense(topology.ring(5))
    pushed = train(cdjax.push_sum(optax.adam(0.1), mix), GRADIENT, START, 50)[0]
    plain = train(cdjax.adapt_then_combine(optax.adam(0.1), mix), GRADIENT, START, 50)[0]
    np.testing.assert_allclose(pushed, plain, atol=1e-14)


@pytest.mark.parametrize("make", [lambda mix: cdjax.push_sum(optax.sgd(0.1), mix),
                                  lambda mix: cdjax.push_diging(0.1, mix)])  # fmt: skip
def test_a_mixer_whose_columns_do_not_sum_to_one_is_refused(make):
    rows = mixing.dense(topology.from_digraph(nx.DiGraph(EDGES), "row"))
    with pytest.raises(ValueError, match="mix is not column-stochastic.*from_digraph"):
        make(rows).init(random_stacked_tree(5))
    make(P).init(random_stacked_tree(5))
