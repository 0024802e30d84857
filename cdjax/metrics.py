"""What to watch while agents train: disagreement, spread over agents, and bytes sent."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cdjax._checks import check_stacked, check_topology, stacked_size
from cdjax._trees import floating_leaves, mean_over_agents, widened
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
        A scalar, in the units of the parameters; 0 in consensus, where its gradient is 0 too.

    Raises:
        ValueError: if the leaves disagree about the number of agents.

    Example: ``assert cdjax.metrics.consensus_distance(jnp.array([0.0, 2.0])) == 1``

    Reference: Kong et al. (2021), *Consensus Control for Decentralized Deep Learning*,
    arXiv:2102.04828, eq. 2.
    """
    num_agents = stacked_size(params)
    square = _squared_distances(floating_leaves(params)) / num_agents
    # In consensus the gradient of the root is infinite, and times 0 would be NaN.
    apart = square != 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


@jax.jit  # one program, for the reason that `mean_params` has
def _squared_distances(leaves: list[Array]) -> Float[Array, ""]:
    # Of the differences to the first agent: the mean of equal values rounds to another one.
    apart = [x - x[:1] for x in map(widened, leaves)]
    centred = (x - mean_over_agents(x)[None] for x in apart)
    squares = (jnp.sum(jnp.square(jnp.abs(x))) for x in centred)
    return sum(squares, start=jnp.zeros([]))


def agent_statistics(values: Float[Array | np.ndarray, " agents"]) -> AgentStatistics:
    """The mean, extremes and variance of a metric over the agents.

    Args:
        values: one number per agent, shape (N,).

    Raises:
        ValueError: unless there is one number per agent, for at least one agent.
    """
    if jnp.ndim(values) != 1 or not jnp.size(values):
        raise ValueError(f"values has shape {jnp.shape(values)}; expected one number per agent")
    return AgentStatistics(jnp.mean(values), jnp.min(values), jnp.max(values), jnp.var(values))


def bytes_sent(params: Params, topology: Topology) -> int:
    """The bytes that all agents together send in one mix over the topology.

    Args:
        params: a stacked tree (or its shapes and dtypes), leaves of shape ``(N, ...)``.
        topology: the graph and its mixing matrix.

    Returns:
        Bytes per mix, the sum of :func:`bytes_by_edge`.

    Raises:
        ValueError: if a leaf's leading axis is not the topology's number of agents.
    """
    check_topology(topology)
    check_stacked(params, topology.num_agents)
    return len(topology.entries.off_diagonal.weights) * message_bytes(params)


def bytes_by_edge(params: Params, topology: Topology) -> Int[np.ndarray, "agents agents"]:
    """The bytes that each agent sends to each other agent in one mix over the topology.

    An agent sends its floating-point leaves once to each agent that gives it a weight.

    Args:
        params: a stacked tree (or its shapes and dtypes), leaves of shape ``(N, ...)``.
        topology: every non-zero entry of Π off the diagonal is a message.

    Returns:
        Bytes per mix, shape (N, N). Row = receiver, column = sender: the sum of a column is what
        that agent sends, the sum of a row what it receives.

    Raises:
        ValueError: if a leaf's leading axis is not the topology's number of agents.
    """
    check_topology(topology)
    check_stacked(params, topology.num_agents)
    has_message = (topology.mixing_matrix != 0) & ~np.eye(topology.num_agents, dtype=bool)
    return has_message * message_bytes(params)


def message_bytes(params: Params) -> int:
    """The bytes of one agent's floating-point leaves: the size of a message.

    Args:
        params: a stacked tree (or its shapes and dtypes), leaves of shape ``(N, ...)``.

    Raises:
        ValueError: if the leaves disagree about the number of agents.
    """
    num_agents = stacked_size(params)
    return sum(x.size * x.dtype.itemsize for x in floating_leaves(params)) // num_agents


def finite_agents(params: Params) -> Bool[Array, " agents"]:
    """Which agents have finite parameters only.

    Args:
        params: stacked parameters, leaves of shape ``(N, ...)``.

    Returns:
        Truth values of shape (N,); leaves that are not floating point are finite.

    Example: ``assert cdjax.metrics.finite_agents(params).all()``
    """
    leaves = floating_leaves(params)
    by_leaf = [jnp.all(jnp.isfinite(x.reshape(len(x), -1)), axis=1) for x in leaves]
    return jnp.all(jnp.stack(by_leaf), axis=0)
