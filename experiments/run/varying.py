"""Topologies that change with the step: one row for each, which everything else reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments.run.lazy import LazyModule

cdjax, jax, mixing, topology = (
    LazyModule(name) for name in ("cdjax", "jax", "cdjax.mixing", "cdjax.topology")
)


class Varying(NamedTuple):
    """A topology that changes with the step.

    Attributes:
        graph: all its links; the mean of its matrices where they are known.
        mixer: makes the mixer from a key and the mesh, None for one device.
        messages: model-sized messages that all agents send per step, on average.
        fact: how fast it averages, in a few words.
    """

    graph: cdjax.Topology
    mixer: Callable[[jax.Array, jax.sharding.Mesh | None], cdjax.Mixer]
    messages: float
    fact: str


class Row(NamedTuple):
    """How one is built, from N and by keyword the options that it reads, with their defaults."""

    build: Callable[..., Varying]
    options: Mapping[str, Any] = {}


def of_matchings(graph: cdjax.Topology, budget: float) -> Varying:
    """The matchings of a graph, at a budget."""
    drawn = topology.matcha(graph, budget)
    mean = drawn.mean()
    return Varying(
        topology.Topology(mean.name, mean.graph, mean.entries, graph.labels),
        lambda key, mesh: mixing.random_matchings(drawn, key, mesh=mesh),
        drawn.messages_per_step,
        f"{len(drawn.partners)} matchings, {drawn.probabilities.sum():.3g} of them per step",
    )


def _scheduled(schedule: Any) -> Varying:
    steps = topology.consensus_time(schedule)
    exact = topology.contraction(schedule) == 0
    return Varying(
        schedule.mean(),
        lambda key, mesh: mixing.cycle(schedule, mesh=mesh),
        schedule.messages_per_step,
        f"period {schedule.period}, " + (f"exact means in {steps} steps" if exact else "inexact"),
    )


def _base(base: int) -> Row:
    return Row(lambda num_agents: _scheduled(topology.base_graph(num_agents, base - 1)))


def _drawn(
    name: str, num_agents: int, make: Callable[..., cdjax.Mixer], messages: float
) -> Varying:
    graph = topology.complete(num_agents)
    named = topology.Topology(name, graph.graph, graph.entries)
    return Varying(named, make, messages, "drawn in every step")


def _epidemic(num_agents: int, *, peers_per_step: int) -> Varying:
    def make(key: jax.Array, mesh: jax.sharding.Mesh) -> cdjax.Mixer:
        return mixing.random_epidemic(num_agents, key, count=peers_per_step, mesh=mesh)

    return _drawn("epidemic", num_agents, make, num_agents * peers_per_step)


def _regular(num_agents: int, *, peers_per_step: int) -> Varying:
    def make(key: jax.Array, mesh: jax.sharding.Mesh) -> cdjax.Mixer:
        return mixing.random_regular(num_agents, key, degree=peers_per_step, mesh=mesh)

    return _drawn("random circle", num_agents, make, num_agents * peers_per_step)


def _matching(num_agents: int) -> Varying:
    def make(key: jax.Array, mesh: jax.sharding.Mesh) -> cdjax.Mixer:
        return mixing.pull(mixing.random_matching(num_agents, key), mesh=mesh)

    return _drawn("random matching", num_agents, make, num_agents // 2 * 2)


def _equitopo(num_agents: int) -> Varying:
    def make(key: jax.Array, mesh: jax.sharding.Mesh) -> cdjax.Mixer:
        return mixing.random_equitopo(num_agents, key, mesh=mesh)

    return _drawn("equitopo", num_agents, make, num_agents if num_agents > 1 else 0)


_PEERS = {"peers_per_step": 1}
VARYING: dict[str, Row] = {
    "one-peer-exponential": Row(lambda n: _scheduled(topology.one_peer_exponential(n))),
    "one-peer-hypercube": Row(lambda n: _scheduled(topology.one_peer_hypercube(n))),
    **{f"base-{base}": _base(base) for base in range(2, 6)},
    "epidemic": Row(_epidemic, _PEERS),
    "random-circle": Row(_regular, _PEERS),
    "random-matching": Row(_matching),
    "equitopo": Row(_equitopo),
}
