"""Agents weighted by their data, and centralized SGD, which averages over them as one model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike

from cdjax._checks import check_range, check_stacked, stacked_size
from cdjax._trees import along_agents, map_floats
from cdjax._types import Params


def scale_by_agent(weights: ArrayLike) -> optax.GradientTransformation:
    r"""Multiplies agent j's gradient by a weight :math:`w_j`.

    With :math:`w_j = N n_j / n` for agents with :math:`n_j` of all :math:`n` samples, the agents
    together minimise the mean loss over all samples, instead of the mean of their mean losses.

    Args:
        weights: one weight per agent, shape (N,).

    Returns:
        An optax transformation. Before SGD and momentum it scales the gradients; before Adam and
        others that divide by the gradients' own size it has no effect. Behind the optimizer, and
        before :func:`cdjax.consensus`, it is a step size for each agent.

    Raises:
        ValueError: if the weights are not a vector of finite numbers.

    Example: ``tx = optax.chain(cdjax.scale_by_agent(sizes / sizes.mean()), optax.sgd(0.1))``

    Reference: Jiang et al. (2017), eq. 2.
    """
    check_vector(weights)
    check_range("weights", weights)

    def update(updates: optax.Updates, params: Params | None = None) -> optax.Updates:
        del params
        check_stacked(updates, jnp.size(weights), holder="weights")
        return jax.tree.map(lambda g: g * along_agents(weights, g), updates)

    return optax.stateless(update)


def average_updates(weights: ArrayLike | None = None) -> optax.GradientTransformation:
    r"""Gives every agent the mean of all agents' gradients.

    .. math:: \bar{g} = \sum_j w_j \, g(x^j) \Big/ \sum_j w_j

    Before any optimizer this is centralized training: agents that start equal stay equal, and each
    is the one model that takes the agents' batches together.

    Args:
        weights: one positive weight per agent, shape (N,), equal by default; with the numbers of
            samples :math:`w_j = n_j` it is the gradient of the mean loss over all samples.

    Returns:
        An optax transformation that goes first in a chain.

    Raises:
        ValueError: if a weight is not positive.

    Example: ``tx = optax.chain(cdjax.average_updates(), optax.sgd(0.1, momentum=0.9))``
    """
    check_positive_weights(weights)
    return optax.stateless(lambda updates, params: agent_average(updates, weights))


def agent_average(tree: Params, weights: ArrayLike | None = None) -> Params:
    """The weighted mean over agents, handed to every agent; counters pass unchanged."""
    weights = jnp.ones(stacked_size(tree)) if weights is None else jnp.asarray(weights)
    check_stacked(tree, weights.size, holder="weights")

    def average(x: Array) -> Array:
        w = weights.astype(x.dtype)
        # Agents that agree stay, whatever the weights round to: see `mixing.dense`.
        first = x[jnp.argmax(w > 0)]
        # Selected, not multiplied by 0: an agent without weight may have diverged (0 · NaN = NaN).
        apart = jnp.where(along_agents(w > 0, x), x - first[None], 0)
        total = jnp.tensordot(w, apart, axes=1, precision="highest")
        return jnp.broadcast_to(first + total / jnp.sum(w), x.shape)

    return map_floats(average, tree)


def check_positive_weights(weights: ArrayLike | None) -> None:
    """Raises unless ``weights`` is a vector of positive numbers, or None."""
    if weights is not None:
        check_vector(weights)
        check_range("weights", weights, low=0, low_open=True)


def check_vector(weights: ArrayLike) -> None:
    """Raises unless ``weights`` has one axis."""
    if jnp.ndim(weights) != 1:
        raise ValueError(f"weights has shape {jnp.shape(weights)}; expected one number per agent")
