"""Networks that fail: links that break, agents that are away, messages that get lost.

Which links fail is a function ``fault(step)``, so that a run that starts again at step k replays
step k; random faults draw by ``fold_in(key, step)``. Independent faults need different keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Int, PRNGKeyArray

from cdjax._checks import (
    check_callable,
    check_count,
    check_key,
    check_num_agents,
    check_probability,
    check_stacked,
    check_topology,
)
from cdjax._trees import map_floats
from cdjax._types import Mixer, Params
from cdjax.mixing._auto import product_is_faster
from cdjax.mixing._dense import product, weighted
from cdjax.robust._links import Fault, Links, check_faults, failed_links, heard_by_slot, links_of
from cdjax.topology import Topology


@runtime_checkable
class Absence(Protocol):
    """Names the agents that are away at a step."""

    def __call__(self, step: int | Int[Array, ""]) -> Bool[Array, " agents"]:
        """Returns whether each agent is away, shape (N,)."""
        ...


def faulty(topology: Topology, *faults: Fault) -> Mixer:
    r"""A mixer over the links of a topology that do not fail.

    .. math:: \text{mixed}^j = x^j + \sum_{l:\ \text{link } jl \text{ holds}} \Pi_{jl} (x^l - x^j)

    The weight of a failed link goes back to the receiver's own parameters, so the rows of the
    step's mixing matrix sum to one whatever fails. If links fail in both directions at once
    (:func:`failing_links`, :func:`absent_agents`) and Π is symmetric, the step's matrix is
    symmetric and doubly stochastic as well, and the mean over agents stays. If they fail in one
    direction (:func:`lost_messages`), the mean stays only in expectation.

    Args:
        topology: the graph and its mixing matrix of shape (N, N).
        *faults: a link fails if any of them says so.

    Returns:
        A mixer for stacked trees with N agents; with faults it needs the step. It equals
        ``dense(topology)`` up to rounding when nothing fails.

    Example::

        fault = cdjax.robust.failing_links(topology, 0.2, key=key)
        mix = cdjax.robust.faulty(topology, fault)

    Reference: Xiao, Boyd, Lall (2005), *A Scheme for Robust Distributed Sensor Fusion Based on
    Average Consensus*, IPSN, of averaging over the links that a step has.
    """
    check_topology(topology)
    check_faults(faults)
    links = links_of(topology.entries)
    is_dense = product_is_faster(links.in_slots.shape[1], topology.num_agents)
    mix_leaf = _product if is_dense else _by_slots

    def mix(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        failed = failed_links(links, faults, step)
        check_stacked(tree, topology.num_agents)
        return map_floats(lambda x: mix_leaf(links, failed, x), tree)

    return mix


def failing_links(topology: Topology, probability: ArrayLike, *, key: PRNGKeyArray) -> Fault:
    """Links that break for a step, each with the same probability and in both directions at once.

    Args:
        topology: the graph whose links break.
        probability: of each link at each step, in [0, 1].
        key: of all draws.

    Returns:
        A fault for :func:`faulty`.

    Raises:
        ValueError: if the probability is out of its range.

    Example: ``fault = cdjax.robust.failing_links(topology, 0.2, key=key)``
    """
    check_topology(topology)
    links = links_of(topology.entries)
    # One draw per edge: both of its directions have the same sorted ends.
    ends = np.sort(np.stack([links.receivers, links.senders]), axis=0)
    edges, edge_of_link = np.unique(ends, axis=1, return_inverse=True)
    draw = _draw(edges.shape[1], probability, key)
    return lambda step: draw(step)[edge_of_link.ravel()]


def lost_messages(topology: Topology, probability: ArrayLike, *, key: PRNGKeyArray) -> Fault:
    """Messages that get lost, each with the same probability; both directions of a link separately.

    The step's mixing matrix is row-stochastic but not symmetric, and the mean over agents moves.

    Args:
        topology: the graph on whose links messages travel.
        probability: of each message, in [0, 1].
        key: of all draws.

    Returns:
        A fault for :func:`faulty`.

    Raises:
        ValueError: if the probability is out of its range.

    Example: ``fault = cdjax.robust.lost_messages(topology, 0.2, key=key)``
    """
    check_topology(topology)
    return _draw(len(links_of(topology.entries).receivers), probability, key)


def absent_agents(topology: Topology, absence: Absence) -> Fault:
    """Agents that are away: all their links fail, so an absent agent keeps its parameters.

    An absent agent is away only from the network; it still takes its own gradient steps.

    Args:
        topology: the graph.
        absence: who is away when, :func:`random_absence` or :func:`scheduled_absence`.

    Returns:
        A fault for :func:`faulty`. It raises ValueError if ``absence`` is not for N agents.

    Example::

        away = cdjax.robust.random_absence(topology.num_agents, 0.1, key=key, duration=100)
        fault = cdjax.robust.absent_agents(topology, away)
    """
    check_topology(topology)
    check_callable("absence", absence, "a function of the step, as of random_absence")
    links, num_agents = links_of(topology.entries), topology.num_agents

    def fault(step: int | Int[Array, ""]) -> Bool[Array, " links"]:
        away = absence(step)
        if away.shape != (num_agents,):
            raise ValueError(
                f"absence gave shape {away.shape}, but the topology has {num_agents} agents"
            )
        return away[links.receivers] | away[links.senders]

    return fault


def random_absence(
    num_agents: int, probability: ArrayLike, *, key: PRNGKeyArray, duration: int = 1
) -> Absence:
    """Every agent is away with the same probability, drawn anew every ``duration`` steps.

    Args:
        num_agents: N.
        probability: p in [0, 1] that an agent is away.
        key: of all draws.
        duration: steps from one draw to the next, at least 1.

    Returns:
        A function from the step to whether each agent is away, shape (N,).

    Raises:
        ValueError: if an argument is out of its range.
    """
    check_num_agents(num_agents)
    check_count("duration", duration, low=1)
    draw = _draw(num_agents, probability, key)
    return lambda step: draw(step // duration)


def scheduled_absence(
    num_agents: int, schedule: Mapping[int, Sequence[tuple[int, int]]]
) -> Absence:
    """Agents that are away at given steps.

    Args:
        num_agents: N.
        schedule: from an agent's number to the first and the last step of each of its absences.

    Returns:
        A function from the step to whether each agent is away, shape (N,).

    Raises:
        ValueError: if there is no such agent, or a stretch ends before it begins.

    Example: ``away = cdjax.robust.scheduled_absence(8, {3: [(100, 199)], 5: [(0, 49)]})``
    """
    check_num_agents(num_agents)
    if not isinstance(schedule, Mapping):
        raise ValueError(f"schedule is {schedule!r}; give a dict from agents to stretches of steps")
    for agent, stretches in schedule.items():
        ends = np.asarray(stretches)
        if ends.size and (ends.ndim != 2 or ends.shape[1] != 2 or ends.dtype.kind not in "iu"):
            raise ValueError(
                f"schedule gives agent {agent} {stretches!r}; expected pairs of steps (first, last)"
            )
        if agent not in range(num_agents):
            raise ValueError(f"schedule names agent {agent}; expected 0 to {num_agents - 1}")
    rows = [(agent, *ends) for agent, stretches in schedule.items() for ends in stretches]
    for agent, first, last in rows:
        if not 0 <= first <= last:
            raise ValueError(
                f"schedule sends agent {agent} away from step {first} to {last}; expected "
                "0 <= first <= last"
            )
    agents, first, last = np.array(rows, np.int32).reshape(-1, 3).T

    def absence(step: int | Int[Array, ""]) -> Bool[Array, " agents"]:
        is_away = (first <= jnp.asarray(step)) & (jnp.asarray(step) <= last)
        return jnp.zeros(num_agents, bool).at[agents].max(is_away)

    return absence


def _draw(size: int, probability: ArrayLike, key: PRNGKeyArray) -> Fault:
    """Draws that many truth values, anew at every step."""
    check_probability("probability", probability)
    check_key(key)

    def draw(step: int | Int[Array, ""]) -> Bool[Array, " size"]:
        return jax.random.bernoulli(jax.random.fold_in(key, step), probability, (size,))

    return draw


def _by_slots(links: Links, failed: Bool[Array, " links"], x: Array) -> Array:
    """Reads one neighbour per slot, and itself in place of what does not arrive."""
    moved = jnp.zeros_like(x)
    for heard, weights in heard_by_slot(links, failed):
        moved += weighted(weights, x.at[heard].get(mode="promise_in_bounds") - x)
    return weighted(links.sums, x) + moved


def _product(links: Links, failed: Bool[Array, " links"], x: Array) -> Array:
    """The product with the step's mixing matrix."""
    weights = jnp.asarray(links.weights, x.dtype)
    kept = jnp.where(failed, 0, weights)
    own = jnp.asarray(links.own, x.dtype).at[links.receivers].add(weights - kept)
    matrix = jnp.diag(own).at[links.receivers, links.senders].set(kept)
    return product(matrix, links.sums, x)
