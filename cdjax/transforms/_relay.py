r"""RelaySGD: exact means along a spanning tree, each contribution late by its distance.

Vogels, He, Koloskova, Karimireddy, Lin, Stich, Jaggi, *RelaySum for Decentralized Deep Learning on
Heterogeneous Data*, NeurIPS 2021, arXiv:2110.04175, Algorithm 1.

The paper's messages are sums, :math:`m_{i \to j} = \hat x^i + \sum_{k \ne j} m_{k \to i}`, over the
:math:`n_{i \to j}` agents on i's side of the link. Here they are the means of these: differences of
means are small, and zero among agents that agree, which no sum of bfloat16 or float32 numbers
would keep. What has not arrived yet counts as the receiver's own start in both.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from cdjax._checks import check_inner, check_params, check_stacked
from cdjax._stored import stored
from cdjax._trees import along_agents, displacement, is_floating, map_floats
from cdjax._types import OptState, Params

# Where more links than these meet, reading the messages link by link would take too long.
_FEW_LINKS = 8


class RelayState(NamedTuple):
    """State of :func:`relay`: the step, the last message on each link, and the inner optimizer's.

    Messages have leaves of shape ``(2 (N − 1), ...)``, those on the links i → j by i, then by j.
    """

    step: Int[Array, ""]
    messages: Params
    inner: OptState


class _Links(NamedTuple):
    """The links of a tree in both directions; ``sizes`` are the agents on the sender's side.

    ``arriving`` are, where no agent has many links, the first link to every agent and its size, the
    second, and so on; of size 0 where an agent has fewer.
    """

    senders: Int[np.ndarray, " links"]
    receivers: Int[np.ndarray, " links"]
    reverse: Int[np.ndarray, " links"]
    sizes: Float[np.ndarray, " links"]
    arriving: list[tuple[Int[np.ndarray, " agents"], Float[np.ndarray, " agents"]]] | None


def relay(inner: optax.GradientTransformation, tree: Any) -> optax.GradientTransformationExtraArgs:
    r"""Local steps, and the mean of all agents' relayed along a spanning tree.

    .. math::
        \hat x = x + u, \qquad
        x^i_{t+1} = \frac{1}{N} \sum_j \hat x^j_{t - \max(d_{ij} - 1, 0)}

    with the distances d on the tree, and the agent's own start for what was before step 0. So every
    agent counts the same with every other, whatever the graph, and the fixed point is the optimum
    of the mean loss. Each step one message travels along each link, in both directions.

    The delays bound the step size: on long paths it has to be smaller than with gossip.

    Args:
        inner: any optax optimizer with updates u.
        tree: a topology or a networkx graph on the agents 0..N-1 that is a tree, such as
            :func:`cdjax.topology.spanning_tree`; its weights do not count.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments. Its
        state holds nearly two copies of the parameters.

    Raises:
        ValueError: if ``tree`` is no tree on the agents 0..N-1; from ``init``, if the parameters
            do not have N agents.

    Example::

        tree = cdjax.topology.spanning_tree(topology)
        tx = cdjax.relay(optax.sgd(0.1), tree)

    Reference: Vogels et al. (2021), Algorithm 1.
    """
    check_inner(inner)
    inner = optax.with_extra_args_support(inner)
    num_agents, links = _links_of(tree)

    def init(params: Params) -> RelayState:
        check_stacked(params, num_agents, holder="the tree")
        of_receiver = lambda x: x[links.receivers] if is_floating(x) else x  # noqa: E731
        messages = jax.tree.map(of_receiver, params)
        return RelayState(jnp.zeros([], jnp.int32), messages, inner.init(params))

    def update(
        updates: optax.Updates, state: RelayState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, RelayState]:
        x = check_params(params, "relay", updates)
        check_stacked(x, num_agents, holder="the tree")
        updates, inner_state = inner.update(updates, state.inner, x, **extra_args)
        adapted = stored(optax.apply_updates(x, updates), state.step)
        pulls_of = partial(_pulls, links)
        messages = map_floats(partial(_relayed, links), state.messages, adapted)
        messages = stored(messages, state.step)
        pulls = map_floats(pulls_of, messages, adapted)
        mean = map_floats(lambda x, pull: x + pull / num_agents, adapted, pulls)
        return displacement(mean, x), RelayState(state.step + 1, messages, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _relayed(links: _Links, messages: Array, x: Array) -> Array:
    """What agents send on, the mean over their side of the link: their own and what has arrived."""
    sizes = along_agents(links.sizes, x)
    from_receiver = sizes[links.reverse] * (messages[links.reverse] - x[links.senders])
    others = _pulls(links, messages, x, links.senders) - from_receiver
    return (x[links.senders] + others / sizes).astype(messages.dtype)


def _pulls(links: _Links, messages: Array, x: Array, agents: Any = slice(None)) -> Array:
    """How far messages are from their receivers, times the agents behind them: summed, by agent.

    Where an agent is listed for each of its few links, adding up again takes less time than reading
    the sums from memory, and no memory.
    """
    if links.arriving is None:
        pulls = along_agents(links.sizes, x) * (messages - x[links.receivers])
        return jnp.zeros_like(x).at[links.receivers].add(pulls.astype(x.dtype))[agents]
    x = x[agents]
    total = jnp.zeros_like(x)
    for numbers, sizes in links.arriving:
        total += along_agents(sizes[agents], x) * (messages[numbers[agents]] - x)
    return total


def _links_of(tree: Any) -> tuple[int, _Links]:
    """The number of agents and the links of a topology or graph; raises unless it is a tree."""
    graph = tree.graph if hasattr(tree, "mixing_matrix") else tree
    if not (hasattr(graph, "edges") and hasattr(graph, "nodes")):
        raise ValueError(
            f"tree is of type {type(tree).__name__}; give a topology or a networkx graph, such as "
            "cdjax.topology.spanning_tree(topology)"
        )
    num_agents = len(graph.nodes)
    if {*graph.nodes} != {*range(num_agents)} or not num_agents:
        raise ValueError(f"tree has the nodes {[*graph.nodes][:6]}; number them from 0 to N - 1")
    edges = {(min(edge), max(edge)) for edge in graph.edges if edge[0] != edge[1]}
    neighbors: list[list[int]] = [[] for _ in range(num_agents)]
    for a, b in edges:
        neighbors[a].append(b)
        neighbors[b].append(a)
    # From agent 0 outwards; the agents behind each are then summed on the way back.
    parents, order = {0: 0}, [0]
    for agent in order:
        for other in sorted(neighbors[agent]):
            if other not in parents:
                parents[other] = agent
                order.append(other)
    if len(order) < num_agents or len(edges) != num_agents - 1:
        raise ValueError(
            f"tree has {num_agents} agents and {len(edges)} edges and is "
            f"{'' if len(order) == num_agents else 'not '}connected; a tree is connected and has "
            f"{num_agents - 1}, take cdjax.topology.spanning_tree(topology)"
        )
    behind = dict.fromkeys(range(num_agents), 1)
    for agent in reversed(order[1:]):
        behind[parents[agent]] += behind[agent]
    sizes = {(agent, parents[agent]): behind[agent] for agent in order[1:]}
    sizes |= {(b, a): num_agents - size for (a, b), size in sizes.items()}
    links = sorted(sizes)
    numbers = {link: number for number, link in enumerate(links)}
    senders, receivers = np.array(links, int).reshape(-1, 2).T
    reverse = np.array([numbers[b, a] for a, b in links], int)
    numbers_behind = np.array([sizes[link] for link in links], np.float64)
    arriving = _arriving(receivers, numbers_behind, num_agents)
    return num_agents, _Links(senders, receivers, reverse, numbers_behind, arriving)


def _arriving(
    receivers: Int[np.ndarray, " links"], sizes: Float[np.ndarray, " links"], num_agents: int
) -> list[tuple[Int[np.ndarray, " agents"], Float[np.ndarray, " agents"]]] | None:
    """See :class:`_Links`; each entry reads the messages to all agents once, into no other array.

    A scatter-add, as of many links, holds all of its summands, nearly two copies of the parameters.
    """
    degrees = np.bincount(receivers, minlength=num_agents)
    if degrees.max(initial=0) > _FEW_LINKS:
        return None
    order = np.argsort(receivers, kind="stable")
    first = np.cumsum(degrees) - degrees
    arriving = []
    for k in range(degrees.max(initial=0)):
        numbers = order[np.where(degrees > k, first + k, 0)]
        arriving.append((numbers, np.where(degrees > k, sizes[numbers], 0.0)))
    return arriving
