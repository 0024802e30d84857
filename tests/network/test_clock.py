import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import mixing, network, robust, topology
from tests.network.oracles import loop
from tests.slow import slow
from tests.trees import random_connected_graph

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(5)
HARMONIC_16 = float(np.sum(1 / np.arange(1, 17)))
GRAPH = topology.from_graph(random_connected_graph(7))
ORDERS = {
    "consensus": network.consensus(),
    "three exchanges": network.consensus(3),
    "adapt then combine": network.adapt_then_combine(),
    "combine then adapt": network.combine_then_adapt(),
    "tracking": network.gradient_tracking(),
    "tracking, semi-atc": network.gradient_tracking("semi-atc"),
    "tracking, atc": network.gradient_tracking("atc"),
    "two steps late": network.delayed(network.consensus(), 2),
    "combined late": network.delayed(network.adapt_then_combine(), 1),
    "every third step": network.every(3, network.adapt_then_combine()),
    "beside two steps": network.overlapped(network.every(4, network.adapt_then_combine()), 2),
}


def random_links(graph, seed=0, **ends):
    draw = np.random.default_rng(seed)
    size = len(graph.entries.off_diagonal.receivers)
    latency, bandwidth = draw.uniform(0.1, 1.0, size), draw.uniform(5.0, 50.0, size)
    return network.links(graph, latency=latency, bandwidth=bandwidth, **ends)


def rate(times, skip=100):
    """Seconds per step of all agents, without the beginning."""
    return float((times[-1].max() - times[skip - 1].max()) / (len(times) - skip))


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.sampled(3)
def test_the_clock_equals_a_loop_over_messages(name, x64):
    wires = random_links(GRAPH, upload=30.0, download=40.0)
    compute = np.random.default_rng(1).exponential(1.0, (12, 7))
    times = network.clock(ORDERS[name], wires, compute, 10.0)
    np.testing.assert_allclose(times, loop(ORDERS[name], wires, compute, 10.0), rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("consensus", 1.0), ("adapt then combine", 1.5), ("combine then adapt", 1.5),
     ("tracking", 1.0), ("tracking, semi-atc", 1.5), ("tracking, atc", 2.0),
     ("three exchanges", 1.5), ("every third step", 3.5 / 3)],
)  # fmt: skip
def test_equal_agents_take_what_cannot_overlap(name, expected):
    wires = network.links(topology.ring(6), latency=0.5)
    times = network.clock(ORDERS[name], wires, 1.0, 0, num_steps=6)
    np.testing.assert_allclose(times[-1], 6 * expected, rtol=1e-12)


def test_an_exchange_is_hidden_by_the_steps_beside_it():
    wires = network.links(topology.ring(4), latency=2.5)
    order = network.every(5, network.adapt_then_combine())
    for steps, expected in ((0, 7.5), (1, 6.5), (2, 5.5), (3, 5.0)):
        late = network.overlapped(order, steps)
        assert 5 * network.seconds_per_step(late, wires, 1.0, 0) == pytest.approx(expected)
    server = network.server_links(4, latency=1.25)
    late = network.overlapped(network.every(5, network.parameter_server()), 2)
    assert 5 * network.seconds_per_step(late, server, 1.0, 0) == pytest.approx(5.5)
    times = network.clock(late, server, 1.0, 0, num_steps=25)
    assert times[-1, 0] - times[-6, 0] == pytest.approx(5.5)


def test_an_all_reduce_takes_its_rounds_after_the_last_agent():
    wires = network.links(topology.ring(6), latency=0.05)
    times = network.clock(network.all_reduce(), wires, 1.0, 0, num_steps=4)
    np.testing.assert_allclose(times[:, 2], [1.5, 3.0, 4.5, 6.0], rtol=1e-7)
    wires = network.links(topology.ring(6), upload=120.0)
    compute = np.array([1.0, 1.0, 1.0, 4.0, 1.0, 1.0])
    times = network.clock(network.all_reduce(), wires, compute, 72.0, num_steps=1)
    np.testing.assert_allclose(times, 4 + 10 * (72 / 6) / 120)


@pytest.mark.parametrize(
    ("order", "expected"),
    [(network.all_reduce(), HARMONIC_16), (network.adapt_then_combine(), 2.28),
     (network.consensus(), 1.65)],
)  # fmt: skip
@pytest.mark.sampled(3)
def test_gossip_waits_for_neighbors_only(order, expected):
    compute = network.compute_times(1.0, 16, law="exponential", key=KEY)
    wires = network.links(topology.ring(16))
    times = network.clock(order, wires, compute, 0, num_steps=30_000)
    assert rate(times) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("order", "first"), [("adapt then combine", 0), ("consensus", 1)])
