"""Networks that exist: latencies and bandwidths with where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from cdjax._checks import check_choice, check_topology
from cdjax.network._links import Links, links
from cdjax.topology import Topology

_MBIT = 1e6 / 8


@dataclass(frozen=True)
class Preset:
    """A kind of network, all of whose agents are alike.

    Attributes:
        latency: seconds from one agent to another, one way.
        upload: bytes per second of an agent's own uplink.
        download: bytes per second of its downlink.
        source: where the numbers come from.
    """

    latency: float
    upload: float
    download: float
    source: str


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "datacenter": Preset(
            0.454e-3, 9530 * _MBIT, 9530 * _MBIT,
            "latency: half of 908 µs, the round trip within a zone of Azure UK South, "
            "simonpainter.com/azure-latency-1; bandwidth: 9.53 Gbit/s by iperf3 between AWS "
            "g6e.2xlarge in one placement group, github.com/Adnan082/diloco-measured",
        ),
        "campus": Preset(
            0.777e-3, 1000 * _MBIT, 1000 * _MBIT,
            "latency: half of 1553 µs, the round trip between zones of Azure UK South, "
            "simonpainter.com/azure-latency-1; bandwidth: gigabit Ethernet, not verified",
        ),
        "wide-area": Preset(
            42e-3, 1000 * _MBIT, 1000 * _MBIT,
            "latency: half of 84 ms, the round trip between Azure East US and West Europe in April "
            "2024, learn.microsoft.com/azure/networking/azure-network-latency; bandwidth: not "
            "verified",
        ),
        "home": Preset(
            21e-3, 45.74 * _MBIT, 85.73 * _MBIT,
            "the world's mean of fixed broadband in September 2020, Speedtest Global Index, as "
            "quoted by my-financial-wealth.com; its latency is that of a ping to a near server",
        ),
        "mobile": Preset(
            40e-3, 11.22 * _MBIT, 35.96 * _MBIT,
            "the world's mean of mobile networks in September 2020, Speedtest Global Index, as "
            "quoted by my-financial-wealth.com; its latency is that of a ping to a near server",
        ),
    }
)  # fmt: skip

# Round trips in milliseconds, from the region of the row to that of the column, the median of the
# 30 days before 9 April 2024: "Azure network round-trip latency statistics",
# learn.microsoft.com/azure/networking/azure-network-latency, the page of 10 April 2024.
REGIONS: tuple[str, ...] = (
    "East US", "Brazil South", "West Europe", "Japan East", "Southeast Asia", "Central India",
    "Australia East",
)  # fmt: skip
_ROUND_TRIPS = (
    (0, 117, 83, 157, 223, 207, 202),
    (118, 0, 186, 281, 340, 310, 310),
    (84, 185, 0, 226, 159, 137, 258),
    (158, 280, 226, 0, 71, 120, 103),
    (227, 343, 159, 72, 0, 53, 90),
    (210, 311, 139, 121, 54, 0, 140),
    (204, 311, 259, 103, 90, 140, 0),
)


def preset(name: str, topology: Topology) -> Links:
    """The links of a topology in a kind of network.

    Args:
        name: one of ``cdjax.network.PRESETS``, which say where their numbers come from.
        topology: the graph.

    Raises:
        ValueError: if there is no such preset.

    Example: ``wires = cdjax.network.preset("wide-area", cdjax.topology.ring(16))``
    """
    check_choice("preset", name, PRESETS)
    one = PRESETS[name]
    return links(topology, latency=one.latency, upload=one.upload, download=one.download)


def latency_between(regions: Sequence[str]) -> Float[np.ndarray, "agents agents"]:
    """Seconds between agents in regions of a cloud, one way: half of the published round trip.

    Args:
        regions: the region of each agent, of ``cdjax.network.REGIONS``; 0.454 ms within one.

    Returns:
        Latencies for :func:`links`, shape (N, N), with [receiver, sender].

    Raises:
        ValueError: if there is no such region.

    Example::

        latency = cdjax.network.latency_between(["East US", "West Europe", "Japan East"])
        wires = cdjax.network.links(cdjax.topology.ring(3), latency=latency, upload=125e6)
    """
    for region in regions:
        check_choice("region", region, REGIONS)
    places = np.array([REGIONS.index(region) for region in regions], int)
    one_way = np.array(_ROUND_TRIPS).T / 2000
    np.fill_diagonal(one_way, PRESETS["datacenter"].latency)
    return one_way[places[:, None], places[None, :]]


def place(topology: Topology, regions: Sequence[str] = REGIONS) -> list[str]:
    """A region for each agent of a topology, in equal stretches of agents that follow each other.

    Args:
        topology: the graph.
        regions: those to take.

    Example: ``cdjax.network.place(cdjax.topology.ring(3), ["East US", "West Europe"])``
    """
    check_topology(topology)
    number = topology.num_agents
    return [regions[j * len(regions) // number] for j in range(number)]
