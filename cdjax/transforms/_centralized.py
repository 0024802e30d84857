"""Centralized SGD: the agents' gradients averaged, as if one model had the whole batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike

from cdjax._checks import check_range, check_stacked, stacked_size
from cdjax._types import Params


def average_updates(weights: ArrayLike | None = None) -> optax.GradientTransformation:
    r"""Gives every agent the mean of all agents' gradients.

    .. math:: \bar{g} = \sum_j w_j \, g(x^j) \Big/ \sum_j w_j

    Before any optimizer this is centralized training: agents that start equal stay equal, and each
    is the one model that takes the agents' batches together.

    Args:
        weights: one positive weight an agent, shape (N,); for the mean loss over all samples
            :math:`w_j = n_j`, the agent's number of samples. Equal by default.

    Returns:
        An optax transformation, to go first in a chain.

    Raises:
        ValueError: if a weight is not positive.

    Example::

        tx = optax.chain(cdjax.average_updates(), optax.sgd(0.1, momentum=0.9))
    """
    check_weights(weights)

    def update(updates: optax.Updates, params: Params | None = None) -> optax.Updates:
        del params
        return agent_average(updates, weights)

    return optax.stateless(update)


def agent_average(tree: Params, weights: ArrayLike | None = None) -> Params:
    """The weighted mean over agents, handed to every agent; counters pass unchanged.

    The server of centralized training and of federated averaging: a replicated value. Sums in
    float32 at least.
    """
    weights = jnp.ones(stacked_size(tree)) if weights is None else jnp.asarray(weights)
    check_stacked(tree, weights.size, holder="weights")

    def average(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        w = weights.astype(jnp.promote_types(x.dtype, jnp.float32))
        # An agent of weight zero, even one that has diverged, is not heard: 0 · NaN would be.
        heard = jax.vmap(lambda weight, x: jnp.where(weight > 0, x, 0))(w, x.astype(w.dtype))
        total = jnp.tensordot(w, heard, axes=1, precision="highest")
        return jnp.broadcast_to((total / jnp.sum(w)).astype(x.dtype), x.shape)

    return jax.tree.map(average, tree)


def check_weights(weights: ArrayLike | None) -> None:
    """Raises unless ``weights`` is a vector of positive numbers, or None."""
    if weights is None:
        return
    if jnp.ndim(weights) != 1:
        raise ValueError(f"weights has shape {jnp.shape(weights)}; expected one number an agent")
    check_range("weights", weights, low=0, low_open=True)