def test_a_straggler_changes_nobody_before_its_distance(order, first):
    wires = network.links(topology.ring(12), latency=0.25)
    slow = np.ones(12)
    slow[0] = 50.0
    usual, times = (
        network.clock(ORDERS[order], wires, c, 0, num_steps=9) for c in (np.ones(12), slow)
    )
    distance = np.minimum(np.arange(12), 12 - np.arange(12))
    # In the step of its own delay, nobody but itself hears late where mixing reads the step before.
    reached = np.arange(1, 10)[:, None] - first >= distance[None, :]
    np.testing.assert_array_equal(times != usual, reached)


@pytest.mark.parametrize("largest", [10_000, *slow(100_000)])
def test_seconds_per_step_do_not_grow_with_a_ring(largest):
    order, rates = network.consensus(), []
    for num_agents in (10, 1000, largest):
        compute = network.compute_times(1.0, num_agents, law="exponential", key=KEY)
        wires = network.links(topology.ring(num_agents))
        times = network.clock(order, wires, compute, 0, num_steps=60)
        rates.append(np.mean(times[-1] - times[29]) / 30)
    assert max(rates) < 1.75 and min(rates) > 1.4


def test_the_step_of_a_server_grows_with_its_agents():
    for num_agents in (1, 4, 16):
        wires = network.server_links(num_agents, bandwidth=100.0, latency=0.125)
        times = network.clock(network.parameter_server(), wires, 1.0, 50.0, num_steps=3)
        np.testing.assert_allclose(times[-1], 3 * (1.25 + 2 * num_agents * 50 / 100))


def test_a_server_that_only_mixes_overlaps_with_the_gradient():
    wires = network.server_links(4, bandwidth=100.0)  # a message takes 4 · 50 / 100 seconds
    for compute, expected in ((1.0, 2.0), (3.0, 3.0)):
        times = network.clock(network.consensus(), wires, compute, 50.0, num_steps=40)
        assert rate(times, 20) == pytest.approx(expected)


def test_asynchronous_agents_wait_for_the_server_but_not_for_each_other():
    wires = network.server_links(2, latency=0.5)
    compute = np.array([1.0, 4.0])
    times = network.clock(network.asynchronous_server(), wires, compute, 1.0, num_steps=3)
    np.testing.assert_allclose(times[-1], [3 * 2.0, 3 * 5.0])


def test_those_who_push_wait_for_nobody_but_their_own_link():
    ring, compute = topology.ring(3), np.array([1.0, 2.0, 8.0])
    times = network.clock(network.push(), network.links(ring, latency=9.0), compute, 5.0,
                          num_steps=4)  # fmt: skip
    np.testing.assert_allclose(times[-1], 4 * compute)
    # Two messages of 5 bytes share an uplink of 2 bytes per second: the next waits 5 s for it.
    slow = network.links(ring, upload=2.0)
    times = network.clock(network.push(), slow, compute, 5.0, num_steps=4)
    np.testing.assert_allclose(times[:, 0], [1, 6, 11, 16])
    np.testing.assert_allclose(times[:, 2], [8, 16, 24, 32])


def test_a_slow_link_carries_no_more_than_its_bandwidth(x64):
    # One way takes 10 s, the other no time. Without a queue two messages would travel at once.
    wires = network.links(topology.path(2), bandwidth=np.array([1.0, np.inf]))
    times = network.clock(network.consensus(), wires, 0.0, 10.0, num_steps=41)
    assert rate(times, 1) == pytest.approx(10.0)


def test_a_silent_link_makes_agents_wait_for_ever_one_hop_per_step():
    latency = np.zeros((8, 8))
    latency[0, 1] = np.inf  # agent 0 never hears agent 1
    wires = network.links(topology.ring(8), latency=latency)
    assert wires.silent == [(1, 0)]
    times = network.clock(network.consensus(), wires, 1.0, 0, num_steps=5)
    distance = np.minimum(np.arange(8), 8 - np.arange(8))
    waits = distance[None, :] <= np.arange(5)[:, None]
    np.testing.assert_array_equal(np.isinf(times), waits)
    np.testing.assert_array_equal(times[~waits], np.broadcast_to(np.arange(1.0, 6)[:, None],
                                                                 times.shape)[~waits])  # fmt: skip


def test_pairs_wait_for_their_partner_alone():
    graph = topology.complete(4)
    wires = network.links(graph, latency=0.5)
    peers = lambda step: jnp.asarray([1, 0, 2, 3])  # noqa: E731
    heard = network.heard_from_peers(peers, wires)
    compute = np.array([1.0, 3.0, 5.0, 7.0])
    times = network.clock(network.adapt_then_combine(), wires, compute, 0, num_steps=2,
                          heard=heard)  # fmt: skip
    np.testing.assert_allclose(times[-1], [6.5, 6, 10, 14])
    sent = network.sent_to_peers(lambda step: jnp.asarray([3, 1, 2, 3]), wires)(0)
    assert [*zip(wires.senders[sent], wires.receivers[sent], strict=True)] == [(0, 3)]


