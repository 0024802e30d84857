"""Agents that wait for nobody: what happens in which order, found event by event on the host."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from cdjax._checks import check_count, check_range, real_array


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
