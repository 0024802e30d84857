"""The seconds a step takes in the long run, and what bounds it, for times that do not change."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Int

from cdjax._checks import check_range
from cdjax.network._clock import carried_by, check_fit, seconds_around
from cdjax.network._cycles import Edges, critical_cycle
from cdjax.network._links import Links
from cdjax.network._orders import Leg, Order


class Pace(NamedTuple):
    """How fast agents go in the long run, and what of a step's time goes where.

    Attributes:
        seconds: per step; infinite if a link is silent.
        compute: of these, seconds of computation on the critical cycle.
        latency: of these, seconds of latency on it.
        transfer: of these, seconds during which its links carry bytes.
        agents: those on the critical cycle, which all others wait for in the end.
        bound: what takes the most: compute, latency, bandwidth, server, or a silent link.
    """

    seconds: float
    compute: float
    latency: float
    transfer: float
    agents: list[int]
    bound: str


def seconds_per_step(order: Order, links: Links, compute: ArrayLike, message_bytes: float) -> float:
    r"""The seconds that a step takes in the long run, for times that do not change.

    .. math:: \lim_{k \to \infty} \max_j t_j(k) / k = \max_C \frac {\sum_{e \in C} w_e}
              {\sum_{e \in C} h_e}

    over the cycles C of the graph of events, in which an edge e says that one event is at least
    w seconds later than another of h steps before. It is exact.

    Args:
        order: who computes and waits when.
        links: what messages meet; all of them in every exchange.
        compute: c in seconds, one number, or one per agent, shape (N,).
        message_bytes: b, the bytes of a message.

    Returns:
        Seconds per step, those of the slowest agent if agents do not wait for each other; infinite
        if a link is silent.

    Raises:
        ValueError: if the links do not fit the order, or a time is negative.

    Example::

        wires = cdjax.network.links(cdjax.topology.ring(16), latency=0.5)
        cdjax.network.seconds_per_step(cdjax.network.adapt_then_combine(), wires, 1.0, 0)  # 1.5

    Reference: Karp (1978), *A characterization of the minimum cycle mean in a digraph*, of the
    largest mean; Baccelli et al. (1992) of the limit (neither verified).
    """
    return pace(order, links, compute, message_bytes).seconds


def pace(order: Order, links: Links, compute: ArrayLike, message_bytes: float) -> Pace:
    """What :func:`seconds_per_step` is made of.

    Args:
        order: who computes and waits when.
        links: what messages meet; all of them in every exchange.
        compute: c in seconds, one number, or one per agent, shape (N,).
        message_bytes: b, the bytes of a message.

    Returns:
        Seconds per step, and the parts of them on the critical cycle.

    Raises:
        ValueError: if the links do not fit the order, or a time is negative.
    """
    check_fit(order, links)
    check_range("compute", compute, low=0)
    check_range("message_bytes", message_bytes, low=0)
    if np.shape(compute) not in ((), (links.num_agents,)):
        shape = (links.num_agents,)
        found = f"compute has shape {np.shape(compute)}"
        raise ValueError(f"{found}; give one number, or shape {shape}")
    if order.waits and links.silent:
        agents, bound = _silence(links)
        return Pace(np.inf, 0.0, np.inf, 0.0, agents, bound)
    graph = _events(order, links, compute, message_bytes * order.messages)
    owners, parts = graph.joined()
    tails, heads, delays, computing, latency, transfer = parts
    edges = Edges(tails, heads, computing + latency + transfer, delays)
    ratio, cycle = critical_cycle(edges, len(owners))
    num_steps = delays[cycle].sum() * order.period
    shares = [float(part[cycle].sum() / num_steps) for part in (computing, latency, transfer)]
    agents = np.unique(owners[heads[cycle]])
    agents = agents[(agents >= 0) & (agents < links.num_agents)].tolist()
    names = ["compute", "latency", "server" if links.has_server else "bandwidth"]
    bound = names[int(np.argmax(shares))]
    return Pace(ratio / order.period, shares[0], shares[1], shares[2], agents, bound)


def _silence(links: Links) -> tuple[list[int], str]:
    """The agents of the first silent link, and that link in words."""
    ends = links.silent[0]
    names = ["the server" if end == links.num_agents else f"{end}" for end in ends]
    agents = sorted(end for end in ends if end < links.num_agents)
    return agents, f"silent link from {names[0]} to {names[1]}"


class _Events:
    """The graph of what has to happen before what in a round, as it is put together.

    An event is a number; ``owners`` says whose it is, -1 if everybody's. Edges have the parts of
    their weights.
    """

    def __init__(self) -> None:
        self._owners: list[np.ndarray] = []
        self._edges: list[tuple[np.ndarray, ...]] = []
        self._size = 0

    def new(self, owners: Int[np.ndarray, " events"]) -> Int[np.ndarray, " events"]:
        """Further events, one per owner."""
        self._owners.append(owners)
        self._size += len(owners)
        return np.arange(self._size - len(owners), self._size)

    def add(
        self,
        tails: np.ndarray,
        heads: np.ndarray,
        *,
        delay: int = 0,
        compute: ArrayLike = 0.0,
        latency: ArrayLike = 0.0,
        transfer: ArrayLike = 0.0,
    ) -> None:
        """Edges from the events ``tails`` to the events ``heads``, ``delay`` rounds later."""
        self._edges.append(
            np.broadcast_arrays(tails, heads, delay, compute, latency, transfer)  # type: ignore
        )

    def joined(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """The owners of all events, and all edges by their parts."""
        columns = zip(*self._edges, strict=True)
        return np.concatenate(self._owners), tuple(np.concatenate(part) for part in columns)


def _events(order: Order, links: Links, compute: ArrayLike, num_bytes: float) -> _Events:
    """The events of a round of ``period`` steps, of which the last exchanges."""
    nodes = np.arange(links.num_nodes)
    own = np.zeros(links.num_nodes)
    own[: links.num_agents] = compute  # a server computes nothing
    graph = _Events()
    free = np.full(len(links.receivers), -1)  # the event after which each link is free
    first, busy_with = free.copy(), np.zeros(len(free))

    def exchange(kind: Leg, before: np.ndarray, needed: np.ndarray | None = None) -> np.ndarray:
        """The events at which nodes have heard what was sent at the events ``before``.

        What is ``needed`` at events of the next round only, nobody waits for before.
        """
        after = graph.new(nodes)
        graph.add(before, after)
        if kind == "ring":
            barrier = graph.new(np.array([-1]))
            around, still = seconds_around(links, num_bytes), seconds_around(links, 0.0)
            graph.add(before, barrier)
            graph.add(barrier, after, latency=still, transfer=around - still)
            return after
        carries = carried_by(kind, links)
        used = np.flatnonzero(carries)
        senders, receivers = links.senders[used], links.receivers[used]
        latency, busy = links.latency[used], links.transfer(num_bytes, carries)[used]
        if kind == "trip":
            agents = np.minimum(receivers, senders)
            sums = [np.bincount(agents, part, links.num_nodes) for part in (latency, busy)]
            graph.add(before, after, latency=sums[0], transfer=sums[1])
            return after
        sending = graph.new(senders)
        graph.add(before[senders], sending)
        is_busy = free[used] >= 0
        graph.add(free[used][is_busy], sending[is_busy], transfer=busy_with[used][is_busy])
        first[used] = np.where(is_busy, first[used], sending)
        free[used], busy_with[used] = sending, busy
        if needed is not None:
            graph.add(sending, needed[receivers], delay=1, latency=latency, transfer=busy)
        elif order.waits:
            graph.add(sending, after[receivers], delay=order.lag, latency=latency, transfer=busy)
        else:
            graph.add(sending, after[senders])
        return after

    start = now = graph.new(nodes)
    merged = None
    if order.overlap:
        now = merged = graph.new(nodes)
        graph.add(start, merged, compute=order.overlap * own)
    if order.period > 1:
        before, now = now, graph.new(nodes)
        graph.add(before, now, compute=(order.period - 1 - order.overlap) * own)
    for kind in order.before:
        now = exchange(kind, now)
    computed, heard = graph.new(nodes), now
    graph.add(now, computed, compute=own)
    for kind in order.beside:
        heard = exchange(kind, heard)
    graph.add(heard, computed)
    now = computed
    for number, kind in enumerate(order.after, start=1):
        now = exchange(kind, now, merged if number == len(order.after) else None)
    graph.add(now, start, delay=1)
    used = free >= 0
    graph.add(free[used], first[used], delay=1, transfer=busy_with[used])
    return graph
