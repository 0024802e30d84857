"""In float32 agents that agree stay as they are, to the last bit, in every plan of mixing.

The float32 weights of a row need not sum to one (3 times 1/3 gives 1 + 3e-8), and momentum turns
the rest into growth of all parameters.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, robust, sharding, topology
from tests.slow import slow

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(0)
GRAPHS = {
    "ring of 7": topology.ring(7),
    "star of 9": topology.star(9),
    "complete of 6": topology.complete(6),
    "random of 24": topology.erdos_renyi(24, probability=0.3, seed=1),
}
PLANS = {
    "dense": mixing.dense,
    "neighbors": mixing.neighbors,
    "shifts": mixing.shifts,
    "auto": mixing.auto,
    "ppermute": lambda graph: jax.vmap(mixing.ppermute(graph, "agents"), axis_name="agents"),
    "exchange": lambda graph: mixing.exchange(graph, sharding.agent_mesh(1)),
    "faulty": robust.faulty,
    "failing links": lambda graph: robust.faulty(graph, robust.failing_links(graph, 0.3, key=KEY)),
    "trimmed mean": lambda graph: robust.trimmed_mean(graph, 0),
    "median": robust.median,
    "clipped gossip": lambda graph: robust.clipped_gossip(graph, 1.0),
    "pull": lambda graph: mixing.pull(mixing.random_peers(graph, KEY)),
    "push": lambda graph: mixing.push(mixing.random_peers(graph, KEY)),
}


def agreement(num_agents):
    """The same 200 random numbers at each agent."""
    values = np.random.default_rng(0).normal(size=200).astype(np.float32)
    return jnp.tile(jnp.asarray(values), (num_agents, 1))


def mixed(plan, graph, x):
    mix = PLANS[plan](graph)
    return mix(x) if plan == "ppermute" else jax.jit(mix)(x, 0)


@pytest.mark.parametrize(
    "graph",
    [pytest.param("random of 24", marks=pytest.mark.accelerator), *list(GRAPHS)[:-1]],
)
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.sampled(5)
def test_agents_that_agree_stay(plan, graph):
    x = agreement(GRAPHS[graph].num_agents)
    np.testing.assert_array_equal(mixed(plan, GRAPHS[graph], x), x)


@pytest.mark.parametrize("num_devices", [4, *slow(2, 8)])
@pytest.mark.parametrize("family", ["ring", "complete", "erdos_renyi"])
@pytest.mark.sampled(3)
def test_agents_that_agree_stay_on_several_devices(family, num_devices):
    graph = topology.create(family, 40)
    mesh = sharding.agent_mesh(num_devices)
    x = sharding.shard_agents(agreement(40), mesh)
    np.testing.assert_array_equal(mixing.exchange(graph, mesh)(x), x)


def test_the_mean_over_clients_of_agents_that_agree_is_theirs():
    x, sizes = agreement(7), jnp.array([3.0, 1, 4, 1, 5, 9, 2])
    tx = cdjax.fedavg(optax.sgd(0.0), local_steps=1, fraction=0.5, weights=sizes, key=KEY)
    updates, _ = tx.update(jnp.zeros_like(x), tx.init(x), x)
    np.testing.assert_array_equal(updates, 0)


def test_agents_that_agree_are_at_no_distance():
    assert cdjax.metrics.consensus_distance(agreement(7)) == 0


@pytest.mark.parametrize(
    "plan", ["neighbors", *slow("dense", "shifts", "ppermute", "exchange", "faulty")]
)
@pytest.mark.parametrize(
    ("algorithm", "error"),
    [
        (cdjax.cdsgd, 1e-5),
        (lambda rate, mix: cdjax.cdmsgd(rate, mix, momentum=0.99), 2e-3),
    ],
)
def test_gradients_of_mean_zero_do_not_move_the_mean(plan, algorithm, error):
    grads = jax.random.normal(jax.random.key(2), (7, 200))
    grads -= grads.mean(axis=0, keepdims=True)
    mix = PLANS[plan](GRAPHS["ring of 7"])
    tx = algorithm(1e-4, (lambda tree, step=0: mix(tree)) if plan == "ppermute" else mix)

    def step(_, carry):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    start = jnp.ones((7, 200))
    params, state = jax.lax.fori_loop(0, 30_000, step, (start, tx.init(start)))
    assert abs(float(cdjax.eval_params(state, params).mean()) - 1) < error
