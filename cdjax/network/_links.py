"""What a message meets on its way: the latency and the bandwidth of links, and of their ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int

from cdjax._checks import check_num_agents, check_topology, real_array
from cdjax.topology import Topology


@dataclass(frozen=True, eq=False)
class Links:
    r"""Directed links with their latencies and bandwidths. Build them with :func:`links`.

    A message of b bytes from l to j takes

    .. math:: m_{jl} = \tau_{jl} + b \max\Big( \frac 1 {\beta_{jl}}, \frac {o_l} {u_l},
              \frac {i_j} {d_j} \Big)

    where :math:`o_l` messages leave l and :math:`i_j` messages arrive at j in the same exchange:
    an end that several messages pass at once gives each an equal share.

    Attributes:
        num_agents: N.
        receivers: the agent j of each link, shape (links,), ascending; the server has the number N.
        senders: the agent l of each link.
        latency: τ in seconds; infinite where a link is silent.
        bandwidth: β of each link itself, in bytes per second.
        upload: u of each agent, and the server, in bytes per second.
        download: d of each agent, and the server, in bytes per second.
        has_server: whether the links lead to a server and back, and not from agent to agent.
    """

    num_agents: int
    receivers: Int[np.ndarray, " links"]
    senders: Int[np.ndarray, " links"]
    latency: Float[np.ndarray, " links"]
    bandwidth: Float[np.ndarray, " links"]
    upload: Float[np.ndarray, " nodes"]
    download: Float[np.ndarray, " nodes"]
    has_server: bool = False

    # Equal shares are what TCP gives to flows that start together and are equally far. With
    # max-min fairness a flow gets at least C / n of every capacity C that n flows pass, so that
    # b / min(C / n) is exact where all flows of a bottleneck are alike, and never too short.

    @property
    def num_nodes(self) -> int:
        """The number of agents, and one more if there is a server."""
        return len(self.upload)

    def transfer(
        self, message_bytes: float, heard: Bool[np.ndarray, " links"] | None = None
    ) -> Float[np.ndarray, " links"]:
        """How long each link is busy with a message, in seconds: all of its time but the latency.

        Args:
            message_bytes: b.
            heard: the links that carry a message in the same exchange; all by default.
        """
        heard = np.ones(len(self.receivers), bool) if heard is None else heard
        leaving = np.bincount(self.senders[heard], minlength=self.num_nodes)
        arriving = np.bincount(self.receivers[heard], minlength=self.num_nodes)
        per_byte = [
            1 / self.bandwidth,
            (np.maximum(leaving, 1) / self.upload)[self.senders],
            (np.maximum(arriving, 1) / self.download)[self.receivers],
        ]
        return message_bytes * np.max(per_byte, axis=0)

    @property
    def silent(self) -> list[tuple[int, int]]:
        """The links on which nothing arrives, as pairs (sender, receiver)."""
        down = np.isinf(self.latency)
        return list(zip(self.senders[down].tolist(), self.receivers[down].tolist(), strict=True))


def links(
    topology: Topology,
    *,
    latency: npt.ArrayLike = 0.0,
    bandwidth: npt.ArrayLike = math.inf,
    upload: npt.ArrayLike = math.inf,
    download: npt.ArrayLike = math.inf,
) -> Links:
    """The links of a topology, one in each direction of an edge.

    Args:
        topology: the graph on N agents.
        latency: seconds from the first byte sent to the first byte received: one number, one per
            link, or a matrix of shape (N, N) with [receiver, sender]. ``inf`` is a silent link, on
            which nothing ever arrives.
        bandwidth: bytes per second of each link by itself; the same three forms.
        upload: bytes per second of each agent's own uplink, which all that it sends in an exchange
            shares: one number, or shape (N,).
        download: bytes per second of each agent's own downlink.

    Returns:
        The links, by receiver, then by sender; without any limit but those that are given.

    Raises:
        ValueError: if a latency is negative, a bandwidth is not above 0, a shape does not fit, or a
            matrix holds NaN where the topology has an edge.

    Example::

        graph = cdjax.topology.ring(16)
        wires = cdjax.network.links(graph, latency=0.05, upload=12.5e6, download=12.5e6)
    """
    check_topology(topology)
    edges = topology.entries.off_diagonal
    ends = np.asarray(edges.receivers), np.asarray(edges.senders)
    return _links(
        topology.num_agents, *ends, latency=latency, bandwidth=bandwidth, upload=upload,
        download=download, names=topology.labels,
    )  # fmt: skip


def server_links(
    num_agents: int,
    *,
    latency: npt.ArrayLike = 0.0,
    bandwidth: float = math.inf,
    upload: npt.ArrayLike = math.inf,
    download: npt.ArrayLike = math.inf,
) -> Links:
    """The links of agents to a server and back.

    Args:
        num_agents: N.
        latency: seconds between an agent and the server, in either direction: one number, or shape
            (N,). ``inf`` is a silent link.
        bandwidth: bytes per second of the server's own link, in each direction; all agents that
            send to it at once, or hear from it, share that.
        upload: bytes per second of each agent's own uplink: one number, or shape (N,).
        download: bytes per second of each agent's own downlink.

    Returns:
        The links, for the orders that need a server; the server is the last node.

    Raises:
        ValueError: if a latency is negative, a bandwidth is not above 0, or a shape does not fit.

    Example: ``wires = cdjax.network.server_links(16, latency=0.05, bandwidth=125e6)``
    """
    check_num_agents(num_agents)
    agents, server = np.arange(num_agents), np.full(num_agents, num_agents)
    latency = _per_agent("latency", latency, num_agents)
    own = {"upload": upload, "download": download}
    own = {
        name: np.append(_per_agent(name, value, num_agents), bandwidth)
        for name, value in own.items()
    }
    return _links(
        num_agents, np.append(agents, server), np.append(server, agents),
        latency=np.append(latency, latency), bandwidth=math.inf, **own,
        names=tuple(range(num_agents)), has_server=True,
    )  # fmt: skip


def _links(
    num_agents: int,
    receivers: np.ndarray,
    senders: np.ndarray,
    *,
    latency: npt.ArrayLike,
    bandwidth: npt.ArrayLike,
    upload: npt.ArrayLike,
    download: npt.ArrayLike,
    names: tuple[Any, ...],
    has_server: bool = False,
) -> Links:
    num_nodes = num_agents + has_server

    def of_links(name: str, value: npt.ArrayLike) -> np.ndarray:
        values = real_array(name, value)
        if values.ndim == 2 and values.shape == (num_nodes, num_nodes):
            values = values[receivers, senders]
        if values.shape not in ((), (len(receivers),)):
            raise ValueError(
                f"{name} has shape {values.shape}; give one number, one per link, shape "
                f"{(len(receivers),)}, or [receiver, sender], shape {(num_nodes, num_nodes)}"
            )
        values = np.broadcast_to(values, receivers.shape).copy()
        if np.isnan(values).any():
            link = int(np.argmax(np.isnan(values)))
            ends = names[senders[link]], names[receivers[link]]
            raise ValueError(
                f"{name} has no number for the edge from {ends[0]} to {ends[1]}; give each edge of "
                "the topology one"
            )
        return values

    arrays = {
        "latency": of_links("latency", latency),
        "bandwidth": of_links("bandwidth", bandwidth),
        "upload": _per_agent("upload", upload, num_nodes),
        "download": _per_agent("download", download, num_nodes),
    }
    for name, values in arrays.items():
        worst = int(np.argmin(values)) if values.size else 0
        least = values[worst] if values.size else 1.0
        if name == "latency" and least < 0:
            raise ValueError(f"latency is {least:g}; it must be at least 0 seconds")
        if name != "latency" and not least > 0:
            raise ValueError(
                f"{name} is {least:g}; it must be above 0 bytes per second, and a link that is "
                "down has latency inf"
            )
        values.setflags(write=False)
    return Links(num_agents, receivers, senders, **arrays, has_server=has_server)


def _per_agent(name: str, value: npt.ArrayLike, num_agents: int) -> np.ndarray:
    values = real_array(name, value)
    if values.shape not in ((), (num_agents,)):
        shape = (num_agents,)
        raise ValueError(f"{name} has shape {values.shape}; give one number, or shape {shape}")
    if np.isnan(values).any():
        raise ValueError(f"{name} is NaN; give every agent a number")
    return np.broadcast_to(values, (num_agents,)).copy()
