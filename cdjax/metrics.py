"""What to watch while agents train: disagreement, spread, and bytes on the wire."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cdjax._checks import check_stacked, check_topology, stacked_size
from cdjax._trees import is_floating
from cdjax._types import Params
from cdjax.topology import Topology


class AgentStatistics(NamedTuple):
    """A metric's mean, extremes and (population) variance over the agents."""

    mean: Float[Array, ""]
    min: Float[Array, ""]
    max: Float[Array, ""]
    variance: Float[Array, ""]


def consensus_distance(params: Params) -> Float[Array, ""]:
    r"""The root mean square distance of the agents from their mean.

    .. math:: \Xi = \sqrt{\frac{1}{N} \sum_j \| x^j - \bar{x} \|^2}

    The sum runs over all floating-point leaves together and is taken in float32 at least.

    Args:
        params: a stacked tree, leaves of shape ``(N, ...)``.

    Returns:
        A scalar, in the units of the parameters; 0 in consensus.

    Raises:
        ValueError: if the leaves disagree about the number of agents.

    Reference: Kong et al. (2021), *Consensus Control for Decentralized Deep Learning*,
    arXiv:2102.04828, eq. 2.
    """
    num_agents = stacked_size(params)

    def squared_distance(x: Array | np.ndarray) -> Array:
        x = jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))
        return jnp.sum(jnp.square(jnp.abs(x - jnp.mean(x, axis=0, keepdims=True))))

    leaves = [x for x in jax.tree.leaves(params) if jnp.issubdtype(x.dtype, jnp.inexact)]
    total = sum((squared_distance(x) for x in leaves), start=jnp.zeros([]))
    return jnp.sqrt(total / num_agents)


def agent_statistics(values: Float[Array | np.ndarray, " agents"]) -> AgentStatistics:
    """The mean, extremes and variance of a metric over the agents.

    Args:
        values: one number an agent, shape (N,).

    Returns:
        Four scalars. The variance divides by N.

    Raises:
        ValueError: unless there is one number an agent, of at least one agent.
    """
    if jnp.ndim(values) != 1 or not jnp.size(values):
        raise ValueError(f"values has shape {jnp.shape(values)}; expected one number an agent")
    return AgentStatistics(jnp.mean(values), jnp.min(values), jnp.max(values), jnp.var(values))


def bytes_sent(params: Params, topology: Topology) -> int:
    """The bytes that all agents together send in one mix over the topology.

    Args:
        params: a stacked tree (or its shapes and dtypes), leaves of shape ``(N, ...)``.
        topology: the graph and its mixing matrix.

    Returns:
        Bytes a step, the sum of :func:`bytes_by_edge`.

    Raises:
        ValueError: if a leaf's leading axis is not the topology's number of agents.
    """
    return int(bytes_by_edge(params, topology).sum())


def bytes_by_edge(params: Params, topology: Topology) -> Int[np.ndarray, "agents agents"]:
    """The bytes that each agent sends to each other one in one mix over the topology.

    Every agent sends its own floating-point leaves once to each agent that weighs them.

    Args:
        params: a stacked tree (or its shapes and dtypes), leaves of shape ``(N, ...)``.
        topology: the graph; every non-zero off the diagonal of Π is a message.

    Returns:
        Bytes a step, shape (N, N). Row = receiver, column = sender: a column's sum is what an agent
        sends, a row's what it receives.

    Raises:
        ValueError: if a leaf's leading axis is not the topology's number of agents.
    """
    check_topology(topology)
    check_stacked(params, topology.num_agents)
    has_message = (topology.mixing_matrix != 0) & ~np.eye(topology.num_agents, dtype=bool)
    return has_message * message_bytes(params)


def message_bytes(params: Params) -> int:
    """The bytes of one agent's floating-point leaves, which is what an agent sends in a message.

    Args:
        params: a stacked tree (or its shapes and dtypes), leaves of shape ``(N, ...)``.

    Returns:
        Bytes a message.

    Raises:
        ValueError: if the leaves disagree about the number of agents.
    """
    num_agents = stacked_size(params)
    leaves = [x for x in jax.tree.leaves(params) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return sum(x.size * x.dtype.itemsize for x in leaves) // num_agents


def finite_agents(params: Params) -> Bool[Array, " agents"]:
    """Which agents have finite parameters only.

    Args:
        params: stacked parameters, leaves of shape ``(N, ...)``.

    Returns:
        Truth values of shape (N,); leaves that are not floating point are finite.

    Example::

        assert cdjax.metrics.finite_agents(params).all()
    """
    floating = [x for x in jax.tree.leaves(params) if is_floating(x)]
    by_leaf = [jnp.all(jnp.isfinite(x.reshape(len(x), -1)), axis=1) for x in floating]
    return jnp.all(jnp.stack(by_leaf), axis=0)
