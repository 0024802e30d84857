"""AD-PSGD against a loop over its events."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, network, topology, training

pytestmark = pytest.mark.sampled(3)

KEY, NUM_AGENTS = jax.random.key(3), 5
RING = topology.ring(NUM_AGENTS)
# One sample per agent, its centre: f_j = ½ h_j (x - c_j)², of which every batch is the same.
CENTERS, CURVATURES = np.arange(5.0), np.array([1.0, 0.5, 2.0, 1.0, 1.5])
SAMPLES = {"center": CENTERS[:, None], "curvature": CURVATURES[:, None]}


def agent_loss(params, model_state, batch, key):
    distance = params["x"] - jnp.mean(batch["center"])
    loss = jnp.mean(batch["curvature"]) * distance**2 / 2
    return loss, ({"calls": model_state["calls"] + 1}, {})


def some_events(num_events=60, slow=()):
    wires = network.links(RING, latency=0.05)
    mean = np.where(np.isin(np.arange(NUM_AGENTS), slow), 5.0, 0.5)
    compute = network.compute_times(mean, NUM_AGENTS, jitter=0.5, key=KEY)
    peers = mixing.random_peers(RING, KEY)
    return network.averagings(wires, compute, 10.0, peers=peers, num_events=num_events)


def trained(events, num_steps, dispatches=None, momentum=0.5):
    inner = optax.sgd(0.1, momentum=momentum)
    loop = training.ad_psgd_loop(agent_loss, inner, events=events, sizes=np.ones(5, int))
    start = {"x": jnp.zeros(NUM_AGENTS)}
    calls = {"calls": jnp.zeros(NUM_AGENTS)}
    state = training.init_state(start, training.ad_psgd(inner), key=KEY, model_state=calls)
    rows = []
    for steps in dispatches or [num_steps]:
        indices = np.zeros((max(steps, 1), NUM_AGENTS, 3), int)
        state, metrics = loop(state, SAMPLES, indices, steps)
        rows += [{name: value[k] for name, value in metrics.items()} for k in range(steps)]
    return state, rows


def test_events_are_replayed_one_by_one_with_stale_gradients(x64):
    events = some_events()
    state, rows = trained(events, 12)
    x, snapshots, velocity = np.zeros(5), np.zeros(5), np.zeros(5)
    for i, j in zip(events.agents, events.partners, strict=True):
        gradient = CURVATURES[i] * (snapshots[i] - CENTERS[i])
        x[i] = x[j] = (x[i] + x[j]) / 2
        velocity[i] = gradient + 0.5 * velocity[i]
        x[i] -= 0.1 * velocity[i]
        snapshots[i] = x[i]
    np.testing.assert_allclose(state.params["x"], x, rtol=1e-12)
    np.testing.assert_array_equal(state.model_state["calls"], np.bincount(events.agents))
    np.testing.assert_array_equal(sum(row["trained"] for row in rows), np.bincount(events.agents))


@pytest.mark.slow
def test_a_run_may_be_cut_anywhere():
    events = some_events()
    whole, _ = trained(events, 12)
    cut, _ = trained(events, 12, dispatches=(1, 0, 7, 4))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        if not jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_straggler_changes_the_learning_and_not_only_the_time():
    state, _ = trained(some_events(1000, slow=[4]), 200, momentum=0.0)
    even, _ = trained(some_events(1000), 200, momentum=0.0)
    # The slow agent's centre, the largest, is heard less.
    assert float(state.params["x"].mean()) < float(even.params["x"].mean()) - 0.2


def test_events_come_in_the_order_of_time_and_at_their_own_pace():
    events = some_events(2000, slow=[2])
    assert np.all(np.diff(events.seconds) >= 0)
    rate = np.bincount(events.agents) / events.seconds[-1]
    np.testing.assert_allclose(rate, np.where(np.arange(5) == 2, 1 / 5.05, 1 / 0.55), rtol=0.15)
    gap = np.abs(events.agents - events.partners)
    assert {*gap.tolist()} == {1, 4}  # neighbours on the ring
    shorter = some_events(500, slow=[2])
    for one, other in zip(shorter, events, strict=True):
        np.testing.assert_array_equal(one, other[:500])


def test_an_equal_pace_takes_computation_and_a_swap():
    wires = network.links(RING, latency=np.full((5, 5), 0.25), upload=20.0, download=40.0)
    events = network.averagings(
        wires, network.compute_times(1.0, 5), 10.0, peers=mixing.random_peers(RING, KEY),
        num_events=10,
    )  # fmt: skip
    np.testing.assert_allclose(events.seconds, np.repeat([1.75, 3.5], 5))
    assert events.agents.tolist() == [0, 1, 2, 3, 4] * 2


def test_what_is_no_step_and_no_link_is_named():
    tx = training.ad_psgd(optax.sgd(0.1))
    params = {"x": jnp.zeros(3)}
    with pytest.raises(ValueError, match="ad_psgd has no step of all agents; train with ad_psgd_"):
        tx.update(params, tx.init(params), params)
    with pytest.raises(ValueError, match="are peers, but no link joins them"):
        network.averagings(
            network.links(topology.path(5)), network.compute_times(1.0, 5), 1.0,
            peers=mixing.random_peers(RING, KEY), num_events=50,
        )  # fmt: skip
    assert cdjax.eval_params(tx.init(params), params) is params
