"""Weights the agents' objectives, for data sets of unequal sizes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike

from cdjax._checks import check_range, check_stacked
from cdjax._trees import along_agents
from cdjax._types import Params


def scale_by_agent(weights: ArrayLike) -> optax.GradientTransformation:
    r"""Multiplies agent j's gradient by a weight :math:`w_j`.

    With :math:`w_j = N n_j / n` for agents with :math:`n_j` of all :math:`n` samples, the agents
    together minimise the mean loss over all samples, instead of the mean of their mean losses.

    Args:
        weights: one weight an agent, shape (N,).

    Returns:
        An optax transformation, to go first in a chain.

    Raises:
        ValueError: if the weights are not a vector of finite numbers.

    Example::

        tx = optax.chain(cdjax.scale_by_agent(sizes / sizes.mean()), cdjax.cdsgd(0.01, mix))

    Reference: Jiang et al. (2017), eq. 2.
    """
    if jnp.ndim(weights) != 1:
        raise ValueError(f"weights has shape {jnp.shape(weights)}; expected one number an agent")
    check_range("weights", weights)

    def scale(g: Array) -> Array:
        return g * along_agents(weights, g)

    def update(updates: optax.Updates, params: Params | None = None) -> optax.Updates:
        del params
        check_stacked(updates, jnp.size(weights), holder="weights")
        return jax.tree.map(scale, updates)

    return optax.stateless(update)