def test_links_that_a_step_does_not_use_take_no_time_and_no_share():
    graph = topology.complete(5)
    wires = network.links(graph, upload=10.0)
    schedule = topology.one_peer_exponential(5)
    heard = network.heard_through(mixing.cycle(schedule), wires)
    order = network.adapt_then_combine()
    one = network.clock(order, wires, 1.0, 20.0, num_steps=3, heard=heard)
    np.testing.assert_allclose(one[-1], 3 * (1 + 20 / 10))
    everybody = network.clock(order, wires, 1.0, 20.0, num_steps=3)
    np.testing.assert_allclose(everybody[-1], 3 * (1 + 4 * 20 / 10))


def test_nobody_waits_for_agents_that_are_away():
    ring = topology.ring(6)
    wires = network.links(ring, latency=0.5)
    away = robust.scheduled_absence(6, {2: [(0, 3)]})
    mix = robust.faulty(ring, robust.absent_agents(ring, away))
    slow = np.where(np.arange(6) == 2, 100.0, 1.0)
    times = network.clock(network.adapt_then_combine(), wires, slow, 0, num_steps=5,
                          heard=network.heard_through(mix, wires))  # fmt: skip
    np.testing.assert_allclose(times[3, [0, 1, 3, 4, 5]], 6.0)
    assert times[4, 1] > 400


def test_ten_thousand_steps_do_not_drift_in_float32():
    wires = network.links(topology.ring(3), latency=0.05)
    times = network.clock(network.adapt_then_combine(), wires, 0.1, 0, num_steps=10_000)
    # In one float32, by steps of 0.15, it would be 1500.6.
    np.testing.assert_allclose(times[-1], 1500, rtol=3e-8)


def test_agents_that_part_do_not_drift_in_float32():
    compute = np.random.default_rng(0).exponential(0.3, (4000, 5)).astype(np.float32)
    times = network.clock(network.push(), network.links(topology.ring(5)), compute, 0)
    np.testing.assert_allclose(times[-1], compute.astype(float).sum(axis=0), rtol=1e-11)


def test_a_clock_that_is_cut_goes_on_as_if_it_were_not():
    wires = random_links(GRAPH)
    compute = network.compute_times(0.3, 7, jitter=0.5, key=KEY)
    init, update = network.clockwork(ORDERS["two steps late"], wires, 10.0)
    update = jax.jit(lambda state: network.clockwork(
        ORDERS["two steps late"], wires, 10.0).update(state, compute(state.step)))  # fmt: skip
    state = init()
    for _ in range(6):
        state = update(state)
    state = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), state)
    for _ in range(6):
        state = update(state)
    times = network.clock(ORDERS["two steps late"], wires, compute, 10.0, num_steps=12)
    np.testing.assert_array_equal(network.seconds_of(state, wires), times[-1])


@pytest.mark.parametrize("law", ["lognormal", "exponential", "pareto"])
def test_drawn_times_have_their_mean(law):
    compute = network.compute_times(0.4, 500, jitter=0.3, law=law, key=KEY)
    drawn = np.array(jax.vmap(compute)(jnp.arange(200)))
    deviation = 0.4 * (1.0 if law == "exponential" else 0.3)
    assert drawn.mean() == pytest.approx(0.4, abs=4 * deviation / np.sqrt(drawn.size))
    assert drawn.std() == pytest.approx(deviation, rel=0.1)
    np.testing.assert_array_equal(compute(3), drawn[3])


def test_stragglers_are_slow_in_their_share_of_steps():
    compute = network.compute_times(np.arange(1.0, 5.0), 4, stragglers=0.25, slowdown=8, key=KEY)
    drawn = np.array(jax.vmap(compute)(jnp.arange(2000))) / np.arange(1, 5)
    np.testing.assert_allclose(np.unique(drawn), [1, 8], rtol=1e-6)
    assert np.mean(drawn == 8) == pytest.approx(0.25, abs=0.02)


@pytest.mark.slow
def test_a_hundred_thousand_agents_take_less_than_a_minute():
    wires = network.links(topology.ring(100_000), latency=0.05, bandwidth=12.5e6)
    compute = network.compute_times(0.4, 100_000, jitter=0.2, key=KEY)
    start = time.process_time()  # of all cores together, as nothing else may disturb it
    times = network.clock(network.consensus(), wires, compute, 8.7e6, num_steps=1000)
    assert time.process_time() - start < 60
    assert times.shape == (1000, 100_000) and np.isfinite(times[-1]).all()
