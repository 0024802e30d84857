"""From ``--network`` and its options to links: between agents, around a ring, or to a server."""

from __future__ import annotations

import math
from pathlib import Path

import jax
import numpy as np

import cdjax
from cdjax import network, topology
from experiments.run.config import Clock
from experiments.run.errors import UsageError, blame


def check_clock(clock: Clock) -> None:
    """Raises a UsageError for a network that is none, and a quantity that is none."""
    _check_known(clock)
    _latency(clock)
    _ends(clock)
    with blame("--compute-time"):
        network.seconds(clock.compute_time or "0")
    if clock.server_bandwidth is not None:
        with blame("--server-bandwidth"):
            network.bytes_per_second(clock.server_bandwidth)


def links_between(clock: Clock, graph: cdjax.Topology) -> network.Links:
    """The links of a graph; raises a UsageError for an option that makes none."""
    _check_known(clock)
    if has_file(clock):
        with blame("--network"):
            return network.read_links(str(clock.network), graph)
    latency: float | np.ndarray = _latency(clock)
    if clock.network == "regions" and clock.latency is None:
        latency = network.latency_between(network.place(graph))
    upload, download = _ends(clock)
    return network.links(graph, latency=latency, upload=upload, download=download)


def links_around(clock: Clock, graph: cdjax.Topology) -> network.Links:
    """The links of a ring of a graph's agents, in their order."""
    ring = topology.ring(graph.num_agents)
    if has_file(clock):
        raise UsageError(f"--network: {clock.network} has the links of a graph, and no others")
    return links_between(clock, ring)


def links_to_server(clock: Clock, num_agents: int) -> network.Links:
    """The links of agents to a server, which is where the first agent is, and back."""
    _check_known(clock)
    if has_file(clock):
        raise UsageError(
            f"--network: {clock.network} has links from agent to agent only, but this goes by way "
            "of a server; give --latency and --bandwidth"
        )
    latency: float | np.ndarray = _latency(clock)
    if clock.network == "regions" and clock.latency is None:
        places = network.place(topology.ring(num_agents))
        latency = network.latency_between([places[0], *places])[0, 1:]
    upload, download = _ends(clock)
    own = upload
    if clock.server_bandwidth is not None:
        with blame("--server-bandwidth"):
            own = network.bytes_per_second(clock.server_bandwidth)
    return network.server_links(
        num_agents, latency=latency, bandwidth=own, upload=upload, download=download
    )


def is_random(clock: Clock) -> bool:
    """Whether agents take another time in each step."""
    return bool(clock.jitter or clock.stragglers)


def drawn(clock: Clock, mean: float, num_agents: int, *, key: jax.Array) -> network.Compute:
    """How long agents compute in a step, from its number, where a gradient takes ``mean``."""
    with blame("--jitter" if clock.jitter < 0 else "--stragglers"):
        return network.compute_times(
            mean, num_agents, jitter=clock.jitter, stragglers=clock.stragglers,
            slowdown=10.0 if clock.slowdown is None else clock.slowdown,
            key=key if is_random(clock) else None,
        )  # fmt: skip


def bound_of(seconds: float, compute: float, steady: network.Pace) -> str:
    """What bounds simulated steps: computation where they take hardly more, or what else would."""
    return "compute" if seconds < 1.05 * compute else steady.bound


def has_file(clock: Clock) -> bool:
    """Whether the links are those of a file, between the agents of one graph."""
    return clock.network is not None and clock.network not in _NAMES


def described(clock: Clock) -> str:
    """The network in words."""
    parts = [clock.network or "", f"latency {clock.latency}" if clock.latency else ""]
    parts += [f"bandwidth {clock.bandwidth}" if clock.bandwidth else ""]
    parts += [f"server {clock.server_bandwidth}" if clock.server_bandwidth else ""]
    return ", ".join(filter(None, parts))


_NAMES = (*network.PRESETS, "regions")


def _check_known(clock: Clock) -> None:
    if not has_file(clock):
        return
    if not Path(str(clock.network)).is_file():
        raise UsageError(
            f"--network: {clock.network!r} is neither one of {', '.join(_NAMES)} nor a CSV file of "
            "links"
        )
    for option in ("latency", "bandwidth"):
        if getattr(clock, option) is not None:
            raise UsageError(f"--{option}: the file {clock.network} says it; leave it out")


def _latency(clock: Clock) -> float:
    if clock.latency is not None:
        with blame("--latency"):
            return network.seconds(clock.latency)
    preset = network.PRESETS.get(clock.network or "")
    return preset.latency if preset else 0.0


def _ends(clock: Clock) -> tuple[float, float]:
    """Bytes per second of an agent's uplink and downlink."""
    if clock.bandwidth is not None:
        with blame("--bandwidth"):
            both = network.bytes_per_second(clock.bandwidth)
        return both, both
    # Agents in regions of a cloud have the connections of a wide area.
    name = "wide-area" if clock.network == "regions" else clock.network or ""
    preset = network.PRESETS.get(name)
    return (preset.upload, preset.download) if preset else (math.inf, math.inf)
