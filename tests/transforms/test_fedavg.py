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

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(0)


def clients(fraction, num_agents, num_rounds):
    """The sets of clients, seen from outside: agent j's mark is 2^j, the server sums them."""
    tx = cdjax.fedavg(optax.sgd(0.0), local_steps=1, fraction=fraction, key=KEY)
    marks = 2.0 ** jnp.arange(num_agents)

    def mean(step):
        return marks + tx.update(0 * marks, tx.init(marks)._replace(step=step), marks)[0]

    means = jax.vmap(mean)(jnp.arange(num_rounds))
    num_clients = max(1, round(fraction * num_agents))
    sums = [round(float(mean) * num_clients) for mean in means[:, 0]]
    return [{j for j in range(num_agents) if total >> j & 1} for total in sums]


@pytest.mark.parametrize("sizes", [None, np.array([3, 1, 4, 2])])
def test_one_local_step_of_everybody_is_atc_with_equal_rows(sizes, x64):
    weights = np.ones(4) / 4 if sizes is None else sizes / sizes.sum()
    mix = mixing.dense(topology.from_matrix(np.tile(weights, (4, 1)), validate=False))
    gradient, x = quadratic_gradients(np.arange(4.0), np.arange(1.0, 5.0)), jnp.arange(4.0) ** 2
    fedavg = cdjax.fedavg(optax.sgd(0.1), local_steps=1, weights=sizes)
    atc = cdjax.adapt_then_combine(optax.sgd(0.1), mix)
    ours, theirs = (trajectory(tx, gradient, x, 50)[0] for tx in (fedavg, atc))
    np.testing.assert_allclose(ours, theirs, atol=1e-13)


def test_a_round_of_local_steps_contracts_each_client_by_itself(x64):
    centers, curvatures = np.array([0.0, 1.0, 5.0]), np.array([1.0, 2.0, 3.0])
    tx = cdjax.fedavg(optax.sgd(0.1), local_steps=4)
    xs, _ = trajectory(tx, quadratic_gradients(centers, curvatures), jnp.zeros(3), 8)
    server = 0.0
    for r in range(2):
        server = np.mean(centers + (1 - 0.1 * curvatures) ** 4 * (server - centers))
        np.testing.assert_allclose(xs[4 * r + 3], server, atol=1e-14)


def test_agents_are_apart_within_a_round_and_equal_at_its_end():
    tx = cdjax.fedavg(optax.sgd(0.1), local_steps=3, fraction=0.4, key=KEY)
    xs, _ = trajectory(tx, quadratic_gradients(np.arange(5.0)), jnp.zeros(5), 9)
    assert (jnp.ptp(xs, axis=1) > 0).tolist() == [True, True, False] * 3


@pytest.mark.parametrize(("fraction", "size"), [(0.0, 1), (0.1, 1), (0.5, 5), (1.0, 10)])
@pytest.mark.sampled(4)
def test_a_fraction_of_the_agents_but_one_at_least_are_clients(fraction, size):
    assert {len(drawn) for drawn in clients(fraction, 10, 20)} == {size}


def test_clients_are_drawn_anew_and_all_agents_come_to_be_clients():
    drawn = clients(0.3, 10, 40)
    assert len({frozenset(s) for s in drawn}) > 20
    assert set.union(*drawn) == set(range(10))


def test_work_of_agents_that_are_no_clients_is_thrown_away():
    tx = cdjax.fedavg(optax.sgd(0.1), local_steps=1, fraction=0.5, key=KEY)
    (drawn,), x = clients(0.5, 6, 1), jnp.zeros(6)
    gradient = jnp.array([1.0 if j in drawn else jnp.nan for j in range(6)])
    updates, _ = tx.update(gradient, tx.init(x), x)
    np.testing.assert_allclose(updates, np.full(6, -0.1), rtol=1e-6)


def test_an_optimizer_state_stays_with_its_agent():
    tx = cdjax.fedavg(optax.sgd(0.1, momentum=0.9), local_steps=2)
    x, state = train(tx, lambda x: jnp.arange(3.0), jnp.zeros(3), 2)
    assert np.ptp(x) == 0
    np.testing.assert_allclose(state.inner[0].trace, 1.9 * np.arange(3), rtol=1e-6)


@pytest.mark.parametrize("mu", [0.0, 0.9])
def test_every_client_takes_its_own_number_of_steps_and_rests(mu, x64):
    centers, curvatures, own = np.array([0.0, 1.0, 5.0]), np.array([1.0, 2.0, 3.0]), [1, 4, 2]
    weights = np.array([1.0, 4.0, 2.0])
    tx = cdjax.fedavg(
        optax.sgd(0.1, momentum=mu or None), local_steps=np.array(own), weights=weights
    )
    xs, _ = trajectory(tx, quadratic_gradients(centers, curvatures), jnp.ones(3), 12)
    server, velocity = 1.0, np.zeros(3)
    for r in range(3):
        trained = np.full(3, server)
        for j, steps in enumerate(own):
            for _ in range(steps):
                velocity[j] = mu * velocity[j] + curvatures[j] * (trained[j] - centers[j])
                trained[j] -= 0.1 * velocity[j]
        server = weights @ trained / weights.sum()
        np.testing.assert_allclose(xs[4 * r + 3], server, atol=1e-14)


def test_one_agent_is_the_inner_optimizer(x64):
    tree, inner = random_stacked_tree(1), optax.adam(0.1)
    tx = cdjax.fedavg(inner, local_steps=2, fraction=0.5, key=KEY)
    gradient = lambda tree: jax.tree.map(jnp.sin, tree)  # noqa: E731
    ours, theirs = (train(t, gradient, tree, 5)[0] for t in (tx, inner))
    assert_trees_close(ours, theirs, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.5}, r"fraction is 0.5: give key=jax.random.key\(0\)"),
        ({"fraction": 1.5}, r"fraction is 1.5; it must lie in \[0, 1\]"),
        ({"local_steps": np.array([2, 0])}, "local_steps is 0; it must lie in"),
        ({"local_steps": 0}, r"local_steps is 0; it must lie in \[1, inf\)"),
        ({"weights": np.array([1, -1])}, "weights is .*; it must lie in"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        cdjax.fedavg(optax.sgd(0.1), **{"local_steps": 1} | options)
