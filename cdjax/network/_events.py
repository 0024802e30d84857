"""Agents that wait for nobody: what happens in which order, found event by event on the host."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from cdjax._checks import check_callable, check_count, check_range, real_array
from cdjax.mixing import Peers
from cdjax.network._clock import Compute
from cdjax.network._links import Links


class Arrivals(NamedTuple):
    """What a server hears, in the order in which it does, shape (arrivals,).

    Attributes:
        agents: whose result arrives.
        seconds: when the server has taken it in.
        staleness: how many others the server has taken in since that agent began.
    """

    agents: Int[np.ndarray, " arrivals"]
    seconds: Float[np.ndarray, " arrivals"]
    staleness: Int[np.ndarray, " arrivals"]


def arrivals(
    seconds_per_round: npt.ArrayLike, num_arrivals: int, *, grace: float = 0.0, sync: float = 0.0
) -> Arrivals:
    """When results of asynchronous agents arrive at a server, as asynchronous DiLoCo has it.

    Every agent works for its own time and hands in its result. The server takes it in at once. Who
    has handed in starts anew when the grace period, which began with the first of them, lets no
    further one in: so that agents that end at about the same time begin with the same parameters.
    Without a grace period, that is at once.

    Args:
        seconds_per_round: how long each agent works between two exchanges, shape (N,).
        num_arrivals: how many results to wait for.
        grace: seconds of the grace period, at least 0; infinite for a barrier.
        sync: seconds that the server takes for each result.

    Returns:
        The arrivals.

    Raises:
        ValueError: if an argument is out of its range.

    Example: ``heard = cdjax.network.arrivals([11.6, 15.0, 30.2, 66.6], 400, grace=0.5)``

    Reference: Liu et al. (2024), *Asynchronous Local-SGD Training for Language Modeling*,
    arXiv:2401.09135, and its notebook, github.com/google-deepmind/asyncdiloco.
    """
    rounds = real_array("seconds_per_round", seconds_per_round)
    if rounds.ndim != 1 or not rounds.size:
        raise ValueError(f"seconds_per_round has shape {rounds.shape}; give one number per agent")
    check_range("seconds_per_round", rounds, low=0, low_open=True)
    check_count("num_arrivals", num_arrivals, low=0)
    check_range("grace", grace if np.isfinite(grace) else 0.0, low=0)
    check_range("sync", sync, low=0)
    working = [(seconds, agent) for agent, seconds in enumerate(rounds.tolist())]
    heapq.heapify(working)
    version = [0] * len(rounds)
    waiting: list[int] = []
    now, opened = 0.0, 0.0
    found: list[tuple[int, float, int]] = []
    while len(found) < num_arrivals:
        # The grace period is told from the moment at which its first result came.
        if working and (not waiting or working[0][0] - opened <= grace):
            ready, agent = heapq.heappop(working)
            now = max(now, ready)
            opened = opened if waiting else now
            staleness = len(found) - version[agent]
            now += sync
            found.append((agent, now, staleness))
            waiting.append(agent)
        else:
            for agent in waiting:
                version[agent] = len(found)
                heapq.heappush(working, (now + float(rounds[agent]), agent))
            waiting = []
    agents, seconds, staleness = zip(*found, strict=True) if found else ((), (), ())
    return Arrivals(np.array(agents, int), np.array(seconds, float), np.array(staleness, int))


class Averagings(NamedTuple):
    """Pairs of agents that average, in the order in which they do, shape (events,).

    Attributes:
        agents: who has computed a gradient, and asked.
        partners: with whom it averages; itself if it has no neighbour.
        seconds: when.
    """

    agents: Int[np.ndarray, " events"]
    partners: Int[np.ndarray, " events"]
    seconds: Float[np.ndarray, " events"]


def averagings(
    links: Links,
    compute: Compute,
    message_bytes: float,
    *,
    peers: Peers,
    num_events: int,
) -> Averagings:
    r"""The events of AD-PSGD: who averages with whom, and when, where nobody waits.

    Agent i computes its k-th gradient in c seconds and then swaps parameters with one neighbour p,
    which goes on computing meanwhile:

    .. math:: t_i(k + 1) = t_i(k) + c_i(k) + \max(m_{ip}, m_{pi})

    A message has its link for itself; it is rare that two meet. Events at the same moment come in
    the order of their agents.

    Args:
        links: what messages meet, between all possible peers.
        compute: c in seconds, a function of an agent's own step k, as of :func:`compute_times`.
        message_bytes: b, the bytes of a message.
        peers: from k to each agent's partner, as of ``cdjax.mixing.random_peers``.
        num_events: how many events, of all agents together.

    Returns:
        The events.

    Raises:
        ValueError: if there are no links between two peers, or a time is not above 0.

    Example::

        graph = cdjax.topology.ring(8)
        wires = cdjax.network.links(graph, latency=0.05)
        compute = cdjax.network.compute_times(0.4, 8, jitter=0.2, key=key)
        peers = cdjax.mixing.random_peers(graph, key)
        order = cdjax.network.averagings(wires, compute, 8.7e6, peers=peers, num_events=800)

    Reference: Lian, Zhang, Zhang, Liu (2018), *Asynchronous Decentralized Parallel Stochastic
    Gradient Descent*, arXiv:1710.06952, Algorithm 1 (number not verified).
    """
    check_count("num_events", num_events, low=0)
    check_callable("compute", compute, "a function of the step, as of compute_times")
    check_callable("peers", peers, "a function of the step, as of cdjax.mixing.random_peers")
    num_agents = links.num_agents
    swap = _seconds_of_swap(links, message_bytes)
    own_steps = -(-num_events // num_agents) + 1
    draw = jax.jit(jax.vmap(lambda k: (jnp.broadcast_to(compute(k), (num_agents,)), peers(k))))
    while True:
        seconds, partners = map(np.asarray, draw(jnp.arange(own_steps)))
        agents = np.broadcast_to(np.arange(num_agents), partners.shape)
        durations = seconds.astype(np.float64) + swap[agents, partners]
        if not np.all(durations > 0):
            raise ValueError("an agent computes and swaps in 0 s; give times above 0")
        if not np.all(np.isfinite(durations)):
            agent, partner = np.argwhere(~np.isfinite(swap))[0]
            raise ValueError(f"agents {agent} and {partner} are peers, but no link joins them")
        times = np.cumsum(durations, axis=0)
        order = np.argsort(times, axis=None, kind="stable")[:num_events]
        # Beyond the end of what has been drawn for the fastest agent, events would be missing.
        if not num_events or times.flat[order[-1]] <= times[-1].min():
            found = (part.ravel()[order] for part in (agents, partners, times))
            return Averagings(*found)
        own_steps *= 2


def _seconds_of_swap(links: Links, message_bytes: float) -> np.ndarray:
    """How long two agents take to exchange parameters, shape (N, N); infinite without a link."""
    ends = [links.bandwidth, links.upload[links.senders], links.download[links.receivers]]
    seconds = np.full((links.num_agents, links.num_agents), np.inf)
    np.fill_diagonal(seconds, 0.0)
    seconds[links.receivers, links.senders] = links.latency + message_bytes / np.min(ends, axis=0)
    return np.maximum(seconds, seconds.T)
