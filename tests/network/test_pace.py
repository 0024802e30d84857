import jax
import networkx as nx
import numpy as np
import pytest

from cdjax import network, topology
from cdjax.network._cycles import Edges, critical_cycle
from tests.network.oracles import karp
from tests.network.test_clock import ORDERS, random_links
from tests.trees import random_connected_graph

GRAPHS = [topology.from_graph(random_connected_graph(9, seed=seed)) for seed in range(4)]


@pytest.mark.parametrize("seed", range(4))
def test_the_rate_is_the_largest_mean_of_a_cycle(seed):
    graph, draw = GRAPHS[seed], np.random.default_rng(seed)
    latency, compute = draw.uniform(0, 2, (9, 9)), draw.uniform(0, 2, 9)
    wires = network.links(graph, latency=latency)
    linked = (graph.mixing_matrix != 0) & ~np.eye(9, dtype=bool)
    overlapped = np.where(linked, latency, -np.inf)
    np.fill_diagonal(overlapped, compute)
    rate = network.seconds_per_step(network.consensus(), wires, compute, 0)
    assert rate == pytest.approx(karp(overlapped), rel=1e-12)
    combined = np.where(linked, latency + compute[None, :], -np.inf)
    np.fill_diagonal(combined, compute)
    rate = network.seconds_per_step(network.adapt_then_combine(), wires, compute, 0)
    assert rate == pytest.approx(karp(combined), rel=1e-12)


@pytest.mark.parametrize("name", [*ORDERS, "push"])
@pytest.mark.sampled(4)
def test_the_clock_runs_at_the_rate(name, x64):
    order = ORDERS.get(name, network.push())
    wires = random_links(GRAPHS[0], seed=3, upload=20.0)
    compute = np.random.default_rng(4).uniform(0.5, 1.5, 9)
    times = network.clock(order, wires, compute, 10.0, num_steps=3000 + 2520).max(axis=1)
    rate = network.seconds_per_step(order, wires, compute, 10.0)
    assert (times[-1] - times[-1 - 2520]) / 2520 == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_the_critical_cycle_is_the_best_of_all(seed):
    draw = np.random.default_rng(seed)
    graph = nx.gnp_random_graph(6, 0.4, seed=seed, directed=True)
    graph.add_edges_from((v, (v + 1) % 6) for v in range(6))
    pairs = np.array(graph.edges)
    # Some edges take no step, but a cycle takes one: only edges to a higher number may.
    delays = np.where(pairs[:, 0] < pairs[:, 1], draw.integers(0, 3, len(pairs)), 1)
    edges = Edges(*pairs.T, draw.normal(size=len(pairs)), delays)
    weight = {tuple(pair): (w, d) for pair, w, d in zip(pairs, *edges[2:], strict=True)}
    found = []
    for cycle in nx.simple_cycles(graph):
        parts = [weight[pair] for pair in zip(cycle, cycle[1:] + cycle[:1], strict=True)]
        found.append(np.sum(parts, axis=0))
    best = max(total / steps for total, steps in found)
    ratio, cycle = critical_cycle(edges, 6)
    assert ratio == pytest.approx(best, rel=1e-12)
    np.testing.assert_array_equal(edges.heads[cycle], np.roll(edges.tails[cycle], 1))


def test_a_server_an_all_reduce_and_a_trip_have_their_closed_forms():
    server = network.server_links(8, latency=0.25, bandwidth=100.0, upload=20.0, download=50.0)
    pace = network.pace(network.every(4, network.parameter_server()), server, 1.0, 10.0)
    # Up: the larger of 10 / 20 and 8 · 10 / 100; down: of 10 / 50 and 8 · 10 / 100.
    assert pace.seconds == pytest.approx(1 + (0.5 + 0.8 + 0.8) / 4)
    assert (pace.compute, pace.latency, pace.transfer) == pytest.approx((1, 0.125, 0.4))
    trip = network.seconds_per_step(network.asynchronous_server(), server, 1.0, 10.0)
    assert trip == pytest.approx(1 + 0.5 + 1.6)
    ring = network.links(topology.ring(8), latency=0.25, upload=20.0, download=50.0)
    reduced = network.pace(network.all_reduce(), ring, 1.0, 10.0)
    assert reduced.seconds == pytest.approx(1 + 14 * (0.25 + 10 / 8 / 20))
    assert reduced.bound == "latency"


@pytest.mark.parametrize(
    ("options", "compute", "bound"),
    [({"latency": 0.1}, 1.0, "compute"), ({"latency": 2.0}, 1.0, "latency"),
     ({"upload": 1.0}, 1.0, "bandwidth")],
)  # fmt: skip
def test_what_takes_most_of_a_step_is_named(options, compute, bound):
    wires = network.links(topology.ring(5), **options)
    assert network.pace(network.consensus(), wires, compute, 10.0).bound == bound


def test_a_slow_agent_is_the_critical_one():
    compute = np.where(np.arange(9) == 4, 3.0, 1.0)
    pace = network.pace(network.consensus(), network.links(topology.ring(9)), compute, 0)
    assert (pace.seconds, pace.agents, pace.bound) == (3.0, [4], "compute")


def test_a_silent_link_is_named():
    latency = np.where(np.arange(9) == 3, np.inf, 0.1)
    server = network.server_links(9, latency=latency)
    pace = network.pace(network.parameter_server(), server, 1.0, 0)
    assert pace.seconds == np.inf and pace.bound == "silent link from the server to 3"


def test_a_large_ring_has_a_rate():
    wires = network.links(topology.ring(20_000), latency=0.05)
    compute = jax.random.uniform(jax.random.key(0), (20_000,))
    rate = network.seconds_per_step(network.consensus(), wires, compute, 0)
    assert rate == pytest.approx(float(compute.max()))
