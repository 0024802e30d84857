"""Cross gradients: every agent's model on its neighbours' data, computed where the data are.

Esfandiari, Tan, Jiang, Balu, Herron, Hegde, Sarkar, *Cross-Gradient Aggregation for Decentralized
Learning from Non-IID Data*, ICML 2021, arXiv:2103.02051.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from cdjax._checks import check_callable, check_count, check_topology, stacked_size
from cdjax._trees import along_agents
from cdjax._types import Params
from cdjax.agents import agent_map
from cdjax.mixing._neighbors import slots_of
from cdjax.mixing._shifts import shifts_of
from cdjax.sharding import sharded
from cdjax.topology import Topology
from cdjax.topology._entries import Entries
from cdjax.transforms import CrossGradients


class _Journey(NamedTuple):
    """How models get to those who hold data, how gradients come back, and their weights (N, K).

    ``there`` makes a leaf of shape (N, slots, ...) from one of shape (N, ...), ``back`` one of
    shape (N, K, ...) from one of shape (N, slots, ...).
    """

    there: Callable[[Array], Array]
    back: Callable[[Array], Array]
    weights: np.ndarray


def cross_gradients(
    fn: Callable[..., Params],
    topology: Topology,
    *,
    num_own: int = 1,
    plan: str = "auto",
    mesh: Mesh | None = None,
    sent: Callable[[Params], Params] | None = None,
) -> Callable[..., CrossGradients]:
    r"""The gradients of every agent's model on its neighbours' data.

    .. math:: g^{jl} = \nabla F_l(x^j), \qquad l \in N(j)

    Agent j sends its model to its neighbours; each computes the gradient on its own batch and sends
    it back. So the data stay where they are. Every agent computes as many gradients as the agent
    with the most neighbours has, beside its own. On graphs that look the same from every agent (a
    ring, a complete graph), models and gradients are shifted along the agent axis, which on several
    devices is a collective permute; on others they are gathered.

    Args:
        fn: the gradient of one agent's loss, from its arguments to a tree like the parameters, such
            as ``jax.grad(loss_fn)``; a function of pytrees.
        topology: the graph; the neighbours of agent j are those to whom :math:`\Pi` gives a weight.
        num_own: how many of the first arguments belong to the model that travels (parameters, batch
            statistics). The others (batch, random key) stay with whoever holds the data.
        plan: how to map over agents, see :func:`cdjax.agent_map`.
        mesh: the devices over which the agents are divided, if they are.
        sent: what is read of the gradients that are sent back, as a function of a stacked tree,
            such as a compressor without draws; by default the gradients.

    Returns:
        A function of the stacked arguments of ``fn`` which returns :class:`CrossGradients`, for
        ``tx.update(grads, state, params, cross_gradients=...)`` of :func:`cdjax.cga`.

    Raises:
        ValueError: if an argument is not what it should be; from the function, if the arguments do
            not have the topology's number of agents.

    Example::

        tx = cdjax.cga(0.01, mix)
        crossed = cdjax.cross_gradients(jax.grad(loss_fn), topology)(params, batch)
        grads = cdjax.agent_map(jax.grad(loss_fn))(params, batch)
        updates, state = tx.update(grads, tx.init(params), params, cross_gradients=crossed)

    Reference: Esfandiari et al. (2021), Algorithm 1 (number not verified).
    """
    check_callable("fn", fn, "the gradient of one agent's loss, such as jax.grad(loss_fn)")
    check_topology(topology)
    check_count("num_own", num_own, low=1)
    if sent is not None:
        check_callable("sent", sent, "a compressor, such as cdjax.compress.sign()")
    journey = _by_shifts(topology.entries) or _by_tables(topology.entries)

    def on_own_data(models: tuple[Any, ...], data: tuple[Any, ...]) -> Params:
        """An agent's gradients of all the models that have come to it."""
        of_model = lambda model, data: fn(*model, *data)  # noqa: E731
        return agent_map(of_model, plan=plan, num_shared=1)(models, data)

    at_holders = agent_map(on_own_data, plan=plan)
    if mesh:
        at_holders = sharded(at_holders, mesh)

    def crossed(*args: Any) -> CrossGradients:
        found = stacked_size(args)
        if found != topology.num_agents:
            raise ValueError(
                f"the arguments have {found} agents, but the topology has {topology.num_agents}; "
                "give both the same"
            )
        weights = jnp.asarray(journey.weights)
        if not weights.shape[1]:
            none = lambda x: jnp.zeros((found, 0, *jnp.shape(x)[1:]), jnp.result_type(x))  # noqa: E731
            return CrossGradients(jax.tree.map(none, args[0]), weights)
        grads = at_holders(jax.tree.map(journey.there, args[:num_own]), args[num_own:])
        if sent is not None:
            slots = jnp.shape(jax.tree.leaves(grads)[0])[1]
            read = [sent(jax.tree.map(lambda g: g[:, k], grads)) for k in range(slots)]  # noqa: B023
            grads = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *read)
        return CrossGradients(jax.tree.map(journey.back, grads), weights)

    return crossed


def _by_shifts(entries: Entries) -> _Journey | None:
    """By shifts of the agent axis; None unless every shift is a link of every agent."""
    shifts = [int(shift) for shift in shifts_of(entries.off_diagonal) if shift]
    if len(shifts) * entries.num_agents != len(entries.off_diagonal.receivers):
        return None
    agents = np.arange(entries.num_agents)
    weights = [entries.at(agents, (agents + s) % entries.num_agents) for s in shifts]

    def there(x: Array) -> Array:
        return jnp.stack([jnp.roll(x, s, axis=0) for s in shifts], axis=1)

    def back(h: Array) -> Array:
        returned = [jnp.roll(h[:, k], -s, axis=0) for k, s in enumerate(shifts)]
        return jnp.stack(returned, axis=1)

    stacked = np.stack(weights, axis=1) if shifts else np.zeros((entries.num_agents, 0))
    return _Journey(there, back, stacked)


def _by_tables(entries: Entries) -> _Journey:
    """By a table of the models that come to each agent, and one of where its own have been."""
    links, num_agents = entries.off_diagonal, entries.num_agents
    by_holder = np.argsort(links.senders, kind="stable")
    visits = slots_of(links.senders[by_holder], num_agents)
    agents = np.arange(num_agents)[:, None]
    # One more in the end, for the slots that are not needed: an agent's own model stands there.
    owners = np.where(visits >= 0, np.append(links.receivers[by_holder], 0)[visits], agents)
    # Where each link's gradient is among all slots of all holders.
    places = np.empty(len(by_holder), int)
    rows, columns = np.nonzero(visits >= 0)
    places[by_holder[visits[rows, columns]]] = rows * visits.shape[1] + columns
    own = slots_of(links.receivers, num_agents)
    is_link, sources = own >= 0, np.append(places, 0)[own]
    weights = np.append(links.weights, 0.0)[own]

    def there(x: Array) -> Array:
        return x[owners]

    def back(h: Array) -> Array:
        returned = h.reshape(-1, *h.shape[2:])[sources]
        return jnp.where(along_agents(is_link, returned), returned, 0)

    return _Journey(there, back, weights)
